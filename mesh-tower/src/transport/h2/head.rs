//! The head of a request as HTTP/2 carries it.
//!
//! Fields of ours whose values are as good as never the same twice are sensitive: they stay out of HPACK's table, where
//! they would push out what repeats. The first of each on a connection goes into it all the same, so that those that
//! follow need not spell out their names.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

const TRACEPARENT: &str = "traceparent";
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// A head that HTTP/2 can carry.
pub(super) struct Prepared {
    pub(super) head: Request<()>,
    /// The length that it announces.
    pub(super) length: Option<u64>,
    pub(super) named: Named,
}

/// Which fields there are, of those that are never the same twice: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named(pub(super) u8);

// === impl Prepared ===

impl Prepared {
    /// Leaves out connection-specific fields, and `host` beside `:authority`.
    #[inline]
    pub(super) fn new(mut head: Parts) -> Self {
        let has_authority = head.uri.authority().is_some();
        let (mut length, mut named) = (None, Named(0));
        let mut is_unfit = |name: &HeaderName, value: &HeaderValue| match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => true,
            "te" => value != "trailers",
            "host" => has_authority,
            "content-length" => {
                length = value.to_str().ok().and_then(|text| text.parse().ok());
                false
            }
            TRACEPARENT => {
                named.0 |= Named::TRACEPARENT;
                false
            }
            GRPC_TIMEOUT => {
                named.0 |= Named::GRPC_TIMEOUT;
                false
            }
            _ => false,
        };
        // One pass, because the usual head has nothing to remove.
        while let Some((name, _)) = head.headers.iter().find(|(name, value)| is_unfit(name, value)) {
            let name = name.clone();
            head.headers.remove(name);
        }
        head.version = Version::HTTP_2;
        Self { head: Request::from_parts(head, ()), length, named }
    }
}

// === impl Named ===

impl Named {
    const TRACEPARENT: u8 = 1;
    const GRPC_TIMEOUT: u8 = 2;

    pub(super) fn without(self, others: u8) -> Self {
        Self(self.0 & !others)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Lets these fields into HPACK's table.
    pub(super) fn teach(self, headers: &mut HeaderMap) {
        for (bit, name) in [(Self::TRACEPARENT, TRACEPARENT), (Self::GRPC_TIMEOUT, GRPC_TIMEOUT)] {
            if self.0 & bit != 0
                && let Some(value) = headers.get_mut(name)
            {
                value.set_sensitive(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(uri: &str, fields: &[(&'static str, &'static str)]) -> Prepared {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        Prepared::new(request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_head_has_what_http2_can_carry() {
        let fields =
            [("te", "gzip"), ("connection", "close"), ("host", "a"), ("content-length", "7"), ("x", "1")];
        let at = |uri, kept: &[&str]| {
            let Prepared { head, length, named } = prepared(uri, &fields);
            let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, kept, "{uri}");
            assert_eq!((length, named, head.version()), (Some(7), Named(0), Version::HTTP_2));
        };
        at("http://a/", &["content-length", "x"]);
        at("/", &["content-length", "host", "x"]);
    }

    #[test]
    fn only_what_the_table_has_not_seen_goes_into_it() {
        let fields = [("traceparent", "00"), ("grpc-timeout", "1S"), ("authorization", "x")];
        for (seen, sensitive) in [(0, [false, false]), (1, [true, false]), (2, [false, true]), (3, [true; 2])]
        {
            let Prepared { mut head, named, .. } = prepared("/", &fields);
            let new = named.without(seen);
            assert_eq!(new.is_empty(), seen == 3);
            new.teach(head.headers_mut());
            let is_sensitive = |name| head.headers()[name].is_sensitive();
            assert_eq!([TRACEPARENT, GRPC_TIMEOUT].map(is_sensitive), sensitive, "{seen}");
            assert!(is_sensitive("authorization"));
        }
    }
}
