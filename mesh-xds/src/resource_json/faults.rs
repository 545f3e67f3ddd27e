//! What is wrong with a resource that does not read, by the path of each field: the readers stop at the first error, and
//! know where it stands in the text but not in the resource.
//!
//! A field is at fault when its message, with this field alone, does not read; what is within it is looked at in the same
//! way. Where no field is at fault alone, they are together: two of a `oneof`.

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::value::MapDeserializer;
use serde_json::{Map, Value};

use super::tree::{push_index, push_key};
use super::{Problem, shape, without_position};

/// One thing that is wrong, and the path to it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: String,
    pub(super) problem: Problem,
}

/// Collects what is wrong.
struct Faults<'a> {
    pool: &'a DescriptorPool,
    path: String,
    found: Vec<Fault>,
}

/// What is wrong with a value that does not read as a message. Not empty.
pub(super) fn faults(
    value: &Value,
    of: &MessageDescriptor,
    pool: &DescriptorPool,
    path: String,
) -> Vec<Fault> {
    let mut faults = Faults { pool, path, found: Vec::new() };
    faults.within(value, of);
    faults.found
}

/// A value as a message.
pub(super) fn message_of_value(
    value: &Value,
    of: &MessageDescriptor,
) -> Result<DynamicMessage, serde_json::Error> {
    DynamicMessage::deserialize_with_options(of.clone(), value, &shape::strict())
}

/// Whether, and why not, a message reads that has this field alone.
fn alone(of: &MessageDescriptor, key: &str, value: &Value) -> Result<(), Problem> {
    let fields = MapDeserializer::<_, serde_json::Error>::new(std::iter::once((key, value)));
    let read = DynamicMessage::deserialize_with_options(of.clone(), fields, &shape::strict());
    read.map(|_| ()).map_err(|e| without_position(&e.to_string()))
}

// === impl Faults ===

impl Faults<'_> {
    /// Runs with a longer path.
    fn at(&mut self, push: impl FnOnce(&mut String), run: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        push(&mut self.path);
        run(self);
        self.path.truncate(length);
    }

    fn found(&mut self, problem: Problem) {
        self.found.push(Fault { path: self.path.clone(), problem });
    }

    /// A value that does not read as a message.
    fn within(&mut self, value: &Value, of: &MessageDescriptor) {
        let before = self.found.len();
        match (of.full_name(), value) {
            ("google.protobuf.Duration", _) => self.found(Problem::Duration),
            (shape::ANY, Value::Object(fields)) => self.within_any(fields),
            (_, Value::Object(fields)) if !of.full_name().starts_with("google.protobuf.") => {
                self.fields(fields, of);
            }
            _ => {}
        }
        if self.found.len() == before
            && let Err(whole) = message_of_value(value, of)
        {
            self.found(without_position(&whole.to_string()));
        }
    }

    fn within_any(&mut self, fields: &Map<String, Value>) {
        let Some(Value::String(url)) = fields.get("@type") else {
            return self.found(Problem::NoType);
        };
        let Some((_, name)) = url.rsplit_once('/') else { return };
        match self.pool.get_message_by_name(name) {
            // In `value`, as it stands for itself in JSON.
            Some(inner) if inner.full_name().starts_with("google.protobuf.") => {}
            Some(inner) => self.fields(fields, &inner),
            None => self.found(Problem::UnknownType(url.clone())),
        }
    }

    fn fields(&mut self, fields: &Map<String, Value>, of: &MessageDescriptor) {
        for (key, value) in fields.iter().filter(|(key, _)| *key != "@type") {
            let field = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key));
            self.at(
                |path| push_key(path, key),
                |faults| match (field, alone(of, key, value)) {
                    (None, _) => faults.found(Problem::NoSuchField(of.full_name().to_owned())),
                    (Some(_), Ok(())) => {}
                    (Some(field), Err(problem)) => faults.of_field(value, &field, problem),
                },
            );
        }
    }

    /// The value of a field that does not read.
    fn of_field(&mut self, value: &Value, field: &FieldDescriptor, problem: Problem) {
        let before = self.found.len();
        let of = field.parent_message();
        match value {
            Value::Array(items) if field.is_list() => {
                for (i, item) in items.iter().enumerate() {
                    let one = Value::Array(vec![item.clone()]);
                    if let Err(problem) = alone(of, field.name(), &one) {
                        let kind = field.kind();
                        self.at(|path| push_index(path, i), |faults| faults.one(item, &kind, problem));
                    }
                }
            }
            Value::Object(entries) if field.is_map() => {
                let Kind::Message(entry) = field.kind() else { return self.found(problem) };
                let kind = entry.map_entry_value_field().kind();
                for (key, item) in entries {
                    let one = Value::Object(Map::from_iter([(key.clone(), item.clone())]));
                    if let Err(problem) = alone(of, field.name(), &one) {
                        let quoted = |path: &mut String| path.push_str(&format!("[\"{key}\"]"));
                        self.at(quoted, |faults| faults.one(item, &kind, problem));
                    }
                }
            }
            value if !field.is_list() && !field.is_map() => {
                return self.one(value, &field.kind(), problem);
            }
            _ => {}
        }
        if self.found.len() == before {
            self.found(problem);
        }
    }

    fn one(&mut self, value: &Value, kind: &Kind, problem: Problem) {
        match kind {
            Kind::Message(inner) => self.within(value, inner),
            _ => self.found(problem),
        }
    }
}
