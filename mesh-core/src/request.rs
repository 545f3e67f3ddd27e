//! What a decision sees of a request.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};

/// The head of a request, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:scheme`.
    pub scheme: &'a str,
    /// `:authority`, or `host`.
    pub authority: &'a str,
    /// `:path`.
    pub target: Target<'a>,
    /// Everything else.
    pub headers: &'a HeaderMap,
    /// Whose rules apply.
    pub kind: RequestKind,
    /// Whether the configuration believes `x-forwarded-for` (Envoy: not `use_remote_address`).
    pub trusts_forwarded_for: bool,
}

/// `:path`, and where its query begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    whole: &'a str,
    /// Bytes before the query.
    path: usize,
}

/// Whose rules apply where Envoy and gRPC differ: the kind of the request decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `content-type: application/grpc*`.
    Grpc,
    /// Any other HTTP request.
    Http,
}

// === impl RequestHead ===

impl<'a> RequestHead<'a> {
    /// The path without the query.
    #[must_use]
    #[inline]
    pub fn path(&self) -> &'a str {
        self.target.path()
    }

    /// The query without the `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.query()
    }

    /// The address from which the caller says that it comes, where that is believed: the last one of `x-forwarded-for`,
    /// which the nearest proxy has added. None if there is none, or it is no address.
    #[must_use]
    pub(crate) fn forwarded_for(&self) -> Option<IpAddr> {
        if !self.trusts_forwarded_for {
            return None;
        }
        let last = self.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim_matches([' ', '\t']).parse().ok()
    }
}

// === impl Target ===

impl<'a> Target<'a> {
    /// A path, with or without a query.
    #[must_use]
    pub fn new(path_and_query: &'a str) -> Self {
        // By bytes: a path is too short for a general search to pay.
        let path = path_and_query.bytes().position(|byte| byte == b'?');
        Self { whole: path_and_query, path: path.unwrap_or(path_and_query.len()) }
    }

    /// That of a URI, which knows where its query begins.
    #[must_use]
    #[inline]
    pub fn of(path: &'a PathAndQuery) -> Self {
        let query = path.query().map_or(0, |query| query.len() + 1);
        Self { whole: path.as_str(), path: path.as_str().len() - query }
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.whole
    }

    /// The path without the query.
    #[must_use]
    #[inline]
    pub fn path(self) -> &'a str {
        self.whole.get(..self.path).unwrap_or(self.whole)
    }

    /// The query without the `?`, if there is one.
    #[must_use]
    pub fn query(self) -> Option<&'a str> {
        self.whole.get(self.path + 1..)
    }
}

// === impl RequestKind ===

impl RequestKind {
    /// Reads `content-type`: `application/grpc`, alone or followed by `+` or `;`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        headers.get(header::CONTENT_TYPE).map_or(Self::Http, Self::of_content_type)
    }

    /// The same, of a value that is at hand.
    #[must_use]
    pub fn of_content_type(value: &HeaderValue) -> Self {
        match value.as_bytes().strip_prefix(b"application/grpc") {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            Some(_) | None => Self::Http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_where_its_query_begins() {
        for (uri, whole, path, query) in [
            ("/a", "/a", "/a", None),
            ("/a?b=1", "/a?b=1", "/a", Some("b=1")),
            ("/a?", "/a?", "/a", Some("")),
            ("/a?b?c", "/a?b?c", "/a", Some("b?c")),
            ("*", "*", "*", None),
            ("http://host", "/", "/", None),
            ("http://host?q", "?q", "", Some("q")),
        ] {
            let parsed = uri.parse::<http::Uri>().unwrap();
            for target in [Target::of(parsed.path_and_query().unwrap()), Target::new(whole)] {
                assert_eq!((target.as_str(), target.path(), target.query()), (whole, path, query), "{uri}");
            }
        }
    }

    #[test]
    fn the_last_address_of_the_last_line_is_where_a_caller_comes_from() {
        for (lines, expected) in [
            (&["10.0.0.1"][..], Some("10.0.0.1")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.2")),
            (&["10.0.0.1", "10.0.0.3 ,::1"], Some("::1")),
            (&["10.0.0.1,"], None),
            (&["10.0.0.1, unknown"], None),
            (&["10.0.0.1:80"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            let head = |trusts_forwarded_for| RequestHead {
                method: &Method::GET,
                scheme: "http",
                authority: "a",
                target: Target::new("/"),
                headers: &headers,
                kind: RequestKind::Http,
                trusts_forwarded_for,
            };
            assert_eq!(head(true).forwarded_for(), expected.map(|text| text.parse().unwrap()), "{lines:?}");
            assert_eq!(head(false).forwarded_for(), None);
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let kind = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            RequestKind::of(&headers)
        };
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert_eq!(kind(grpc), RequestKind::Grpc, "{grpc}");
        }
        for http in ["application/grpc-web", "application/json", "APPLICATION/JSON"] {
            assert_eq!(kind(http), RequestKind::Http, "{http}");
        }
        assert_eq!(RequestKind::of(&HeaderMap::new()), RequestKind::Http);
    }
}
