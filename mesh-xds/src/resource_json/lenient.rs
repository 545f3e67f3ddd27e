//! What Envoy's loader takes beyond the JSON of protobuf: names of enumerations in any case, and with `-` for `_`; numbers
//! of enumerations and booleans as texts.
//!
//! A text that reads as it is never comes here. Of one that does not, the tree is corrected by the descriptors and read
//! again. The tree has no positions: what is wrong beside something that was corrected is told without one.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{Deserialize, DeserializeSeed, Deserializer};
use serde_json::{Number, Value};

use super::shape::{ANY, Content, STATIC_RESOURCES, Shape};
use super::{Format, InvalidText, message, pool, read, without_position};

/// Reads any tree.
struct Tree;

/// The content of a text that `strict` refuses.
pub(super) fn content(
    text: &str,
    format: Format,
    shape: Shape,
    strict: InvalidText,
) -> Result<Content, InvalidText> {
    let Ok(tree) = read(text, format, Tree) else { return Err(strict) };
    let mut corrected = tree.clone();
    correct(&mut corrected, shape)?;
    if corrected == tree {
        return Err(strict);
    }
    let without =
        |e: serde_json::Error| InvalidText { position: None, problem: without_position(&e.to_string()) };
    shape.deserialize(corrected).map_err(without)
}

fn correct(tree: &mut Value, shape: Shape) -> Result<(), InvalidText> {
    let any = message(ANY)?;
    match (shape, tree) {
        (Shape::One, one) => within(one, &any),
        (Shape::List, list) => each(list, &any),
        (Shape::Sections, Value::Object(sections)) => {
            if let Some(list) = sections.get_mut("resources") {
                each(list, &any);
            }
            if let Some(resources) = sections.get_mut("static_resources") {
                within(resources, &message(STATIC_RESOURCES)?);
            }
        }
        (Shape::Sections, _) => {}
    }
    Ok(())
}

fn each(list: &mut Value, of: &MessageDescriptor) {
    for item in list.as_array_mut().into_iter().flatten() {
        within(item, of);
    }
}

/// Corrects what is within a message.
fn within(value: &mut Value, of: &MessageDescriptor) {
    match of.full_name() {
        ANY => {
            let inner = value.get("@type").and_then(Value::as_str).and_then(|url| url.rsplit('/').next());
            if let Some(inner) = inner.and_then(|name| pool().get_message_by_name(name)) {
                within(value, &inner);
            }
        }
        // What stands for itself in JSON.
        "google.protobuf.BoolValue" => scalar(value, &Kind::Bool),
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {}
        _ => {
            for (key, value) in value.as_object_mut().into_iter().flatten() {
                let field = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key));
                if let Some(field) = field {
                    of_field(value, &field);
                }
            }
        }
    }
}

fn of_field(value: &mut Value, field: &FieldDescriptor) {
    let one = |value: &mut Value, kind: &Kind| match kind {
        Kind::Message(inner) => within(value, inner),
        kind => scalar(value, kind),
    };
    match (value, field.kind()) {
        (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
            let kind = entry.map_entry_value_field().kind();
            entries.values_mut().for_each(|value| one(value, &kind));
        }
        (Value::Array(items), kind) if field.is_list() => items.iter_mut().for_each(|item| one(item, &kind)),
        (value, kind) => one(value, &kind),
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
