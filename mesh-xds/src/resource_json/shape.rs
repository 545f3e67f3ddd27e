//! What a text holds, told by its outermost keys; then how that is read.

use std::fmt;

use prost_reflect::{DeserializeOptions, DynamicMessage, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{EncodedResource, Format, InvalidText, Problem, message, read};

pub(super) const ANY: &str = "google.protobuf.Any";
pub(super) const STATIC_RESOURCES: &str = "envoy.config.bootstrap.v3.Bootstrap.StaticResources";

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

/// Reads the outermost keys alone.
struct Keys;

/// Reads a list of `Any`.
struct Anys;

/// Reads one message by its descriptor.
struct OneOf(&'static str);

// === impl Shape ===

impl Shape {
    pub(super) fn of(text: &str, format: Format) -> Result<Self, InvalidText> {
        let Some(keys) = read(text, format, Keys)? else { return Ok(Self::List) };
        if keys.iter().any(|key| key == "@type") {
            return Ok(Self::One);
        }
        let known = |key: &String| key == "resources" || key == "static_resources";
        if let Some(foreign) = keys.iter().find(|key| !known(key) && !SKIPPED.contains(&key.as_str())) {
            return Err(Problem::UnknownSection(foreign.clone()).into());
        }
        if keys.iter().any(known) { Ok(Self::Sections) } else { Err(Problem::NoResources.into()) }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Content;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        match self {
            Self::One => {
                let one = OneOf(ANY).deserialize(deserializer)?;
                Ok(Content { one: Some(one), ..Content::default() })
            }
            Self::List => {
                let list = Anys.deserialize(deserializer)?;
                Ok(Content { list, ..Content::default() })
            }
            Self::Sections => deserializer.deserialize_map(Sections),
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
                return Err(Problem::UnsupportedList("secrets").into());
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

// === impl Keys ===

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Option<Vec<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The keys of a mapping; none for a list.
impl<'de> Visitor<'de> for Keys {
    type Value = Option<Vec<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource, a list of resources, or a mapping with resources or static_resources")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            keys.push(key);
        }
        Ok(Some(keys))
    }
}

// === impl Sections ===

struct Sections;

impl<'de> Visitor<'de> for Sections {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with resources or static_resources")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut content = Content { list_name: "resources", ..Content::default() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "resources" => content.list = map.next_value_seed(Anys)?,
                "static_resources" => content.sections = Some(map.next_value_seed(OneOf(STATIC_RESOURCES))?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(content)
    }
}

// === impl Anys ===

impl<'de> DeserializeSeed<'de> for Anys {
    type Value = Vec<DynamicMessage>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Anys {
    type Value = Vec<DynamicMessage>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of resources with @type")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(any) = seq.next_element_seed(OneOf(ANY))? {
            list.push(any);
        }
        Ok(list)
    }
}

// === impl OneOf ===

impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = DynamicMessage;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let descriptor = message(self.0).map_err(D::Error::custom)?;
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(descriptor, deserializer, &options)
    }
}
