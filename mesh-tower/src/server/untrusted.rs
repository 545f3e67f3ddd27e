//! Headers that only a proxy in front of us could have meant, and that anybody can write: removed before anything
//! looks at the request.
//!
//! Place in the stack: first. A request of several hosts is refused; a `host` beside an `:authority` is removed, so that
//! policy and application see the same one (gRFC A41). Envoy: `forward_client_cert_details: SANITIZE` and the `x-envoy-*` headers of an edge.
//! Kept: `x-envoy-attempt-count`, which decides nothing, and `x-forwarded-for`, which applications read knowing what
//! it is worth.

use http::header::{HOST, HeaderName};
use http::{HeaderMap, Request};
use mesh_core::error::{Reason, Rejection};

use super::survey::Survey;

/// Removes them, and tells whether the request says clearly for which host it is.
pub(super) fn strip<B>(request: &mut Request<B>, survey: &Survey) -> Result<(), Rejection> {
    if survey.untrusted {
        strip_headers(request.headers_mut());
    }
    if survey.hosts == 0 {
        return Ok(());
    }
    if request.uri().authority().is_some() {
        request.headers_mut().remove(HOST);
    } else if survey.hosts > 1 {
        return Err(Rejection::new(Reason::BadRequest).with_detail("more than one host header"));
    }
    Ok(())
}

fn strip_headers(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_untrusted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

pub(super) fn is_untrusted(name: &str) -> bool {
    name.starts_with("x-") && (name == "x-forwarded-client-cert" || is_envoys(name))
}

fn is_envoys(name: &str) -> bool {
    name.starts_with("x-envoy-") && name != "x-envoy-attempt-count"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_claims_are_removed_and_everything_else_is_kept() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-client-cert",
            "x-envoy-peer-metadata",
            "x-envoy-attempt-count",
            "x-forwarded-for",
            "traceparent",
        ] {
            headers.append(name, "a".parse().unwrap());
            headers.append(name, "b".parse().unwrap());
        }
        let mut request = Request::new(());
        *request.headers_mut() = headers;
        let survey = Survey::of(request.headers());
        assert!(strip(&mut request, &survey).is_ok());
        let headers = request.headers();
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["traceparent", "x-envoy-attempt-count", "x-forwarded-for"]);
        assert_eq!(headers.get_all("traceparent").iter().count(), 2);
    }

    #[test]
    fn a_request_has_one_host() {
        let request = |uri: &str, hosts: &[&'static str]| {
            let mut request = Request::new(());
            *request.uri_mut() = uri.parse().unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, http::HeaderValue::from_static(host));
            }
            request
        };
        let strip = |request: &mut Request<()>| {
            let survey = Survey::of(request.headers());
            strip(request, &survey)
        };
        assert!(strip(&mut request("/", &["a"])).is_ok());
        assert_eq!(strip(&mut request("/", &["a", "b"])).unwrap_err().reason(), Reason::BadRequest);
        let mut both = request("http://a/", &["b"]);
        assert!(strip(&mut both).is_ok() && both.headers().is_empty());
    }
}
