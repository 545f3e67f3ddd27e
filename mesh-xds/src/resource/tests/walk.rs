//! A walk over every field that a resource can have: from a small valid resource down through each message that is
//! accepted, each field is set to a sample and the verdict compared with that of the same resource without it.
//!
//! A message that is accepted is entered, so nothing that it contains is left out: the walk ends at scalars, at the
//! messages of [`is_leaf`], at those that are walked elsewhere ([`ELSEWHERE`]), and at a message within itself.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, ReflectMessage, Value};

use super::samples::{ELSEWHERE, SAMPLES, SCOPES, with_types};
use super::{rules, *};
use crate::resource::ignored::IGNORED;
use crate::resource_json::{Format, parse, pool};

/// What becomes of a field that is set, the strongest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The resource is refused, for this reason.
    Refused(String),
    /// It makes no difference.
    Ignored,
    /// It is listed as not applied.
    Listed,
    /// The value differs.
    Applied,
}

/// A field, or a value of an enumeration or type of an `Any` in it: the scope, the message, the field (`field=VALUE`).
pub(super) type Leaf = (&'static str, String, String);

/// What the walk found: the strongest verdict on each leaf over all the places where it is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) leaves: BTreeMap<Leaf, Verdict>,
    /// Fields that hold a message, by its type: what they do is what it contains, unless another field holds one as well.
    holders: BTreeMap<(&'static str, String), BTreeMap<Leaf, Verdict>>,
    /// Values of enumerations that mean what is meant without the field, and fields that are what they contain.
    decided: BTreeSet<Leaf>,
    /// The fields that are `Any`, and the types that they know.
    pub(super) extensions: BTreeMap<Leaf, Vec<String>>,
}

/// A resource, and the place in it where the walk is.
#[derive(Clone)]
struct Place {
    kind: Kind,
    scope: &'static str,
    root: DynamicMessage,
    steps: Vec<String>,
    within: Vec<String>,
}

/// Reasons that refuse a message for its type.
const OF_TYPE: [&str; 4] = [
    "extension \"",
    "where \"",
    "access control belongs on the server's side",
    "the last filter must be the router",
];

const ANY: &str = "google.protobuf.Any";

/// Walks a resource, given as the YAML of its fields.
pub(super) fn walk(kind: Kind, scope: &'static str, yaml: &str, found: &mut Found) {
    let name = kind.type_url().rsplit('/').next().unwrap();
    let root = overlay(name, yaml);
    judge(kind, &root).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    let place = Place { kind, scope, root, steps: Vec::new(), within: Vec::new() };
    place.walk(found);
    found.separate();
    found.drop_refusals();
}

/// The extensions that there are.
pub(super) fn extensions() -> impl Iterator<Item = String> {
    let is_one = |m: &prost_reflect::MessageDescriptor| {
        let name = m.full_name();
        !m.is_map_entry()
            && (name.starts_with("envoy.extensions.") || name == "envoy.config.route.v3.FilterConfig")
    };
    pool().all_messages().filter(is_one).map(|m| m.full_name().to_owned())
}

/// A message from the YAML of its fields.
pub(super) fn overlay(message: &str, yaml: &str) -> DynamicMessage {
    let text = with_types(&format!("{{@{message}, {yaml}}}"));
    let parsed = parse(&text, Format::Yaml).unwrap_or_else(|e| panic!("{e}\n{text}")).remove(0);
    DynamicMessage::decode(pool().get_message_by_name(message).unwrap(), parsed.value.as_slice()).unwrap()
}

/// The verdict on a resource.
pub(super) fn judge(kind: Kind, root: &DynamicMessage) -> Result<Accepted, Invalid> {
    decode(kind, kind.type_url(), &root.encode_to_vec(), &rules()).verdict
}

// === impl Found ===

impl Found {
    fn note(&mut self, leaf: Leaf, verdict: Verdict) {
        let known = self.leaves.entry(leaf).or_insert_with(|| verdict.clone());
        *known = verdict.max(known.clone());
    }

    /// What is decided at one place may be refused at another.
    fn drop_refusals(&mut self) {
        let Self { leaves, decided, .. } = self;
        leaves.retain(|leaf, verdict| !matches!(verdict, Verdict::Refused(_)) || !decided.contains(leaf));
    }

    /// Where a type of message has several holders, each of them is a leaf of its own.
    fn separate(&mut self) {
        for (_, holders) in std::mem::take(&mut self.holders) {
            if holders.len() > 1 {
                holders.into_iter().for_each(|(leaf, verdict)| self.note(leaf, verdict));
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// The strongest verdict on the fields of the message here.
    fn walk(&self, found: &mut Found) -> Option<Verdict> {
        let mut message = None;
        edit(&mut self.root.clone(), &self.steps, &mut |m| message = Some(m.clone()));
        let message = message.unwrap();
        message.descriptor().fields().filter_map(|field| self.field(&message, &field, found)).max()
    }

    fn field(&self, message: &DynamicMessage, field: &FieldDescriptor, found: &mut Found) -> Option<Verdict> {
        let owner = field.parent_message().full_name().to_owned();
        let elsewhere = ELSEWHERE.contains(&(&*owner, field.name()));
        let mut verdicts = BTreeMap::new();
        let mut inner = None;
        for sample in samples(message, field) {
            let changed = self.edited(|m| set_all(m, &sample));
            let (verdict, is_deeper) = self.verdict(&changed, field);
            let is_over = match verdict {
                Verdict::Refused(_) => true,
                Verdict::Listed => !is_deeper,
                Verdict::Ignored => elsewhere || is_ignored(&owner, field.name()),
                Verdict::Applied => elsewhere,
            };
            if !is_over {
                inner = inner.max(self.enter(&owner, field, &sample, &changed, found));
            }
            let name = packed(&sample, field)
                .map_or_else(|| field.name().to_owned(), |name| format!("{}={name}", field.name()));
            let known = verdicts.entry(name).or_insert_with(|| verdict.clone());
            *known = verdict.max(known.clone());
        }
        self.extensions(message, field, found);
        if let FieldKind::Enum(values) = field.kind() {
            let values = values.values().map(|value| (value.name().to_owned(), value.number()));
            return values
                .filter_map(|(name, number)| self.value(message, field, &name, number, found))
                .max();
        }
        let is_choice = field.containing_oneof().is_some_and(|o| !o.is_synthetic());
        let mut strongest = inner.clone();
        for (name, verdict) in verdicts {
            let is_container = match (&verdict, &inner) {
                (Verdict::Applied, Some(Verdict::Applied)) => !is_choice && !name.contains('='),
                (Verdict::Ignored | Verdict::Listed, Some(Verdict::Listed | Verdict::Applied)) => true,
                _ => false,
            };
            if is_container {
                if let FieldKind::Message(held) = field.kind() {
                    let leaf = (self.scope, owner.clone(), name);
                    found.decided.insert(leaf.clone());
                    let holders = found.holders.entry((self.scope, held.full_name().to_owned())).or_default();
                    let known = holders.entry(leaf).or_insert_with(|| verdict.clone());
                    *known = verdict.max(known.clone()).max(inner.clone().unwrap_or(Verdict::Ignored));
                }
            } else {
                strongest = strongest.max(Some(verdict.clone()));
                found.note((self.scope, owner.clone(), name), verdict);
            }
        }
        strongest
    }

    /// Which extensions a field knows, of all that there are: those that are not refused for their type.
    fn extensions(&self, message: &DynamicMessage, field: &FieldDescriptor, found: &mut Found) {
        let owner = field.parent_message().full_name().to_owned();
        let sample = samples(message, field).remove(0);
        if packed(&sample, field).is_none()
            || found.extensions.contains_key(&(self.scope, owner.clone(), field.name().to_owned()))
        {
            return;
        }
        let mut known = Vec::new();
        for candidate in extensions() {
            let any =
                prost_types::Any { type_url: format!("type.googleapis.com/{candidate}"), value: Vec::new() };
            let changed = self.edited(|m| {
                set_all(m, &sample);
                let value = match m.get_field_mut(field) {
                    Value::List(list) => &mut list[0],
                    Value::Map(map) => map.values_mut().next().unwrap(),
                    other => other,
                };
                let packed = value.as_message_mut().unwrap();
                *packed = DynamicMessage::new(packed.descriptor());
                packed.transcode_from(&any).unwrap();
            });
            let is_known = match self.verdict(&changed, field).0 {
                Verdict::Refused(why) => !OF_TYPE.iter().any(|part| why.contains(part)),
                Verdict::Listed => false,
                Verdict::Ignored | Verdict::Applied => true,
            };
            if is_known {
                known.push(candidate);
            }
        }
        found.extensions.insert((self.scope, owner, field.name().to_owned()), known);
    }

    /// One value of an enumeration; the default that changes nothing is none.
    fn value(
        &self,
        message: &DynamicMessage,
        field: &FieldDescriptor,
        name: &str,
        number: i32,
        found: &mut Found,
    ) -> Option<Verdict> {
        let value = Value::EnumNumber(number);
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        let sample = samples(message, field).remove(0);
        let changed = self.edited(|m| {
            set_all(m, &sample);
            m.set_field(field, value.clone());
        });
        let (verdict, _) = self.verdict(&changed, field);
        let owner = field.parent_message().full_name().to_owned();
        let leaf = (self.scope, owner, format!("{}={name}", field.name()));
        if number == 0 && verdict == Verdict::Ignored {
            found.decided.insert(leaf);
            return None;
        }
        found.note(leaf, verdict.clone());
        Some(verdict)
    }

    /// Walks the messages in a field.
    fn enter(
        &self,
        owner: &str,
        field: &FieldDescriptor,
        sample: &DynamicMessage,
        changed: &DynamicMessage,
        found: &mut Found,
    ) -> Option<Verdict> {
        let value = sample.get_field(field);
        let messages: Vec<&DynamicMessage> = match &*value {
            Value::Message(message) => vec![message],
            Value::List(list) => list.iter().filter_map(Value::as_message).collect(),
            Value::Map(map) => map.values().filter_map(Value::as_message).collect(),
            _ => Vec::new(),
        };
        let mut strongest = None;
        for (i, message) in messages.into_iter().enumerate() {
            let mut name = message.descriptor().full_name().to_owned();
            if is_leaf(&name) {
                continue;
            }
            if name == ANY {
                let any: prost_types::Any = message.transcode_to().unwrap();
                any.type_url.rsplit('/').next().unwrap().clone_into(&mut name);
            }
            if name.is_empty() || self.within.contains(&name) {
                continue;
            }
            let mut place = Self { root: changed.clone(), ..self.clone() };
            place.steps.push(format!("{}#{i}", field.name()));
            place.scope = scope(self.scope, owner, field.name(), &name);
            place.within.push(name);
            strongest = strongest.max(place.walk(found));
        }
        strongest
    }

    fn edited(&self, mut change: impl FnMut(&mut DynamicMessage)) -> DynamicMessage {
        let mut root = self.root.clone();
        edit(&mut root, &self.steps, &mut change);
        root
    }

    /// The verdict on a field that is set, and whether what is listed is within it.
    fn verdict(&self, changed: &DynamicMessage, field: &FieldDescriptor) -> (Verdict, bool) {
        let accepted = match judge(self.kind, changed) {
            Ok(accepted) => accepted,
            Err(invalid) => return (Verdict::Refused(invalid.to_string()), false),
        };
        let mut without = changed.clone();
        edit(&mut without, &self.steps, &mut |m| m.clear_field(field));
        let base = judge(self.kind, &without);
        // What is listed anyway; where the resource is refused without the field, what was before.
        let known = base.as_ref().map_or_else(|_| judge(self.kind, &self.root).ok(), |b| Some(b.clone()));
        let known: Vec<_> = known.iter().flat_map(|known| known.unapplied.iter()).collect();
        let listed: Vec<Vec<String>> = accepted
            .unapplied
            .iter()
            .filter(|path| !known.iter().any(|k| k == path))
            .map(|path| names(&path.to_string()))
            .collect();
        let mut own: Vec<&str> = self.steps.iter().map(|step| step.split('#').next().unwrap()).collect();
        own.push(field.name());
        let is_within =
            |path: &Vec<String>| path.len() > own.len() && path.iter().zip(&own).all(|(a, b)| a == b);
        let is_deeper = !listed.is_empty() && listed.iter().all(is_within);
        let verdict = match base {
            _ if !listed.is_empty() && !is_deeper => Verdict::Listed,
            Err(_) => Verdict::Applied,
            Ok(base) if base.resource != accepted.resource => Verdict::Applied,
            Ok(base) if base.deferred.refused_by_servers() != accepted.deferred.refused_by_servers() => {
                Verdict::Applied
            }
            Ok(_) if !listed.is_empty() => Verdict::Listed,
            Ok(_) => Verdict::Ignored,
        };
        (verdict, is_deeper)
    }
}

/// The scope of a message: what it means can depend on where it is.
fn scope(around: &'static str, owner: &str, field: &str, message: &str) -> &'static str {
    let found =
        SCOPES.iter().find(|(at, _)| *at == message || at.strip_prefix(owner) == Some(&format!(".{field}")));
    found.map_or(around, |(_, scope)| scope)
}

/// The names of a path, without indices and keys.
fn names(path: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = path;
    while let Some((head, tail)) = rest.split_once('[') {
        plain.push_str(head);
        let end = if tail.starts_with('"') { "\"]" } else { "]" };
        rest = tail.split_once(end).map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.split('.').map(ToOwned::to_owned).collect()
}

/// The type of the message in a field that is an `Any`, or a list or map of them.
fn packed(sample: &DynamicMessage, field: &FieldDescriptor) -> Option<String> {
    let value = sample.get_field(field);
    let message = match &*value {
        Value::Message(message) => Some(message),
        Value::List(list) => list.first().and_then(Value::as_message),
        Value::Map(map) => map.values().next().and_then(Value::as_message),
        _ => None,
    };
    let message = message.filter(|message| message.descriptor().full_name() == ANY)?;
    let any: prost_types::Any = message.transcode_to().unwrap();
    Some(any.type_url.rsplit('/').next().unwrap().to_owned())
}

/// Whether a field is on the list of those that have no meaning.
pub(super) fn is_ignored(message: &str, field: &str) -> bool {
    IGNORED.iter().any(|(m, fields)| *m == message && fields.contains(&field))
}

/// Messages that are one value.
pub(super) fn is_leaf(message: &str) -> bool {
    message != ANY && message.starts_with("google.protobuf.") || message == "envoy.config.core.v3.Metadata"
}

/// Messages with the field set, each with what else it needs: those of the list, else what is there, else a plain one.
fn samples(message: &DynamicMessage, field: &FieldDescriptor) -> Vec<DynamicMessage> {
    let descriptor = field.parent_message();
    let own = SAMPLES.iter().filter(|(m, f, _)| (*m, *f) == (descriptor.full_name(), field.name()));
    let own: Vec<_> = own.map(|(m, _, yaml)| overlay(m, yaml)).collect();
    if !own.is_empty() {
        return own;
    }
    let mut sample = DynamicMessage::new(descriptor.clone());
    let is_message = matches!(field.kind(), FieldKind::Message(_));
    let value = if is_message && message.has_field(field) {
        message.get_field(field).into_owned()
    } else {
        plain(field)
    };
    sample.set_field(field, value);
    vec![sample]
}

fn set_all(message: &mut DynamicMessage, sample: &DynamicMessage) {
    for (field, value) in sample.fields() {
        message.set_field(&field, value.clone());
    }
}

/// Runs `change` on the message at the end of the path, through lists and maps (`#index`) and `Any`.
fn edit(message: &mut DynamicMessage, steps: &[String], change: &mut dyn FnMut(&mut DynamicMessage)) {
    if message.descriptor().full_name() == ANY {
        let any: prost_types::Any = message.transcode_to().unwrap();
        let name = any.type_url.rsplit('/').next().unwrap();
        let mut inner =
            DynamicMessage::decode(pool().get_message_by_name(name).unwrap(), any.value.as_slice()).unwrap();
        edit(&mut inner, steps, change);
        let packed = prost_types::Any { type_url: any.type_url, value: inner.encode_to_vec() };
        // Merged into what is there, an empty value would change nothing.
        *message = DynamicMessage::new(message.descriptor());
        return message.transcode_from(&packed).unwrap();
    }
    let Some((step, rest)) = steps.split_first() else { return change(message) };
    let (field, index) = step.split_once('#').unwrap();
    let index: usize = index.parse().unwrap();
    let inner = match message.get_field_by_name_mut(field).unwrap_or_else(|| panic!("no field {field}")) {
        Value::List(list) => &mut list[index],
        Value::Map(map) => map.values_mut().nth(index).unwrap(),
        other => other,
    };
    edit(inner.as_message_mut().unwrap(), rest, change);
}

/// A value that differs from the default.
fn plain(field: &FieldDescriptor) -> Value {
    match field.kind() {
        FieldKind::Message(entry) if field.is_map() => {
            let value = plain(&entry.map_entry_value_field());
            let key = match entry.map_entry_key_field().kind() {
                FieldKind::String => MapKey::String("x".to_owned()),
                FieldKind::Int64 => MapKey::I64(7),
                other => panic!("no key of kind {other:?}"),
            };
            Value::Map([(key, value)].into())
        }
        kind if field.is_list() => Value::List(vec![one(&kind)]),
        kind => one(&kind),
    }
}

fn one(kind: &FieldKind) -> Value {
    match kind {
        FieldKind::Double => Value::F64(7.0),
        FieldKind::Float => Value::F32(7.0),
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => Value::I32(7),
        FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => Value::I64(7),
        FieldKind::Uint32 | FieldKind::Fixed32 => Value::U32(7),
        FieldKind::Uint64 | FieldKind::Fixed64 => Value::U64(7),
        FieldKind::Bool => Value::Bool(true),
        FieldKind::String => Value::String("x".to_owned()),
        FieldKind::Bytes => Value::Bytes(vec![7].into()),
        FieldKind::Enum(values) => Value::EnumNumber(values.values().last().unwrap().number()),
        FieldKind::Message(descriptor) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            match descriptor.full_name() {
                "google.protobuf.BoolValue" => message.set_field_by_name("value", Value::Bool(true)),
                "google.protobuf.UInt32Value" => message.set_field_by_name("value", Value::U32(7)),
                "google.protobuf.UInt64Value" => message.set_field_by_name("value", Value::U64(7)),
                "google.protobuf.Duration" => message.set_field_by_name("seconds", Value::I64(7)),
                _ => {}
            }
            Value::Message(message)
        }
    }
}
