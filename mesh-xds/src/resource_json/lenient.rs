//! What Envoy's loader takes beyond the JSON of protobuf: names of enumerations in any case, and with `-` for `_`; numbers
//! of enumerations and booleans as texts; one element where a list is expected. And, for an application, extensions that
//! nobody here has heard of: they stay what they claim to be, without their fields, so that validation lists or refuses
//! them where they stand, as it does with what comes over xDS.
//!
//! Of a text that reads as it is nothing here is used but what fields are given in both spellings. Of one that does not, the
//! tree is corrected by the descriptors and read resource by resource: what is wrong with one is told beside what is wrong
//! with another.

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::{DescriptorProto, FileDescriptorProto};
use serde_json::{Map, Number, Value};

use super::faults::{Fault, faults, message_of_value};
use super::locate::scalar;
use super::shape::{ANY, STATIC_RESOURCES, STATIC_SECTIONS, Shape};
use super::tree::{push_index, push_key};
use super::{EncodedResource, Format, InvalidText, LOCATED, Problem, Reader, message, pool};

/// The resources of a tree.
#[derive(Debug)]
pub(super) struct Items<'a> {
    items: Vec<Item>,
    corrector: Corrector<'a>,
}

/// A resource of a tree.
#[derive(Debug)]
struct Item {
    place: String,
    of: MessageDescriptor,
    value: Value,
    /// What is wrong with it in whatever form it is read.
    faults: Vec<Fault>,
}

/// Corrects a tree.
#[derive(Debug)]
struct Corrector<'a> {
    reader: Reader,
    /// A text whose numbers and booleans are texts as well, where a field takes text.
    yaml: Option<&'a str>,
    /// How many more are looked for in it, each anew.
    looks: usize,
    /// Whether anything is not as it was.
    changed: bool,
    /// Full names of extensions that the descriptors do not have.
    unknown: BTreeSet<String>,
    path: String,
    found: Vec<Fault>,
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

// === impl Items ===

impl<'a> Items<'a> {
    /// The resources of a tree, or of that part of it that is to be read, corrected.
    pub(super) fn of(
        tree: Value,
        (text, format): (&'a str, Format),
        shape: Shape,
        reader: Reader,
        is_part: bool,
    ) -> Result<Self, InvalidText> {
        let corrector = Corrector {
            reader,
            yaml: (format == Format::Yaml).then_some(text),
            looks: LOCATED,
            changed: is_part,
            unknown: BTreeSet::new(),
            path: String::new(),
            found: Vec::new(),
        };
        let mut items = Self { items: Vec::new(), corrector };
        let any = message(ANY)?;
        match (shape, tree) {
            (Shape::One, one) => items.add(String::new(), &any, one),
            (Shape::List, list) => items.add_each("", &any, list),
            (Shape::Sections, Value::Object(sections)) => {
                for (key, section) in sections {
                    if key == "resources" {
                        items.add_each("resources", &any, section);
                    } else if STATIC_SECTIONS.contains(&key.as_str()) {
                        items.add_static(&key, section)?;
                    }
                }
            }
            (Shape::Sections, _) => {}
        }
        Ok(items)
    }

    fn add_static(&mut self, place: &str, resources: Value) -> Result<(), InvalidText> {
        let of = message(STATIC_RESOURCES)?;
        let Value::Object(lists) = resources else {
            self.corrector.changed = true;
            if !resources.is_null() {
                self.add(place.to_owned(), &of, resources);
            }
            return Ok(());
        };
        for (key, list) in lists {
            let field = of.get_field_by_name(&key).or_else(|| of.get_field_by_json_name(&key));
            let mut place = place.to_owned();
            push_key(&mut place, &key);
            match field.map(|field| (field.name() == "secrets", field.kind())) {
                Some((false, Kind::Message(inner))) => self.add_each(&place, &inner, list),
                Some((true, _)) if matches!(&list, Value::Null) || list == Value::Array(Vec::new()) => {}
                Some(_) => self.add_fault(place, &of, list, Problem::UnsupportedList),
                None => {
                    let problem = Problem::NoSuchField(of.full_name().to_owned());
                    self.add_fault(place, &of, list, problem);
                }
            }
        }
        Ok(())
    }

    fn add_each(&mut self, place: &str, of: &MessageDescriptor, list: Value) {
        let list = match list {
            Value::Array(list) => list,
            Value::Null => {
                self.corrector.changed = true;
                return;
            }
            one => {
                self.corrector.changed = true;
                vec![one]
            }
        };
        for (i, item) in list.into_iter().enumerate() {
            self.add(format!("{place}[{i}]"), of, item);
        }
    }

    fn add(&mut self, place: String, of: &MessageDescriptor, mut value: Value) {
        self.corrector.path.clone_from(&place);
        self.corrector.within(&mut value, of);
        let faults = std::mem::take(&mut self.corrector.found);
        self.items.push(Item { place, of: of.clone(), value, faults });
    }

    fn add_fault(&mut self, place: String, of: &MessageDescriptor, value: Value, problem: Problem) {
        let faults = vec![Fault { path: place.clone(), problem }];
        self.items.push(Item { place, of: of.clone(), value, faults });
    }

    /// Whether something is wrong with it however it is read.
    pub(super) fn have_faults(&self) -> bool {
        self.items.iter().any(|item| !item.faults.is_empty())
    }

    /// The resources of a text that `strict` refuses, and what is wrong with those that do not read.
    pub(super) fn resources(
        self,
        strict: Option<InvalidText>,
    ) -> Result<(Vec<EncodedResource>, Vec<Fault>), InvalidText> {
        let Self { items, corrector } = self;
        let names_are_sound = with_unknown(&corrector.unknown);
        let pool = names_are_sound.as_ref().unwrap_or_else(|| pool());
        let (mut resources, mut found) = (Vec::new(), Vec::new());
        for Item { place, of, value, faults: mut wrong } in items {
            let of = pool.get_message_by_name(of.full_name()).unwrap_or(of);
            match message_of_value(&value, &of) {
                _ if !wrong.is_empty() => found.append(&mut wrong),
                Ok(any) if of.full_name() == ANY => resources.push(EncodedResource::of_any(place, &any)?),
                Ok(message) => resources.push(EncodedResource::of_message(place, &message)),
                Err(_) => found.append(&mut faults(&value, &of, pool, place)),
            }
        }
        match strict {
            Some(strict) if found.is_empty() && !corrector.changed => Err(strict),
            _ => Ok((resources, found)),
        }
    }
}

// === impl Corrector ===

impl Corrector<'_> {
    /// Corrects what is within a message.
    fn within(&mut self, value: &mut Value, of: &MessageDescriptor) {
        match of.full_name() {
            ANY => self.within_any(value),
            // What stands for itself in JSON.
            "google.protobuf.BoolValue" => self.scalar(value, &Kind::Bool),
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {}
            _ => self.fields(value, of),
        }
    }

    fn fields(&mut self, value: &mut Value, of: &MessageDescriptor) {
        let mut seen = BTreeSet::new();
        for (key, value) in value.as_object_mut().into_iter().flatten() {
            let field = of.get_field_by_name(key).or_else(|| of.get_field_by_json_name(key));
            let Some(field) = field else { continue };
            let length = self.path.len();
            push_key(&mut self.path, key);
            if seen.insert(field.number()) {
                self.of_field(value, &field);
            } else {
                let problem = Problem::Twice(field.name().to_owned());
                self.found.push(Fault { path: self.path.clone(), problem });
            }
            self.path.truncate(length);
        }
    }

    fn within_any(&mut self, value: &mut Value) {
        let Some(Value::String(url)) = value.get("@type") else { return };
        let name = url.rsplit('/').next().unwrap_or_default();
        match pool().get_message_by_name(name) {
            Some(inner) => self.within(value, &inner),
            None if self.reader == Reader::Application => {
                self.unknown.insert(name.to_owned());
                self.changed = true;
                *value = Value::Object(Map::from_iter([("@type".to_owned(), Value::String(url.clone()))]));
            }
            // What is served is passed on whole or not at all.
            None => {}
        }
    }

    fn of_field(&mut self, value: &mut Value, field: &FieldDescriptor) {
        if field.is_list() && !value.is_array() && !value.is_null() {
            self.changed = true;
            *value = Value::Array(vec![value.take()]);
        }
        let length = self.path.len();
        match (value, field.kind()) {
            (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
                let kind = entry.map_entry_value_field().kind();
                for (key, value) in entries {
                    self.path.push_str(&format!("[\"{key}\"]"));
                    self.one(value, &kind);
                    self.path.truncate(length);
                }
            }
            (Value::Array(items), kind) if field.is_list() => {
                for (i, item) in items.iter_mut().enumerate() {
                    push_index(&mut self.path, i);
                    self.one(item, &kind);
                    self.path.truncate(length);
                }
            }
            (value, kind) => self.one(value, &kind),
        }
    }

    fn one(&mut self, value: &mut Value, kind: &Kind) {
        match kind {
            Kind::Message(inner) => self.within(value, inner),
            kind => self.scalar(value, kind),
        }
    }

    fn scalar(&mut self, value: &mut Value, kind: &Kind) {
        let read = match (kind, &*value) {
            (Kind::Enum(names), Value::String(text)) => enumerated(text, names),
            (Kind::Bool, Value::String(text)) => text.parse::<bool>().ok().map(Value::Bool),
            (Kind::String, Value::Number(_) | Value::Bool(_)) if self.looks > 0 => {
                self.looks -= 1;
                self.yaml.and_then(|text| scalar(text, &self.path)).map(Value::String)
            }
            _ => None,
        };
        if let Some(read) = read {
            self.changed |= *value != read;
            *value = read;
        }
    }
}

fn enumerated(text: &str, names: &EnumDescriptor) -> Option<Value> {
    if let Ok(number) = text.parse::<i32>() {
        return Some(Value::Number(Number::from(number)));
    }
    let name = text.replace('-', "_").to_ascii_uppercase();
    names.get_value_by_name(&name).map(|value| Value::String(value.name().to_owned()))
}
