//! A text as a tree of mappings, lists and scalars. Whoever gives a field twice is refused here: the readers that follow
//! would take the last and say nothing, and what is lost may be the filter that keeps somebody out.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Tagged;

use super::{Format, InvalidText, Problem, read};

/// Reads any tree, and knows where it is.
#[derive(Clone, Copy)]
struct Tree<'a>(&'a Trace);

#[derive(Default)]
struct Trace {
    /// What is being read; after an error, what could not be.
    path: RefCell<String>,
    /// A field that is given twice.
    twice: Cell<Option<String>>,
    /// YAML, whose keys may have tags.
    is_yaml: bool,
    /// Whether something was left out.
    ignored: Cell<bool>,
}

/// What marks an entry that only holds anchors, with Envoy's loader and here.
const IGNORE: &str = "!ignore";

/// The tree of a text, and whether anything of the text is not in it.
pub(super) fn tree(text: &str, format: Format) -> Result<(Value, bool), InvalidText> {
    if text.lines().all(|line| matches!(line.trim_start().bytes().next(), None | Some(b'#'))) {
        return Err(Problem::NoResources.into());
    }
    let trace = Trace { is_yaml: format == Format::Yaml, ..Trace::default() };
    let tree = read(text, format, Tree(&trace)).map_err(|error| InvalidText {
        path: trace.path.take().into(),
        problem: trace.twice.take().map_or(error.problem, Problem::Twice),
        ..error
    })?;
    Ok((tree, trace.ignored.get()))
}

/// Adds a step to a path, in the way that validation writes it.
pub(super) fn push_key(path: &mut String, key: &str) {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@';
    let dot = if path.is_empty() { "" } else { "." };
    let written =
        if key.bytes().all(is_name) { write!(path, "{dot}{key}") } else { write!(path, "[\"{key}\"]") };
    written.expect("a string takes all that is written");
}

/// Adds a step to a path.
pub(super) fn push_index(path: &mut String, index: usize) {
    write!(path, "[{index}]").expect("a string takes all that is written");
}

// === impl Tree ===

impl Tree<'_> {
    /// Runs with a longer path, and leaves it as it was unless something is wrong there.
    fn at<T, E>(self, push: impl FnOnce(&mut String), run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let length = self.0.path.borrow().len();
        push(&mut self.0.path.borrow_mut());
        let value = run()?;
        self.0.path.borrow_mut().truncate(length);
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        let next = |map: &mut A| match self.0.is_yaml {
            true => map.next_key::<Tagged<String>>(),
            false => map.next_key().map(|key| key.map(|key| Tagged(key, None))),
        };
        while let Some(Tagged(key, tag)) = next(&mut map)? {
            if tag.as_deref() == Some(IGNORE) {
                self.0.ignored.set(true);
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if fields.contains_key(&key) {
                self.0.twice.set(Some(key));
                return Err(A::Error::custom("twice"));
            }
            let value = self.at(|path| push_key(path, &key), || map.next_value_seed(self))?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let mut next = |i| self.at(|path| push_index(path, i), || seq.next_element_seed(self));
        while let Some(item) = next(items.len())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    /// What is no number of JSON is the text that protobuf's JSON has for it.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        let text = || match value {
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => "NaN",
        };
        Ok(Number::from_f64(value).map_or_else(|| Value::from(text()), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}
