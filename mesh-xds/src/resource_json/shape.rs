//! What a text holds, told by its outermost keys; then how that is read.

use std::fmt;

use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Tree;

use super::tree::push_key;
use super::{EncodedResource, InvalidText, Problem, Reader, locate, message, message_of};

pub(super) const ANY: &str = "google.protobuf.Any";
pub(super) const STATIC_RESOURCES: &str = "envoy.config.bootstrap.v3.Bootstrap.StaticResources";

/// The section that holds Envoy's own resources, in both spellings of protobuf's JSON.
pub(super) const STATIC_SECTIONS: [&str; 2] = ["static_resources", "staticResources"];

/// Envoy's whole configuration file.
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// The section of a file whose resources stand elsewhere.
const DYNAMIC: &str = "dynamic_resources";

/// Sections of Envoy's configuration file, and of a file subscription, that say nothing about resources.
const SKIPPED: [&str; 4] = ["admin", "node", "version_info", "type_url"];

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One resource.
    One,
    /// A list of resources.
    List,
    /// Sections.
    Sections,
}

/// What a text holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    one: Option<DynamicMessage>,
    list: Vec<DynamicMessage>,
    list_name: &'static str,
    sections: Option<DynamicMessage>,
}

/// Reads a text of a shape, by the descriptors of a pool.
#[derive(Clone, Copy)]
pub(super) struct In<'a> {
    pub(super) shape: Shape,
    pub(super) pool: &'a DescriptorPool,
}

/// Reads sections.
struct Sections<'a>(&'a DescriptorPool);

/// Reads a list of `Any`.
struct Anys<'a>(&'a DescriptorPool);

/// Reads one message by its descriptor.
struct OneOf<'a>(&'static str, &'a DescriptorPool);

// === impl Shape ===

impl Shape {
    /// The shape of a text, and the sections of it that have no effect on its reader.
    pub(super) fn of(tree: &Tree, text: &str, reader: Reader) -> Result<(Self, Vec<String>), InvalidText> {
        let mut without_effect = Vec::new();
        let sections = match tree {
            Tree::Array(_) => return Ok((Self::List, without_effect)),
            Tree::Object(fields) if fields.contains_key("@type") => return Ok((Self::One, without_effect)),
            Tree::Object(sections) => sections,
            _ => return Err(Problem::NoResources.into()),
        };
        let refused = |key: &str, problem| {
            let mut path = String::new();
            push_key(&mut path, key);
            Err(InvalidText { position: locate(text, &path), path: Default::default(), problem })
        };
        let known = |key: &str| key == "resources" || STATIC_SECTIONS.contains(&key);
        let bootstrap = message(BOOTSTRAP)?;
        for key in sections.keys().filter(|key| !known(key) && !SKIPPED.contains(&key.as_str())) {
            let field = bootstrap.get_field_by_name(key).or_else(|| bootstrap.get_field_by_json_name(key));
            match (reader, field) {
                (_, Some(field)) if field.name() == DYNAMIC => {
                    return refused(key, Problem::Elsewhere(DYNAMIC));
                }
                (Reader::Application, Some(field)) => without_effect.push(field.name().to_owned()),
                _ => {
                    return refused(key, Problem::UnknownSection(key.clone()));
                }
            }
        }
        if let [section, other] = STATIC_SECTIONS
            && sections.contains_key(section)
            && sections.contains_key(other)
        {
            return refused(other, Problem::Twice(section.to_owned()));
        }
        let has_resources = sections.keys().any(|key| known(key));
        if has_resources { Ok((Self::Sections, without_effect)) } else { Err(Problem::NoResources.into()) }
    }
}

/// How messages are read: what they do not have is an error.
pub(super) fn strict() -> DeserializeOptions {
    DeserializeOptions::new().deny_unknown_fields(true)
}

// === impl In ===

impl<'de> DeserializeSeed<'de> for In<'_> {
    type Value = Content;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        let Self { shape, pool } = self;
        match shape {
            Shape::One => {
                let one = OneOf(ANY, pool).deserialize(deserializer)?;
                Ok(Content { one: Some(one), ..Content::default() })
            }
            Shape::List => {
                let list = Anys(pool).deserialize(deserializer)?;
                Ok(Content { list, ..Content::default() })
            }
            Shape::Sections => deserializer.deserialize_map(Sections(pool)),
        }
    }
}

// === impl Content ===

impl Content {
    pub(super) fn resources(self) -> Result<Vec<EncodedResource>, InvalidText> {
        let Self { one, list, list_name, sections } = self;
        let mut found = Vec::new();
        if let Some(any) = one {
            found.push(EncodedResource::of_any(String::new(), &any)?);
        }
        for (i, any) in list.iter().enumerate() {
            found.push(EncodedResource::of_any(format!("{list_name}[{i}]"), any)?);
        }
        if let Some(sections) = sections {
            if sections.has_field_by_name("secrets") {
                return Err(Problem::UnsupportedList.into());
            }
            for list in ["listeners", "clusters"] {
                let field = sections.get_field_by_name(list);
                let items = field.as_deref().and_then(Value::as_list).unwrap_or_default();
                for (i, item) in items.iter().filter_map(Value::as_message).enumerate() {
                    let place = format!("static_resources.{list}[{i}]");
                    found.push(EncodedResource::of_message(place, item));
                }
            }
        }
        Ok(found)
    }
}

// === impl Sections ===

impl<'de> Visitor<'de> for Sections<'_> {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with resources or static_resources")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut content = Content { list_name: "resources", ..Content::default() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "resources" => content.list = map.next_value_seed(Anys(self.0))?,
                key if STATIC_SECTIONS.contains(&key) => {
                    content.sections = Some(map.next_value_seed(OneOf(STATIC_RESOURCES, self.0))?);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(content)
    }
}

// === impl Anys ===

impl<'de> DeserializeSeed<'de> for Anys<'_> {
    type Value = Vec<DynamicMessage>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Anys<'_> {
    type Value = Vec<DynamicMessage>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of resources with @type")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(any) = seq.next_element_seed(OneOf(ANY, self.0))? {
            list.push(any);
        }
        Ok(list)
    }
}

// === impl OneOf ===

impl<'de> DeserializeSeed<'de> for OneOf<'_> {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let descriptor = message_of(self.1, self.0).map_err(D::Error::custom)?;
        DynamicMessage::deserialize_with_options(descriptor, deserializer, &strict())
    }
}
