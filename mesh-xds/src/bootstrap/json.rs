//! A cursor over a JSON document that knows where it stands, so that every error has a field path.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{Problem, Reason, parse_duration};

/// One place in the document. Absent and `null` are the same, as in the JSON form of protobuf.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    path: String,
    value: Option<&'a Value>,
}

type Object = Map<String, Value>;
type Member<'a> = (&'a str, Field<'a>);

// === impl Field ===

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value: Some(value) }
    }

    pub(super) fn is_present(&self) -> bool {
        self.value.is_some()
    }

    pub(super) fn fail(&self, reason: Reason) -> Problem {
        let path = if self.path.is_empty() { "document" } else { &self.path };
        reason.at(path)
    }

    /// The member `name` of an object; absent where there is none.
    pub(super) fn get(&self, name: &str) -> Result<Self, Problem> {
        let value = self.object()?.and_then(|map| map.get(name));
        Ok(self.member(name, value))
    }

    /// The member under its protobuf name or under the JSON spelling of it.
    pub(super) fn get_either(&self, snake: &str, camel: &str) -> Result<Self, Problem> {
        let found = self.get(snake)?;
        if found.is_present() { Ok(found) } else { self.get(camel) }
    }

    /// All members of an object.
    pub(super) fn members(&self) -> Result<Vec<Member<'a>>, Problem> {
        let map = self.object()?;
        let members = map.into_iter().flatten();
        Ok(members.map(|(name, value)| (name.as_str(), self.member(name, Some(value)))).collect())
    }

    /// All items of an array.
    pub(super) fn items(&self) -> Result<Vec<Self>, Problem> {
        let items = match self.value {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(self.wrong_type("an array", other)),
        };
        let item = |(i, value)| Self { path: format!("{}[{i}]", self.path), value: Some(value) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(super) fn object(&self) -> Result<Option<&'a Object>, Problem> {
        match self.value {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong_type("an object", other)),
        }
    }

    pub(super) fn string(&self) -> Result<Option<&'a str>, Problem> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type("a string", other)),
        }
    }

    /// A string that must be there and not be empty; `next` tells what to write.
    pub(super) fn required(&self, next: &'static str) -> Result<&'a str, Problem> {
        match self.string()? {
            None => Err(self.fail(Reason::Missing { next })),
            Some("") => Err(self.fail(Reason::Empty { next })),
            Some(text) => Ok(text),
        }
    }

    /// A file name; empty is the same as absent, as protobuf has it.
    pub(super) fn file(&self) -> Result<Option<PathBuf>, Problem> {
        Ok(self.string()?.filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    /// A duration above zero.
    pub(super) fn interval(&self, default: Duration) -> Result<Duration, Problem> {
        let Some(text) = self.string()? else { return Ok(default) };
        let interval = parse_duration(text).map_err(|reason| self.fail(reason))?;
        if interval.is_zero() { Err(self.fail(Reason::DurationNotPositive)) } else { Ok(interval) }
    }

    fn member(&self, name: &str, value: Option<&'a Value>) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, value: value.filter(|value| !value.is_null()) }
    }

    fn wrong_type(&self, expected: &'static str, found: &Value) -> Problem {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.fail(Reason::WrongType { expected, found })
    }
}
