//! Where in a text a field stands, by the path that a validator gives it.
//!
//! The path is followed as far as the text goes: a field that is missing is reported at what should hold it. JSON is read
//! as YAML, which includes it. Names are compared without case and underscores, since both spellings of protobuf's JSON
//! are allowed. Only called for a text that is refused, so it may read it once more.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Format, Position, read};

/// The deepest place of a path, such as `resources[2].virtual_hosts[0].name`, that the text has.
pub(crate) fn locate(text: &str, path: &str) -> Option<Position> {
    walk(text, path, Found::default()).position.get()
}

/// The scalar at a path as it is written in the text: what a field that takes text makes of `0x50`.
pub(super) fn scalar(text: &str, path: &str) -> Option<String> {
    walk(text, path, Found { is_scalar: true, ..Found::default() }).scalar.take()
}

fn walk(text: &str, path: &str, found: Found) -> Found {
    let steps = steps(path);
    // Whatever stops the reading, what was found before holds.
    drop(read(text, Format::Yaml, Walk { steps: &steps, found: &found }));
    found
}

/// What is at the end of a path.
#[derive(Default)]
struct Found {
    position: Cell<Option<Position>>,
    /// Whether the scalar is wanted.
    is_scalar: bool,
    scalar: Cell<Option<String>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

/// Follows a path, and notes the position of each step.
#[derive(Clone, Copy)]
struct Walk<'a> {
    steps: &'a [Step],
    found: &'a Found,
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let Some((key, after)) = quoted.split_once("\"]") else { break };
            steps.push(Step::Field(key.to_owned()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let Some((index, after)) = index.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            steps.push(Step::Index(index));
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let (name, after) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
            if !name.is_empty() {
                steps.push(Step::Field(name.to_owned()));
            }
            rest = after;
        }
    }
    steps
}

fn is_same(key: &str, field: &str) -> bool {
    let plain = |text: &str| text.replace('_', "").to_ascii_lowercase();
    plain(key) == plain(field)
}

// === impl Walk ===

impl Walk<'_> {
    fn note<T>(&self, at: &Spanned<T>) {
        let at = at.referenced;
        if at.line() > 0 {
            self.found.position.set(Some(Position { line: at.line(), column: at.column() }));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A scalar ends the path; a mapping or list is followed, and the reading stopped where the path has been.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        // One element may stand where a list is expected.
        if let Some((Step::Index(0), rest)) = self.steps.split_first() {
            self.steps = rest;
        }
        let mut first = true;
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            // The first key is where the mapping begins.
            if std::mem::replace(&mut first, false) {
                self.note(&key);
            }
            match self.steps.split_first() {
                Some((Step::Field(field), rest)) if is_same(&key.value, field) => {
                    self.note(&key);
                    if rest.is_empty() && self.found.is_scalar {
                        self.found.scalar.set(map.next_value::<String>().ok());
                    } else if !rest.is_empty() {
                        map.next_value_seed(Walk { steps: rest, ..self })?;
                    }
                    return Err(A::Error::custom("found"));
                }
                Some((Step::Field(_), _)) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some((Step::Index(_), _)) | None => return Err(A::Error::custom("found")),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("found"));
        };
        for _ in 0..*index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        if rest.is_empty() && self.found.is_scalar {
            self.found.scalar.set(seq.next_element::<String>().ok().flatten());
        } else if rest.is_empty() {
            if let Some(element) = seq.next_element::<Spanned<IgnoredAny>>()? {
                self.note(&element);
            }
        } else {
            seq.next_element_seed(Walk { steps: rest, ..self })?;
        }
        Err(A::Error::custom("found"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
resources:
- '@type': a
  name: first
- '@type': b
  virtualHosts:
  - name: host
    domains: ['*', x]
    typed_per_filter_config:
      \"a.b\":
        rules: {}
";

    fn at(text: &str, path: &str) -> Option<(u64, u64)> {
        locate(text, path).map(|at| (at.line, at.column))
    }

    #[test]
    fn a_path_ends_at_its_field() {
        let cases = [
            ("resources", (1, 1)),
            ("resources[0].name", (3, 3)),
            ("resources[1]", (4, 3)),
            ("resources[1].virtual_hosts[0].name", (6, 5)),
            ("resources[1].virtual_hosts[0].domains[1]", (7, 20)),
            ("resources[1].virtual_hosts[0].typed_per_filter_config[\"a.b\"].rules", (10, 9)),
        ];
        for (path, expected) in cases {
            assert_eq!(at(YAML, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_path_that_the_text_does_not_have_ends_at_what_should_hold_it() {
        assert_eq!(at(YAML, "resources[0].virtual_hosts[3].name"), Some((2, 3)));
        assert_eq!(at(YAML, "resources[1].virtual_hosts[0].routes"), Some((6, 5)));
        assert_eq!(at(YAML, "resources[9]"), Some((1, 1)));
        assert_eq!(at("", "resources[9]"), None);
        assert_eq!(at("[", "a[[.b[x].\"]"), None);
    }

    #[test]
    fn json_is_read_as_well() {
        let json = "{\"resources\": [\n\t{\"name\": \"x\",\n\t \"connectTimeout\": \"1x\"}\n]}";
        assert_eq!(at(json, "resources[0].connect_timeout").map(|at| at.0), Some(3));
    }
}
