//! W3C Trace Context, version 00: the `traceparent` and `tracestate` headers.
//!
//! A malformed `traceparent` counts as none, as the recommendation demands; a higher version is read by its first four
//! fields. Deviation: `tracestate` is passed on as it came, unread.

use http::{HeaderMap, HeaderName, HeaderValue};

use mesh_core::rng::Rng;
use mesh_core::telemetry::event::TraceIds;

use crate::lines;

/// `traceparent`.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A place in a trace: what a caller hands to whom it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id, the id of the span that is the parent of what comes next, and the sampled flag.
    pub ids: TraceIds,
    /// Vendors' state, passed on unread.
    pub state: Option<Box<HeaderValue>>,
}

// === impl TraceContext ===

impl TraceContext {
    /// The context that a request carries, if it carries a valid one.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let ids = parse(headers.get(&TRACEPARENT)?.as_bytes())?;
        Some(Self { ids, state: state(headers).map(Box::new) })
    }

    /// Writes the context into a request, replacing what is there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Ok(mut value) = HeaderValue::from_bytes(&format(self.ids)) {
            // Never the same twice: kept out of HPACK's dynamic table, where it would push out what repeats.
            value.set_sensitive(true);
            headers.insert(TRACEPARENT, value);
        }
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, HeaderValue::clone(state));
        }
    }

    /// A new trace.
    pub fn root(sampled: bool, rng: &mut impl Rng) -> Self {
        let trace = u128::from(nonzero(rng)) << 64 | u128::from(nonzero(rng));
        Self { ids: TraceIds { trace, span: nonzero(rng), sampled }, state: None }
    }

    /// A new span below this one.
    pub fn child(&self, rng: &mut impl Rng) -> Self {
        Self { ids: TraceIds { span: nonzero(rng), ..self.ids }, state: self.state.clone() }
    }
}

/// The state: lines are one list (RFC 9110 §5.3), and the order of its entries means something.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    lines::joined(headers, &TRACESTATE, b",").or_else(|| headers.get(&TRACESTATE).cloned())
}

fn nonzero(rng: &mut impl Rng) -> u64 {
    rng.next_u64().max(1)
}

fn parse(text: &[u8]) -> Option<TraceIds> {
    // version "-" trace-id "-" parent-id "-" flags: 2, 32, 16 and 2 digits.
    let (version, rest) = (text.get(..2)?, text.get(2..)?);
    let version = hex(version)?;
    let exact = version != 0 || rest.len() == 53;
    let more = rest.get(53).is_none_or(|b| *b == b'-');
    if version == 0xff || !exact || !more {
        return None;
    }
    let dashes = [0, 33, 50].iter().all(|at| rest.get(*at) == Some(&b'-'));
    let trace = hex(rest.get(1..33)?)?;
    let span = hex(rest.get(34..50)?)? as u64;
    let flags = hex(rest.get(51..53)?)?;
    (dashes && trace != 0 && span != 0).then_some(TraceIds { trace, span, sampled: flags & 1 == 1 })
}

/// Lower-case hexadecimal only: the recommendation forbids upper case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(nibble))
    })
}

fn format(ids: TraceIds) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &ids.trace.to_be_bytes());
    write_hex(&mut text[36..52], &ids.span.to_be_bytes());
    text[54] = b'0' + u8::from(ids.sampled);
    text
}

/// By eight digits at a time: each nibble gets a byte, and each byte its digit.
fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    for (digits, bytes) in digits.chunks_exact_mut(8).zip(bytes.chunks_exact(4)) {
        let four = u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let four = (four << 16 | four) & 0x0000_ffff_0000_ffff;
        let four = (four << 8 | four) & 0x00ff_00ff_00ff_00ff;
        let nibbles = (four << 4 | four) & 0x0f0f_0f0f_0f0f_0f0f;
        // One in each byte that is above nine.
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        let text = nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10);
        digits.copy_from_slice(&text.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::rng::Xoshiro;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_context_comes_out_as_it_went_in() {
        let mut headers = with(VALID);
        headers.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        let context = TraceContext::extract(&headers).unwrap();
        assert_eq!(context.ids.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.ids.span, context.ids.sampled), (0x00f0_67aa_0ba9_02b7, true));
        let mut out = HeaderMap::new();
        context.inject(&mut out);
        assert_eq!(out, headers);
    }

    #[test]
    fn a_state_in_several_lines_is_one() {
        for (lines, expected) in [
            (&["a=1"][..], Some("a=1")),
            (&["a=1", "b=2"], Some("a=1,b=2")),
            (&["a=1,b=2", "c=3", "d=4"], Some("a=1,b=2,c=3,d=4")),
            (&[], None),
        ] {
            let mut headers = with(VALID);
            for line in lines {
                headers.append(TRACESTATE, HeaderValue::from_str(line).unwrap());
            }
            let context = TraceContext::extract(&headers).unwrap();
            context.inject(&mut headers);
            let passed_on: Vec<_> = headers.get_all(TRACESTATE).iter().collect();
            assert_eq!(passed_on, expected.into_iter().collect::<Vec<_>>(), "{lines:?}");
        }
    }

    #[test]
    fn a_malformed_parent_counts_as_none() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        ] {
            assert_eq!(TraceContext::extract(&with(bad)), None, "{bad}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert!(
            TraceContext::extract(&with(later)).is_some(),
            "a higher version is read by its first fields"
        );
    }

    #[test]
    fn a_child_keeps_trace_and_decision_and_has_its_own_span() {
        let mut rng = Xoshiro::seeded(1);
        let root = TraceContext::root(true, &mut rng);
        let child = root.child(&mut rng);
        assert_eq!((child.ids.trace, child.ids.sampled), (root.ids.trace, true));
        assert_ne!(child.ids.span, root.ids.span);
    }
}
