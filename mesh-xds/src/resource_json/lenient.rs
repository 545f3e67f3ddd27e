//! What Envoy's loader takes beyond the JSON of protobuf: names of enumerations in any case, and with `-` for `_`; numbers
//! of enumerations and booleans as texts. And, for an application, extensions that nobody here has heard of: they stay
//! what they claim to be, without their fields, so that validation lists or refuses them where they stand, as it does
//! with what comes over xDS.
//!
//! A text that reads as it is never comes here. Of one that does not, the tree is corrected by the descriptors and read
//! again. The tree has no positions: what is wrong beside something that was corrected is told without one.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::{DescriptorProto, FileDescriptorProto};
use serde::de::{Deserialize, DeserializeSeed, Deserializer};
use serde_json::{Map, Number, Value};

use super::shape::{ANY, Content, In, STATIC_RESOURCES, Shape};
use super::{Format, InvalidText, Reader, message, pool, read, without_position};

/// Reads any tree.
struct Tree;

/// Corrects a tree.
struct Corrector {
    reader: Reader,
    /// Full names of extensions that the descriptors do not have.
    unknown: BTreeSet<String>,
}

/// The content of a text that `strict` refuses.
pub(super) fn content(
    text: &str,
    format: Format,
    shape: Shape,
    reader: Reader,
    strict: InvalidText,
) -> Result<Content, InvalidText> {
    let Ok(tree) = read(text, format, Tree) else { return Err(strict) };
    let mut corrected = tree.clone();
    let mut corrector = Corrector { reader, unknown: BTreeSet::new() };
    corrector.correct(&mut corrected, shape)?;
    let Some(pool) = with_unknown(&corrector.unknown) else { return Err(strict) };
    if corrected == tree && corrector.unknown.is_empty() {
        return Err(strict);
    }
    let without =
        |e: serde_json::Error| InvalidText { position: None, problem: without_position(&e.to_string()) };
    In { shape, pool: &pool }.deserialize(corrected).map_err(without)
}

/// The descriptors, and one without fields for each name. None where a name is no name, or means something else.
fn with_unknown(names: &BTreeSet<String>) -> Option<DescriptorPool> {
    let mut pool = pool().clone();
    let file = |name: &String| {
        let (package, message) = name.rsplit_once('.')?;
        Some(FileDescriptorProto {
            name: Some(format!("unknown/{name}")),
            package: Some(package.to_owned()),
            message_type: vec![DescriptorProto {
                name: Some(message.to_owned()),
                ..DescriptorProto::default()
            }],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        })
    };
    if !names.is_empty() {
        pool.add_file_descriptor_protos(names.iter().map(file).collect::<Option<Vec<_>>>()?).ok()?;
    }
    Some(pool)
}

// === impl Corrector ===

impl Corrector {
    fn correct(&mut self, tree: &mut Value, shape: Shape) -> Result<(), InvalidText> {
        let any = message(ANY)?;
        match (shape, tree) {
            (Shape::One, one) => self.within(one, &any),
            (Shape::List, list) => self.each(list, &any),
            (Shape::Sections, Value::Object(sections)) => {
                if let Some(list) = sections.get_mut("resources") {
                    self.each(list, &any);
                }
                if let Some(resources) = sections.get_mut("static_resources") {
                    self.within(resources, &message(STATIC_RESOURCES)?);
                }
            }
            (Shape::Sections, _) => {}
        }
        Ok(())
    }

    fn each(&mut self, list: &mut Value, of: &MessageDescriptor) {
        for item in list.as_array_mut().into_iter().flatten() {
            self.within(item, of);
        }
    }

    /// Corrects what is within a message.
    fn within(&mut self, value: &mut Value, of: &MessageDescriptor) {
        match of.full_name() {
            ANY => self.within_any(value),
            // What stands for itself in JSON.
            "google.protobuf.BoolValue" => scalar(value, &Kind::Bool),
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {}
            _ => {
                for (key, value) in value.as_object_mut().into_iter().flatten() {
                    let field = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key));
                    if let Some(field) = field {
                        self.of_field(value, &field);
                    }
                }
            }
        }
    }

    fn within_any(&mut self, value: &mut Value) {
        let Some(Value::String(url)) = value.get("@type") else { return };
        let name = url.rsplit('/').next().unwrap_or_default();
        match pool().get_message_by_name(name) {
            Some(inner) => self.within(value, &inner),
            None if self.reader == Reader::Application => {
                self.unknown.insert(name.to_owned());
                *value = Value::Object(Map::from_iter([("@type".to_owned(), Value::String(url.clone()))]));
            }
            // What is served is passed on whole or not at all.
            None => {}
        }
    }

    fn of_field(&mut self, value: &mut Value, field: &FieldDescriptor) {
        let mut one = |value: &mut Value, kind: &Kind| match kind {
            Kind::Message(inner) => self.within(value, inner),
            kind => scalar(value, kind),
        };
        match (value, field.kind()) {
            (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                entries.values_mut().for_each(|value| one(value, &kind));
            }
            (Value::Array(items), kind) if field.is_list() => {
                items.iter_mut().for_each(|item| one(item, &kind));
            }
            (value, kind) => one(value, &kind),
        }
    }
}

fn scalar(value: &mut Value, kind: &Kind) {
    let Some(text) = value.as_str() else { return };
    let read = match kind {
        Kind::Enum(names) => enumerated(text, names),
        Kind::Bool => text.parse::<bool>().ok().map(Value::Bool),
        _ => None,
    };
    if let Some(read) = read {
        *value = read;
    }
}

fn enumerated(text: &str, names: &EnumDescriptor) -> Option<Value> {
    if let Ok(number) = text.parse::<i32>() {
        return Some(Value::Number(Number::from(number)));
    }
    let name = text.replace('-', "_").to_ascii_uppercase();
    names.get_value_by_name(&name).map(|value| Value::String(value.name().to_owned()))
}

// === impl Tree ===

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
}
