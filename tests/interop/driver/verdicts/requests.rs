//! Requests, well formed and not.

use std::fmt;

use mesh_core::rng::{Rng as _, Xoshiro};

use super::config::pick;

/// A request, as it is written.
pub(super) struct Asked {
    pub(super) http2: bool,
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    /// The `host` lines, or the `:authority`.
    pub(super) hosts: Vec<&'static str>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) tls: bool,
}

// === impl Asked ===

impl Asked {
    pub(super) fn draw(rng: &mut Xoshiro, tls: bool) -> Self {
        let http2 = rng.below(2) == 0;
        let method = *pick(rng, &["GET", "GET", "POST", "HEAD", "OPTIONS"]);
        let target = match rng.below(4) {
            0 => *pick(rng, if http2 { &ODD_PATHS[..] } else { &ODD_TARGETS[..] }),
            _ => *pick(rng, &PATHS),
        };
        let hosts = match rng.below(8) {
            0 => pick(rng, &ODD_HOSTS).to_vec(),
            _ => vec![*pick(rng, &["shop.test", "evil.test", "shop.test:80"])],
        };
        let hosts = if http2 { hosts.into_iter().take(1).collect() } else { hosts };
        let headers = (0..rng.below(4)).map(|_| *pick(rng, &HEADERS)).collect();
        Self { http2, method, target, hosts, headers, tls }
    }

    /// Why our verdict may differ from Envoy's; none if it may not.
    pub(super) fn difference(&self, we_admit: bool) -> Option<&'static str> {
        let has = |what: char| self.target.contains(what);
        if self.http2 && has('#') {
            return Some(
                "a fragment over HTTP/2: Envoy refuses it, we see the target without it, everywhere",
            );
        }
        if self.target == "http://shop.test" && self.method == "OPTIONS" {
            return Some("OPTIONS of a host: it is `*` (RFC 9112 §3.2.4), Envoy sees `/`");
        }
        if !self.tls && self.headers.contains(&("x-forwarded-proto", "https")) {
            return Some(
                "`x-forwarded-proto` of a request: Envoy may believe it, we say what the connection is",
            );
        }
        if self.target == "http://shop.test?q" {
            return Some(
                "an absolute form without a path: it is `/` (RFC 9112 §3.2.1), Envoy finds no route for it",
            );
        }
        if we_admit {
            return None;
        }
        let host = self.hosts.first().copied().unwrap_or_default();
        if self.http2
            && self.headers.iter().any(|(_, value)| value.trim_matches([' ', '\t']).len() != value.len())
        {
            return Some("white space around a value over HTTP/2: malformed (RFC 9113 §8.2.1)");
        }
        if self.hosts.len() > 1 || self.hosts.is_empty() {
            return Some("no host, or more than one: malformed (RFC 9112 §3.2)");
        }
        if has('@') || host.contains(['@', ' ', '/', '?']) || host.matches(':').count() > 1 {
            return Some(
                "a host that is none, or user information: malformed (RFC 9110 §4.2.4, RFC 9112 §3.2)",
            );
        }
        if self.target.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) || !self.target.is_ascii() {
            return Some("a target of letters that no URI has (RFC 3986)");
        }
        if self.target.starts_with("https:") && !self.tls {
            return Some("an absolute form with `https` in plaintext");
        }
        let is_path = self.target.starts_with('/') || self.target == "*" && self.method == "OPTIONS";
        if !is_path {
            return Some("a target that is no path, or `*` of another method than OPTIONS (RFC 9112 §3.2)");
        }
        None
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.http2 { 2 } else { 1 };
        write!(
            f,
            "HTTP/{version} tls {} {} {:?} of {:?} {:?}",
            self.tls, self.method, self.target, self.hosts, self.headers
        )
    }
}

const PATHS: [&str; 10] =
    ["/", "/admin", "/admin?x", "/admin/", "/ADMIN", "//admin", "/%61dmin", "/a", "/?q", "/a/../admin"];

const ODD_TARGETS: [&str; 14] = [
    "*",
    "http://shop.test",
    "http://shop.test?q",
    "http://shop.test/admin",
    "http://evil.test/",
    "https://shop.test/a",
    "http://good@evil.test/",
    "/a#b",
    "/a b",
    "a/b",
    "?q",
    "shop.test:80",
    "/a\"b",
    "http://shop.test:80/admin?x",
];

const ODD_PATHS: [&str; 8] = ["*", "admin", "?q", "/a#b", "/a b", "*a", "http://shop.test/admin", "/a\"b"];

const ODD_HOSTS: [&[&str]; 9] = [
    &[],
    &[""],
    &["a b/c"],
    &["good@evil.test"],
    &["evil"],
    &["shop.test", "shop.test"],
    &["shop.test", "evil.test"],
    &["SHOP.test"],
    &["shop.test:80:90"],
];

const HEADERS: [(&str, &str); 16] = [
    ("x-role", "admin"),
    ("x-role", "admin"),
    ("x-role", "user"),
    ("x-role", "admin "),
    ("x-role", " admin"),
    ("x-role", "\tadmin"),
    ("x-role", ""),
    ("x-role", "Admin"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-for", "10.0.0.1, 10.9.9.9"),
    ("x-forwarded-for", "nobody"),
    ("x-forwarded-proto", "https"),
    ("x_role", "admin"),
    ("x-other", "admin"),
];
