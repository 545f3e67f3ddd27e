//! One pass over the headers of a request: how much they are, and which of those that the stack reads are there.
//!
//! Place in the stack: before its first step. A lookup in a header map costs about as much as the whole pass, and most of
//! what the steps look for is not there.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use mesh_core::request::RequestKind;

/// What a pass over the headers showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) kind: RequestKind,
    /// Names and values.
    pub(super) bytes: u64,
    /// How many `host` headers.
    pub(super) hosts: usize,
    pub(super) grpc_timeout: bool,
    pub(super) traceparent: bool,
    /// Some header is one that [`untrusted`](super::untrusted) removes.
    pub(super) untrusted: bool,
}

// === impl Survey ===

impl Survey {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut survey = Self {
            kind: RequestKind::Http,
            bytes: 0,
            hosts: 0,
            grpc_timeout: false,
            traceparent: false,
            untrusted: false,
        };
        let mut content_type = None;
        for (name, value) in headers {
            if *name == CONTENT_TYPE {
                content_type.get_or_insert(value);
            }
            let name = name.as_str();
            survey.bytes += (name.len() + value.len()) as u64;
            match name {
                "host" => survey.hosts += 1,
                "grpc-timeout" => survey.grpc_timeout = true,
                "traceparent" => survey.traceparent = true,
                _ => survey.untrusted |= super::untrusted::is_untrusted(name),
            }
        }
        if let Some(value) = content_type {
            survey.kind = RequestKind::of_content_type(value);
        }
        survey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_sees_what_lookups_would_have_seen() {
        let mut headers = HeaderMap::new();
        assert_eq!(Survey::of(&headers).kind, RequestKind::Http);
        headers.append("content-type", "application/grpc".parse().unwrap());
        headers.append("content-type", "text/plain".parse().unwrap());
        headers.append("host", "a".parse().unwrap());
        headers.append("host", "b".parse().unwrap());
        headers.append("grpc-timeout", "1S".parse().unwrap());
        let survey = Survey::of(&headers);
        assert_eq!((survey.kind, survey.hosts), (RequestKind::of(&headers), 2));
        assert_eq!(survey.bytes, 12 + 16 + 12 + 10 + 2 * (4 + 1) + 12 + 2);
        assert!(survey.grpc_timeout && !survey.traceparent && !survey.untrusted);
        headers.append("traceparent", "00".parse().unwrap());
        headers.append("x-envoy-peer-metadata", "a".parse().unwrap());
        let survey = Survey::of(&headers);
        assert!(survey.traceparent && survey.untrusted);
    }
}
