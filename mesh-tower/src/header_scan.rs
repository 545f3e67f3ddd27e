//! One pass over the headers of a request: how much they are, and which of those that the stacks read are there.
//!
//! Place in both stacks: before their first step. A lookup in a header map costs about as much as the whole pass, and most of
//! what the steps look for is not there.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use mesh_core::request::RequestKind;

/// What a pass over the headers showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeaderScan {
    pub(crate) kind: RequestKind,
    /// Lines, as they came.
    pub(crate) lines: usize,
    /// Names and values.
    pub(crate) bytes: u64,
    /// How many `host` headers.
    pub(crate) hosts: usize,
    /// How many `cookie` headers.
    pub(crate) cookies: usize,
    /// Some value begins or ends with white space. Not looked for in a call of ours.
    pub(crate) padded: bool,
    pub(crate) grpc_timeout: bool,
    pub(crate) traceparent: bool,
    /// Some header is one that the server removes. Not looked for in a call of ours.
    pub(crate) untrusted: bool,
}

// === impl HeaderScan ===

impl HeaderScan {
    /// Of a request that we serve.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::pass::<true>(headers)
    }

    /// Of a request that we make.
    pub(crate) fn of_call(headers: &HeaderMap) -> Self {
        Self::pass::<false>(headers)
    }

    fn pass<const SERVED: bool>(headers: &HeaderMap) -> Self {
        let mut scan = Self {
            kind: RequestKind::Http,
            lines: headers.len(),
            bytes: 0,
            hosts: 0,
            cookies: 0,
            padded: false,
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
            scan.bytes += (name.len() + value.len()) as u64;
            if SERVED && let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
                scan.padded = true;
            }
            match name {
                "host" => scan.hosts += 1,
                "cookie" => scan.cookies += 1,
                "grpc-timeout" => scan.grpc_timeout = true,
                "traceparent" => scan.traceparent = true,
                _ => scan.untrusted |= SERVED && crate::server::is_untrusted(name),
            }
        }
        if let Some(value) = content_type {
            scan.kind = RequestKind::of_content_type(value);
        }
        scan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_sees_what_lookups_would_have_seen() {
        let mut headers = HeaderMap::new();
        assert_eq!(HeaderScan::of(&headers).kind, RequestKind::Http);
        headers.append("content-type", "application/grpc".parse().unwrap());
        headers.append("content-type", "text/plain".parse().unwrap());
        headers.append("host", "a".parse().unwrap());
        headers.append("host", "b".parse().unwrap());
        headers.append("grpc-timeout", "1S".parse().unwrap());
        let scan = HeaderScan::of(&headers);
        assert_eq!((scan.kind, scan.hosts), (RequestKind::of(&headers), 2));
        assert_eq!(scan.bytes, 12 + 16 + 12 + 10 + 2 * (4 + 1) + 12 + 2);
        assert!(scan.grpc_timeout && !scan.traceparent && !scan.untrusted);
        headers.append("traceparent", "00".parse().unwrap());
        headers.append("x-envoy-peer-metadata", "a".parse().unwrap());
        let scan = HeaderScan::of(&headers);
        assert!(scan.traceparent && scan.untrusted);
    }
}
