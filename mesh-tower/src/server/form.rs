//! The form of a request: what RFC 9110, 9112 and 9113 demand, checked before anything decides on it, and brought into
//! the one form that policy, route, log and application see.
//!
//! Place in the stack: first. The codecs have refused what they cannot read; what is left to us is what they read
//! leniently.
//!
//! * a field value neither begins nor ends with white space (RFC 9113 §8.2.1; HTTP/1.1 has trimmed it)
//! * one `host`, which is a host and perhaps a port; over HTTP/1.1 there is one (RFC 9112 §3.2), over HTTP/2 there is an
//!   authority or one (RFC 9113 §8.3.1)
//! * no user information in the authority (RFC 9110 §4.2.4, RFC 9113 §8.3.1)
//! * the target begins with `/`, is `*` of OPTIONS, or an authority of CONNECT (RFC 9112 §3.2); an absolute form
//!   without a path has the path `/`, and `*` if it is one of OPTIONS without a query (RFC 9112 §3.2.4)
//! * a target has no fragment. Deviation: over HTTP/2 the codec cuts it off and does not tell; nor does
//!   that of HTTP/1.1 behind `listen`, where it is the application's
//! * the scheme is that of the connection, whatever the target says; over HTTP/1.1 without TLS it may say nothing else, as
//!   in Envoy
//! * cookies in several lines of HTTP/2 are one (RFC 9113 §8.2.3)

use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use mesh_core::error::{Reason, Rejection};

use crate::header_scan::HeaderScan;
use crate::lines;

/// `x-forwarded-proto`: what the connection is.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The target has a fragment, which the codec has cut off.
#[derive(Debug, Clone, Copy)]
struct HasFragment;

/// Takes note that the target has a fragment.
pub(crate) fn note_fragment<B>(request: &mut Request<B>) {
    request.extensions_mut().insert(HasFragment);
}

/// Takes note that the target is an absolute form without path and query, which the codec gives the path `/`.
pub(crate) fn note_authority_only<B>(request: &mut Request<B>) {
    if *request.method() != Method::OPTIONS {
        return;
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    // With a scheme and an authority any path makes a target.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Refuses a request that is malformed, and brings any other into its one form.
pub(super) fn settle<B>(request: &mut Request<B>, scan: &HeaderScan, is_tls: bool) -> Result<(), Rejection> {
    if scan.padded {
        return Err(malformed("a field value begins or ends with white space"));
    }
    settle_host(request, scan)?;
    settle_target(request, is_tls)?;
    if scan.cookies > 1 && request.version() == Version::HTTP_2 {
        lines::join_cookies(request.headers_mut());
    }
    let scheme = HeaderValue::from_static(if is_tls { "https" } else { "http" });
    request.headers_mut().insert(X_FORWARDED_PROTO, scheme);
    Ok(())
}

/// There is one host, in one place.
fn settle_host<B>(request: &mut Request<B>, scan: &HeaderScan) -> Result<(), Rejection> {
    let authority = request.uri().authority();
    match scan.hosts {
        0 if authority.is_some() && request.version() != Version::HTTP_11 => {}
        // There was none to name in the days of HTTP/1.0.
        0 if request.version() < Version::HTTP_11 => {}
        0 => return Err(malformed("no host")),
        1 => {}
        _ => return Err(malformed("more than one host")),
    }
    if let Some(authority) = authority {
        if !is_host(authority.as_str().as_bytes()) {
            return Err(malformed("the authority is no host"));
        }
        // The target says more than the header, and policy and application are to see the same (gRFC A41).
        if scan.hosts > 0 {
            request.headers_mut().remove(HOST);
        }
    } else if let Some(host) = request.headers().get(HOST)
        && !is_valid_host(host)
    {
        return Err(malformed("the host is none"));
    }
    Ok(())
}

/// The target is of a form that its method may have.
fn settle_target<B>(request: &mut Request<B>, is_tls: bool) -> Result<(), Rejection> {
    let (uri, method) = (request.uri(), request.method());
    if method == Method::CONNECT {
        let is_authority =
            uri.authority().is_some() && uri.scheme().is_none() && uri.path_and_query().is_none();
        return if is_authority { Ok(()) } else { Err(malformed("CONNECT asks for no authority")) };
    }
    let Some(path) = uri.path_and_query() else {
        return Err(malformed("the target has no path"));
    };
    if request.version() != Version::HTTP_2 && request.extensions().get::<HasFragment>().is_some() {
        return Err(malformed("the target has a fragment"));
    }
    let is_absolute = uri.scheme().is_some() && request.version() != Version::HTTP_2;
    let settled = match path.as_str().as_bytes() {
        [b'/', ..] => None,
        [b'*'] if *method == Method::OPTIONS => None,
        [b'?', ..] if is_absolute => PathAndQuery::try_from(format!("/{}", path.as_str())).ok(),
        _ => return Err(malformed("the target is neither a path nor `*` of OPTIONS")),
    };
    let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
    if is_absolute && !is_tls && uri.scheme().is_some_and(|said| *said != scheme) {
        return Err(malformed("the target's scheme is not that of the connection"));
    }
    if settled.is_none() && uri.scheme().is_none_or(|said| *said == scheme) {
        return Ok(());
    }
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = parts.scheme.map(|_| scheme);
    parts.path_and_query = settled.or(parts.path_and_query);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed("the target is none"))?;
    Ok(())
}

fn is_valid_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    // No host is said by an empty one (RFC 9112 §3.2).
    host.is_empty() || Authority::try_from(host).is_ok() && is_host(host)
}

/// Whether an authority is a host and perhaps a port, of digits, and nothing else.
fn is_host(authority: &[u8]) -> bool {
    let after_host = match authority.iter().rposition(|byte| *byte == b']') {
        Some(at) => authority.get(at + 1..).unwrap_or_default(),
        None => authority,
    };
    let port = after_host.iter().position(|byte| *byte == b':').and_then(|at| after_host.get(at + 1..));
    !authority.contains(&b'@') && port.is_none_or(|port| port.iter().all(u8::is_ascii_digit))
}

fn malformed(what: &'static str) -> Rejection {
    Rejection::new(Reason::BadRequest).with_detail(what)
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use http::uri::Parts;

    use super::*;

    /// The target and the cookies as everybody sees them.
    fn settled(
        version: Version,
        method: &str,
        uri: Uri,
        headers: &[(&str, &str)],
    ) -> Result<Request<()>, String> {
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let scan = HeaderScan::of(request.headers());
        settle(&mut request, &scan, false).map(|()| request).map_err(|rejection| rejection.to_string())
    }

    fn http1(method: &str, target: &str, hosts: &[&str]) -> Result<String, String> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        settled(Version::HTTP_11, method, target.parse().unwrap(), &headers)
            .map(|request| request.uri().to_string())
    }

    /// `:path` as the codec takes it over.
    fn http2(method: &str, path: &str, authority: &str) -> Result<String, String> {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.parse().unwrap());
        // The codec refuses most of what is no path itself.
        parts.path_and_query = Some(path.parse().map_err(|error| format!("{error}"))?);
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        settled(Version::HTTP_2, method, uri, &[])
            .map(|request| request.uri().path_and_query().unwrap().to_string())
    }

    #[test]
    fn a_target_has_one_form_or_is_refused() {
        for (method, target, expected) in [
            ("GET", "/a?b", Some("/a?b")),
            ("GET", "http://a", Some("http://a/")),
            ("GET", "http://a?q", Some("http://a/?q")),
            ("GET", "http://a/?q", Some("http://a/?q")),
            ("GET", "https://a/x", None),
            ("OPTIONS", "*", Some("*")),
            ("OPTIONS", "http://a", Some("http://a/")),
            ("OPTIONS", "http://a?q", Some("http://a/?q")),
            ("CONNECT", "a:443", Some("a:443")),
            ("GET", "*", None),
            ("GET", "a:443", None),
            ("OPTIONS", "a:443", None),
            ("CONNECT", "/", None),
            ("CONNECT", "http://a/", None),
            ("GET", "http://good@evil/", None),
            ("GET", "http://@evil/", None),
            ("GET", "http://a:x/", None),
        ] {
            let seen = http1(method, target, &["a"]);
            assert_eq!(seen.as_deref().ok(), expected, "{method} {target}: {seen:?}");
        }
        for (method, path, expected) in [
            ("GET", "/a?b", Some("/a?b")),
            ("OPTIONS", "*", Some("*")),
            ("OPTIONS", "/", Some("/")),
            ("GET", "*", None),
            ("GET", "a", None),
            ("GET", "?q", None),
            ("OPTIONS", "*a", None),
            ("OPTIONS", "?", None),
        ] {
            let seen = http2(method, path, "a");
            assert_eq!(seen.as_deref().ok(), expected, "{method} {path}: {seen:?}");
        }
        for authority in ["u@a", "u:p@a", "@a", "a:b", "a:", "[::1]:x"] {
            let is_well_formed = authority == "a:";
            assert_eq!(http2("GET", "/", authority).is_ok(), is_well_formed, "{authority}");
        }
    }

    #[test]
    fn there_is_one_host_and_it_is_one() {
        for (hosts, expected) in [
            (&["a"][..], true),
            (&["a:80"], true),
            (&["[::1]:80"], true),
            (&[""], true),
            (&[], false),
            (&["a", "a"], false),
            (&["a b/c"], false),
            (&["a/b"], false),
            (&["u@a"], false),
            (&["a:80:90"], false),
            (&["a?b"], false),
        ] {
            let seen = http1("GET", "/", hosts);
            assert_eq!(seen.is_ok(), expected, "{hosts:?}: {seen:?}");
        }
        assert!(http1("GET", "http://a/", &["b"]).is_ok(), "the target says more than the header");
        assert!(http1("GET", "http://a/", &["a", "a"]).is_err());
        assert!(http1("GET", "http://a/", &[]).is_err());
        let old =
            |hosts: &[(&str, &str)]| settled(Version::HTTP_10, "GET", "/".parse().unwrap(), hosts).is_ok();
        assert!(old(&[]) && old(&[("host", "a")]) && !old(&[("host", "a b")]));
        let only_path = settled(Version::HTTP_2, "GET", "/".parse().unwrap(), &[]);
        assert!(only_path.is_err(), "neither an authority nor a host");
    }

    #[test]
    fn white_space_around_a_value_is_refused_and_within_it_kept() {
        for (value, expected) in [
            ("admin", true),
            ("a b", true),
            ("", true),
            ("admin ", false),
            (" admin", false),
            ("\tadmin", false),
            (" ", false),
        ] {
            let headers = [("host", "a"), ("x-role", value)];
            let seen = settled(Version::HTTP_2, "GET", "/".parse().unwrap(), &headers);
            assert_eq!(seen.is_ok(), expected, "{value:?}");
        }
    }

    #[test]
    fn cookies_are_joined_and_the_protocol_is_the_connections() {
        let headers =
            [("host", "a"), ("cookie", "a=1"), ("cookie", "b=2; c=3"), ("x-forwarded-proto", "https")];
        for (version, cookies) in
            [(Version::HTTP_2, vec!["a=1; b=2; c=3"]), (Version::HTTP_11, vec!["a=1", "b=2; c=3"])]
        {
            let request = settled(version, "GET", "/".parse().unwrap(), &headers).unwrap();
            assert_eq!(request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(), cookies);
            assert_eq!(request.headers().get_all(X_FORWARDED_PROTO).iter().collect::<Vec<_>>(), ["http"]);
        }
    }
}
