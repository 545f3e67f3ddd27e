//! What a decision sees of a request.

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
    /// `:path`, the query included.
    pub path_and_query: &'a str,
    /// Everything else.
    pub headers: &'a HeaderMap,
    /// Whose rules apply.
    pub kind: RequestKind,
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
    pub fn path(&self) -> &'a str {
        self.split().0
    }

    /// The query without the `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.split().1
    }

    /// By bytes: a path is too short for a general search to pay.
    fn split(&self) -> (&'a str, Option<&'a str>) {
        let whole = self.path_and_query;
        match whole.bytes().position(|byte| byte == b'?') {
            Some(at) => (whole.get(..at).unwrap_or(whole), whole.get(at + 1..)),
            None => (whole, None),
        }
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
