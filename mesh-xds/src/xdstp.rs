//! Names of the form `xdstp://AUTHORITY/TYPE/ID?KEY=VALUE&…` (gRFC A47, xRFC TP1), and the one spelling of each.
//!
//! Two names are the same resource where they differ only in the order of the context parameters, or in characters
//! that are percent-encoded without need. [`canonical`] gives the spelling that everything here compares, caches and
//! asks for. Names are made canonical where they enter: in the resolver, and in the validation of resources.
//!
//! Deviation: a fragment (`#…`), which holds directives that gRPC does not know either, is dropped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

const SCHEME: &str = "xdstp:";

/// The parts of a name, percent-encoded as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xdstp<'a> {
    pub(crate) authority: Cow<'a, str>,
    /// The message, such as `envoy.config.listener.v3.Listener`.
    pub(crate) resource_type: &'a str,
    id: &'a str,
    context: &'a str,
}

/// Whether a name is of the new style.
pub(crate) fn is_xdstp(name: &str) -> bool {
    name.starts_with(SCHEME)
}

/// The canonical spelling of a name. A name that is not of this form, or not well formed, is what it is.
pub(crate) fn canonical(name: &str) -> Arc<str> {
    if !is_xdstp(name) {
        return name.into();
    }
    match Xdstp::parse(name) {
        Ok(parts) => parts.to_string().into(),
        Err(_) => name.into(),
    }
}

/// Encodes what stands for a path: RFC 3986 path characters and `/` are kept.
pub(crate) fn encode_path(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode(text.as_bytes(), &mut out, |byte| is_path(byte) || byte == b'/');
    out
}

// === impl Xdstp ===

impl<'a> Xdstp<'a> {
    pub(crate) fn parse(name: &'a str) -> Result<Self, Arc<str>> {
        let wrong = |what: &str| format!("its name is not of the form xdstp://AUTHORITY/TYPE/ID: {what}");
        let rest = name.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix("//"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with xdstp://"))?;
        let rest = rest.split_once('#').map_or(rest, |(name, _directives)| name);
        let (path, context) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = path.split_once('/').ok_or_else(|| wrong("it has no type"))?;
        let (resource_type, id) = path.split_once('/').ok_or_else(|| wrong("it has no id"))?;
        if resource_type.is_empty() {
            return Err(wrong("its type is empty").into());
        }
        Ok(Self { authority: decode_text(authority), resource_type, id, context })
    }
}

impl std::fmt::Display for Xdstp<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { authority, resource_type, id, context } = self;
        let mut text = format!("{SCHEME}//");
        encode(authority.as_bytes(), &mut text, is_path);
        text.push('/');
        text.push_str(resource_type);
        for segment in id.split('/') {
            text.push('/');
            // A slash that is encoded is part of a segment, and stays so.
            encode(&decode(segment), &mut text, is_path);
        }
        let mut parameters: Vec<_> = context.split('&').filter(|pair| !pair.is_empty()).collect();
        parameters.sort_by_cached_key(|pair| decode(pair.split_once('=').map_or(*pair, |(key, _)| key)));
        for (i, pair) in parameters.into_iter().enumerate() {
            text.push(if i == 0 { '?' } else { '&' });
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            encode(&decode(key), &mut text, is_query);
            text.push('=');
            encode(&decode(value), &mut text, is_query);
        }
        f.write_str(&text)
    }
}

/// Unreserved characters, sub-delimiters, `:` and `@` of RFC 3986.
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// What may stand in a key or a value without meaning anything else.
fn is_query(byte: u8) -> bool {
    (is_path(byte) && !b"&=+".contains(&byte)) || b"/?".contains(&byte)
}

fn encode(bytes: &[u8], out: &mut String, is_kept: impl Fn(u8) -> bool) {
    for byte in bytes {
        if is_kept(*byte) {
            out.push(char::from(*byte));
        } else {
            // writing to a String cannot fail
            _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Percent-decodes; a `%` that encodes nothing is itself.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let encoded = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match encoded {
            Some((high, low)) => {
                out.push(high * 16 + low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn decode_text(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    match String::from_utf8(decode(text)) {
        Ok(decoded) => Cow::Owned(decoded),
        Err(_) => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTENER: &str = "envoy.config.listener.v3.Listener";

    #[test]
    fn the_order_of_context_parameters_makes_no_difference() {
        let name = |context: &str| canonical(&format!("xdstp://a/{LISTENER}/l?{context}"));
        assert_eq!(&*name("b=2&a=1&c=3"), format!("xdstp://a/{LISTENER}/l?a=1&b=2&c=3"));
        assert_eq!(name("b=2&a=1"), name("a=1&b=2"));
        assert_ne!(name("b=2&a=1"), name("a=2&b=1"));
        assert_eq!(&*name(""), format!("xdstp://a/{LISTENER}/l"));
    }

    #[test]
    fn what_is_encoded_without_need_is_the_same_name() {
        let same = [
            ("l/%61%2Db", "l/a-b"),
            ("l%20x", "l%20x"),
            ("l x", "l%20x"),
            ("l%2fx", "l%2Fx"),
            ("l#entry=e", "l"),
            ("l?k=%41&j=a b", "l?j=a%20b&k=A"),
            ("100%", "100%25"),
        ];
        for (spelling, expected) in same {
            let expected = format!("xdstp://a/{LISTENER}/{expected}");
            assert_eq!(&*canonical(&format!("xdstp://a/{LISTENER}/{spelling}")), expected);
        }
        assert_ne!(canonical("xdstp://a/t/l%2Fx"), canonical("xdstp://a/t/l/x"), "another path");
    }

    #[test]
    fn a_name_of_the_old_style_is_what_it_is() {
        for name in ["b=2&a=1", "xds://a/b?z=1&a=1", "", "outbound|80||x.svc", "xdstp:a", "xdstp://a"] {
            assert_eq!(&*canonical(name), name);
        }
    }

    #[test]
    fn the_parts_are_told_apart() {
        let parts = Xdstp::parse("xdstp://a%2Eb/t/one/two?k=v").unwrap();
        let Xdstp { authority, resource_type, id, context } = parts;
        assert_eq!((&*authority, resource_type, id, context), ("a.b", "t", "one/two", "k=v"));
        let empty = Xdstp::parse("xdstp:///t/x").unwrap();
        assert_eq!(&*empty.authority, "");
        for wrong in ["xdstp:t", "xdstp:/a/t/x", "xdstp://a", "xdstp://a/t", "xdstp://a//x"] {
            assert!(Xdstp::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_is_its_own_and_any_text_has_one(name in "(xdstp://)?[ -~é]{0,40}") {
            let once = canonical(&name);
            prop_assert_eq!(&canonical(&once), &once);
        }
    }
}
