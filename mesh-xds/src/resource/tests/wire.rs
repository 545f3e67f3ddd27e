//! Mutations of protobuf bytes that keep to the wire format: fields are dropped, doubled, moved, and given the values
//! at which decisions change. Most results still decode, so the validators are reached, not only the decoder.

/// Where the choices come from: a fuzzer's input, or a seeded generator.
pub(crate) trait Choose {
    /// A number below `bound`; 0 where there is no choice.
    fn below(&mut self, bound: usize) -> usize;
}

/// One field of a message.
#[derive(Debug, Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    /// Bytes that are themselves a sequence of fields, and so a message or a text that looks like one.
    Message(Vec<Field>),
}

/// How deep bytes are looked into; `Any` within `Any` included.
const MAX_DEPTH: usize = 40;

const NUMBERS: [u64; 12] =
    [0, 1, 2, 3, 7, 100, 1_000_000, 65_535, 65_536, u32::MAX as u64, i64::MAX as u64, u64::MAX];

const TEXTS: [&str; 14] = [
    "",
    "*",
    "*.a",
    "a.*.b",
    "/",
    "(",
    "[a&&b]",
    "(((a{200}){200}){200})",
    "10.0.0.1",
    "::1",
    "default",
    ":path",
    "grpc-x",
    "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
];

/// Between one and eight mutations of a message.
pub(crate) fn mutate(bytes: Vec<u8>, choose: &mut impl Choose) -> Vec<u8> {
    let Some(mut fields) = parse(&bytes, 0) else { return bytes };
    for _ in 0..=choose.below(8) {
        step(&mut fields, choose);
    }
    let mut out = Vec::with_capacity(bytes.len());
    write(&fields, &mut out);
    out
}

fn step(fields: &mut Vec<Field>, choose: &mut impl Choose) {
    if fields.is_empty() {
        let number = 1 + choose.below(60) as u64;
        return fields.push(Field { number, value: fresh(choose) });
    }
    let at = choose.below(fields.len());
    let inner = match fields.get_mut(at) {
        // Deeper three times out of four: there is more to change within than at the top.
        Some(Field { value: Value::Message(inner), .. }) if choose.below(4) != 0 => inner,
        _ => return change(fields, at, choose),
    };
    step(inner, choose);
}

fn change(fields: &mut Vec<Field>, at: usize, choose: &mut impl Choose) {
    match choose.below(8) {
        0 => drop(fields.remove(at)),
        1 => fields.push(fields[at].clone()),
        2 => {
            let other = choose.below(fields.len());
            fields.swap(at, other);
        }
        3 => fields[at].number = 1 + choose.below(60) as u64,
        4 => fields.push(Field { number: 1 + choose.below(60) as u64, value: fresh(choose) }),
        5 => fields[at].value = Value::Message(Vec::new()),
        _ => fields[at].value = like(&fields[at].value, choose),
    }
}

/// Another value of the same kind.
fn like(value: &Value, choose: &mut impl Choose) -> Value {
    match value {
        Value::Varint(n) => match choose.below(3) {
            0 => Value::Varint(n.wrapping_add(1)),
            1 => Value::Varint(n ^ (1 << choose.below(64))),
            _ => Value::Varint(NUMBERS[choose.below(NUMBERS.len())]),
        },
        Value::Fixed64(_) => Value::Fixed64(NUMBERS[choose.below(NUMBERS.len())].to_le_bytes()),
        Value::Fixed32(_) => Value::Fixed32((NUMBERS[choose.below(NUMBERS.len())] as u32).to_le_bytes()),
        Value::Bytes(_) | Value::Message(_) => {
            Value::Bytes(TEXTS[choose.below(TEXTS.len())].as_bytes().to_vec())
        }
    }
}

fn fresh(choose: &mut impl Choose) -> Value {
    match choose.below(4) {
        0 => Value::Varint(NUMBERS[choose.below(NUMBERS.len())]),
        1 => Value::Bytes(TEXTS[choose.below(TEXTS.len())].as_bytes().to_vec()),
        2 => Value::Fixed64(f64::NAN.to_le_bytes()),
        _ => Value::Message(Vec::new()),
    }
}

fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(*bytes.split_first_chunk().map(|(head, rest)| (bytes = rest, head).1)?),
            5 => Value::Fixed32(*bytes.split_first_chunk().map(|(head, rest)| (bytes = rest, head).1)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (head, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let inner = if depth < MAX_DEPTH { parse(head, depth + 1) } else { None };
                inner.map_or_else(|| Value::Bytes(head.to_vec()), Value::Message)
            }
            _ => return None,
        };
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let key = |wire: u64, out: &mut Vec<u8>| write_varint(number << 3 | wire, out);
        let delimited = |bytes: &[u8], out: &mut Vec<u8>| {
            key(2, out);
            write_varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        };
        match value {
            Value::Varint(n) => {
                key(0, out);
                write_varint(*n, out);
            }
            Value::Fixed64(bytes) => {
                key(1, out);
                out.extend_from_slice(bytes);
            }
            Value::Fixed32(bytes) => {
                key(5, out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => delimited(bytes, out),
            Value::Message(inner) => {
                let mut bytes = Vec::new();
                write(inner, &mut bytes);
                delimited(&bytes, out);
            }
        }
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
