//! Headers that only a proxy in front of us could have meant, and that anybody can write: removed before anything
//! looks at the request.
//!
//! Place in the stack: first. Envoy: `forward_client_cert_details: SANITIZE` and the `x-envoy-*` headers of an edge.
//! An underscore is as good as a hyphen: to CGI and its heirs, the application may be one of them, they are the same.
//! Kept: `x-envoy-attempt-count`, which decides nothing, and `x-forwarded-for`, which applications read knowing what
//! it is worth.

use http::HeaderMap;
use http::header::HeaderName;

/// Removes them.
pub(super) fn strip(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_untrusted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

pub(crate) fn is_untrusted(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-' | b'_', rest @ ..] => {
            is(rest, b"forwarded-client-cert")
                || rest.get(..ENVOY.len()).is_some_and(|head| is(head, ENVOY))
                    && !is(rest, b"envoy-attempt-count")
                || rest.contains(&b'_') && is(rest, b"forwarded-proto")
        }
        _ => false,
    }
}

const ENVOY: &[u8] = b"envoy-";

/// Whether a name is this one, in any spelling.
fn is(name: &[u8], other: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
    name.len() == other.len() && name.iter().zip(other).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_claims_are_removed_in_every_spelling_and_everything_else_is_kept() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "x-forwarded_client-cert",
            "x-envoy-peer-metadata",
            "x_envoy_peer_metadata",
            "x-envoy_original-path",
            "x-envoy-attempt-count",
            "x_forwarded_proto",
            "x-forwarded-for",
            "x-forwarded-client-certs",
            "traceparent",
        ] {
            headers.append(name, "a".parse().unwrap());
            headers.append(name, "b".parse().unwrap());
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let kept = ["traceparent", "x-envoy-attempt-count", "x-forwarded-client-certs", "x-forwarded-for"];
        assert_eq!(left, kept);
        assert_eq!(headers.get_all("traceparent").iter().count(), 2);
    }
}
