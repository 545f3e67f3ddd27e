//! Resources written as JSON or YAML, by the mapping of protobuf's JSON, into the bytes that travel over xDS.
//!
//! A text holds one of these, and nothing else:
//!
//! * one resource: `{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": …}`
//! * a list of them, alone or under `resources` (the form of Envoy's file subscriptions)
//! * `static_resources: {listeners: […], clusters: […]}`, as Envoy's own configuration file writes it; its `admin` and
//!   `node` are skipped, its other sections listed by an application and refused by a control plane, and
//!   `dynamic_resources` refused by both
//!
//! What has the tag `!ignore` is left out, as Envoy's loader does: it holds anchors alone.
//!
//! Names of fields and extensions are looked up in the descriptors of the Envoy API: an unknown field is an error with
//! its path, line and column, and so is a field that is given twice, be it in both spellings of protobuf's JSON. JSON and
//! YAML give the same bytes.

mod faults;
mod lenient;
mod locate;
mod shape;
mod tree;

use std::fmt;
use std::sync::{Arc, LazyLock};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use serde::de::DeserializeSeed;

use self::faults::Fault;
use self::lenient::Items;
pub(crate) use self::locate::locate;
use self::shape::{In, Shape};

/// Largest text that is read, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 32 << 20;

/// Deepest nesting that is read: three times what real resources have, and bounded on the stack.
const MAX_DEPTH: usize = 64;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JSON.
    Json,
    /// YAML, one document.
    Yaml,
}

/// A resource as it would travel over xDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResource {
    /// Where in the text it stands: `resources[2]`; empty for a text that is one resource.
    pub place: String,
    /// Type URL of its message.
    pub type_url: String,
    /// Its name: the field `name`, or `cluster_name` where there is none; none where it is empty.
    pub name: Option<Arc<str>>,
    /// The message's bytes.
    pub value: Vec<u8>,
}

/// A text that holds no resources, or what is wrong with one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidText {
    /// Where the problem is, counted from 1, where that is known.
    pub position: Option<Position>,
    /// Path of the field: `static_resources.clusters[0].connect_timeout`; empty where it is the whole text.
    pub path: Arc<str>,
    problem: Problem,
}

/// A place in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{0} bytes are more than the limit of {MAX_TEXT_BYTES}")]
    TooLarge(usize),
    #[error("{0}")]
    Parse(String),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("holds neither resources nor static_resources, nor a resource with @type")]
    NoResources,
    #[error("{0:?} has no meaning here; resources stand under static_resources or resources")]
    UnknownSection(String),
    #[error("is not supported")]
    UnsupportedList,
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("there is no such field in {0}")]
    NoSuchField(String),
    #[error("has no @type that says what it is")]
    NoType,
    #[error("extension {0:?} is not known")]
    UnknownType(String),
    #[error("is not a duration, such as \"0.25s\"")]
    Duration,
    #[error("is out of range")]
    Range,
    #[error("there is more than one document")]
    Documents,
    #[error("repeats more by anchors than is read")]
    TooMuch,
    #[error("an anchor holds itself")]
    Recursive,
    #[error(
        "{0:?} is not supported: a file is all that there is; what names a control plane is the bootstrap"
    )]
    Elsewhere(&'static str),
}

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// It serves the resources to others: all that it does not know is refused.
    #[cfg(any(test, feature = "control-plane", feature = "testing"))]
    ControlPlane,
    /// It uses them itself: what has no effect on it is listed.
    Application,
}

/// A text that an application is configured by.
#[derive(Debug)]
pub(crate) struct ApplicationText {
    /// What it holds.
    pub(crate) resources: Vec<EncodedResource>,
    /// What is wrong with its other resources.
    pub(crate) invalid: Vec<InvalidText>,
    /// Sections of Envoy's file that have no effect here.
    pub(crate) without_effect: Vec<String>,
}

/// How many problems of a text have a position: each is looked for anew.
pub(crate) const LOCATED: usize = 64;

// === impl Format ===

impl Format {
    /// By the extension of a file's name: `json` is JSON, everything else YAML.
    #[must_use]
    pub fn of_path(path: &std::path::Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            Some(_) | None => Self::Yaml,
        }
    }
}

// === impl InvalidText ===

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, path, problem } = self;
        if let Some(Position { line, column }) = position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        problem.fmt(f)
    }
}

impl std::error::Error for InvalidText {}

impl From<Problem> for InvalidText {
    fn from(problem: Problem) -> Self {
        Self { position: None, path: Arc::default(), problem }
    }
}

/// Reads the resources of a text.
///
/// # Errors
/// When the text is too large, does not parse, names a field or a type that the Envoy API does not have, or holds
/// something else than resources.
#[cfg(any(test, feature = "control-plane", feature = "testing"))]
pub fn parse(text: &str, format: Format) -> Result<Vec<EncodedResource>, InvalidText> {
    let ApplicationText { resources, invalid, without_effect: _ } =
        parse_for(Reader::ControlPlane, text, format)?;
    invalid.into_iter().next().map_or(Ok(resources), Err)
}

/// Reads the resources of a text for use in this process: further sections of Envoy's file are listed, and an extension
/// of a type that is not known is left to validation, without its fields.
pub(crate) fn parse_own(text: &str, format: Format) -> Result<ApplicationText, InvalidText> {
    parse_for(Reader::Application, text, format)
}

fn parse_for(reader: Reader, text: &str, format: Format) -> Result<ApplicationText, InvalidText> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Problem::TooLarge(text.len()).into());
    }
    let (tree, is_part) = tree::tree(text, format)?;
    let (shape, without_effect) = Shape::of(&tree, text, reader)?;
    let items = Items::of(tree, (text, format), shape, reader, is_part)?;
    let strict = if items.have_faults() {
        None
    } else {
        let content = read(text, format, In { shape, pool: pool() });
        match content.and_then(shape::Content::resources) {
            Ok(resources) => return Ok(ApplicationText { resources, invalid: Vec::new(), without_effect }),
            Err(strict) => Some(strict),
        }
    };
    let (resources, faults) = items.resources(strict)?;
    let located = faults.into_iter().enumerate().map(|(i, Fault { path, problem })| {
        let position = if i < LOCATED { locate(text, &path) } else { None };
        InvalidText { position, path: path.into(), problem }
    });
    let mut invalid = located.collect::<Vec<_>>();
    invalid.sort_by_key(|invalid| (invalid.position.is_none(), invalid.position));
    Ok(ApplicationText { resources, invalid, without_effect })
}

/// The descriptors of the whole Envoy API. Built once, when the first text is read (about 20 ms and 10 MiB).
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin")).as_slice();
        DescriptorPool::decode(bytes).expect("the build script wrote a descriptor set")
    });
    &POOL
}

fn message(name: &str) -> Result<MessageDescriptor, InvalidText> {
    message_of(pool(), name)
}

fn message_of(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor, InvalidText> {
    let found = pool.get_message_by_name(name);
    found.ok_or_else(|| Problem::Parse(format!("message {name:?} is not in the descriptors")).into())
}

/// Runs a seed over a text, with the position of what goes wrong.
fn read<T, V>(text: &str, format: Format, seed: T) -> Result<V, InvalidText>
where
    T: for<'de> DeserializeSeed<'de, Value = V>,
{
    match format {
        Format::Json if depth(text) > MAX_DEPTH => Err(Problem::TooDeep.into()),
        Format::Json => {
            let mut json = serde_json::Deserializer::from_str(text);
            let value = seed.deserialize(&mut json);
            value.and_then(|value| json.end().map(|()| value)).map_err(|e| of_json(&e))
        }
        Format::Yaml => {
            let options = serde_saphyr::options! {
                budget: serde_saphyr::budget! {
                    max_depth: MAX_DEPTH,
                    max_events: 16_000_000,
                    max_nodes: 8_000_000,
                },
                // `n`, `no` and `off` are texts: YAML 1.2.
                strict_booleans: true,
                with_snippet: false,
            };
            serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
                seed.deserialize(yaml)
            })
            .map_err(|e| of_yaml(&e))
        }
    }
}

/// How deep a JSON text is nested; brackets within strings do not count.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn of_json(error: &serde_json::Error) -> InvalidText {
    let (line, column) = (error.line() as u64, error.column() as u64);
    let position = (line > 0).then_some(Position { line, column });
    InvalidText { position, ..without_position(&error.to_string()).into() }
}

fn of_yaml(error: &serde_saphyr::Error) -> InvalidText {
    let place = error.location().map(|at| Position { line: at.line(), column: at.column() });
    InvalidText {
        position: place.filter(|at| at.line > 0),
        ..problem_of_yaml(error.without_snippet()).into()
    }
}

/// The texts of the parser are for those who call it, not for those who write what it reads.
fn problem_of_yaml(error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } => problem_of_yaml(error.without_snippet()),
        Error::DuplicateMappingKey { key: Some(key), .. } => Problem::Twice(key.clone()),
        Error::MultipleDocuments { .. } => Problem::Documents,
        Error::Budget { breach: serde_saphyr::budget::BudgetBreach::Depth { .. }, .. } => Problem::TooDeep,
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => Problem::TooMuch,
        Error::RecursiveReferencesRequireWeakTypes { .. } => Problem::Recursive,
        other => without_position(&other.to_string()),
    }
}

/// The position is kept apart, so it does not have to stand in the text as well.
fn without_position(text: &str) -> Problem {
    let end = text.rfind(" at line ").unwrap_or(text.len());
    match text.get(..end).unwrap_or_default() {
        // As the standard library says it of a conversion.
        "out of range integral type conversion attempted" => Problem::Range,
        text => Problem::Parse(text.to_owned()),
    }
}

// === impl EncodedResource ===

impl EncodedResource {
    fn of_message(place: String, message: &DynamicMessage) -> Self {
        Self {
            place,
            type_url: format!("type.googleapis.com/{}", message.descriptor().full_name()),
            name: name_of(message),
            value: message.encode_to_vec(),
        }
    }

    fn of_any(place: String, any: &DynamicMessage) -> Result<Self, InvalidText> {
        let any: prost_types::Any =
            any.transcode_to().map_err(|e| InvalidText::from(Problem::Parse(e.to_string())))?;
        let full_name = any.type_url.rsplit('/').next().unwrap_or_default();
        // Of a type that is not known there is no name either.
        let inner = pool().get_message_by_name(full_name);
        let inner = inner.map(|descriptor| DynamicMessage::decode(descriptor, any.value.as_slice()));
        let inner = inner.transpose().map_err(|e| InvalidText::from(Problem::Parse(e.to_string())))?;
        let name = inner.as_ref().and_then(name_of);
        Ok(Self { place, name, type_url: any.type_url, value: any.value })
    }
}

fn name_of(message: &DynamicMessage) -> Option<Arc<str>> {
    let text = |field| match message.get_field_by_name(field).as_deref() {
        Some(Value::String(text)) if !text.is_empty() => Some(Arc::from(text.as_str())),
        _ => None,
    };
    text("name").or_else(|| text("cluster_name"))
}

#[cfg(test)]
mod tests;
