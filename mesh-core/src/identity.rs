//! Identities: SPIFFE ids and the peer of a connection. Certificates are read elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::chain::Ends;
use crate::config::endpoints::Address;

/// A SPIFFE id: `spiffe://trust-domain/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    domain_end: usize,
}

/// A text that is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE id: {reason}")]
pub struct InvalidSpiffeId {
    reason: &'static str,
}

/// Who is at the other end of a connection: what TLS proved, nothing that a header claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The peer's socket address; none over a unix-domain socket.
    pub remote: Option<SocketAddr>,
    /// Our own socket address; none over a unix-domain socket.
    pub local: Option<SocketAddr>,
    /// Over a unix-domain socket, the address that we listen on: a path or, after an `@`, an abstract name.
    pub unix: Option<Arc<Path>>,
    /// None for plaintext.
    pub tls: Option<Arc<TlsPeer>>,
}

/// What TLS says of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsPeer {
    /// The names of a verified certificate; none if the peer showed no certificate.
    pub certificate: Option<CertificateNames>,
    /// Server name that the peer asked for.
    pub server_name: Option<Arc<str>>,
}

/// The names in a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateNames {
    /// URI names.
    pub uris: Vec<Arc<str>>,
    /// DNS names.
    pub dns: Vec<Arc<str>>,
    /// Subject in RFC 2253 form.
    pub subject: Arc<str>,
    /// The SPIFFE id, if the certificate has exactly one URI name and it is one.
    pub spiffe: Option<SpiffeId>,
}

// === impl SpiffeId ===

impl SpiffeId {
    /// Longest id, in bytes.
    pub const MAX_BYTES: usize = 2048;

    /// Reads an id.
    ///
    /// # Errors
    /// When it breaks a rule of the SPIFFE ID specification, which the error names.
    pub fn parse(text: &str) -> Result<Self, InvalidSpiffeId> {
        let bad = |reason| Err(InvalidSpiffeId { reason });
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return bad("it does not begin with spiffe://");
        };
        if text.len() > Self::MAX_BYTES {
            return bad("it is longer than 2048 bytes");
        }
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if domain.is_empty() || domain.len() > 255 {
            return bad("its trust domain is empty or longer than 255 bytes");
        }
        if !domain.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')) {
            return bad("its trust domain holds a character other than a-z, 0-9, dot, dash and underscore");
        }
        if !path.is_empty() {
            let segment_ok = |s: &str| {
                !matches!(s, "" | "." | "..")
                    && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            };
            if !path.split('/').skip(1).all(segment_ok) {
                return bad("its path has an empty or relative segment, or a character that is not allowed");
            }
        }
        Ok(Self { text: text.into(), domain_end: "spiffe://".len() + domain.len() })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text.get("spiffe://".len()..self.domain_end).unwrap_or_default()
    }

    /// The path, with its leading slash; empty for the id of a trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.domain_end..).unwrap_or_default()
    }

    /// The namespace of an Istio id, `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        let mut parts = self.path().split('/').skip(1);
        (parts.next() == Some("ns")).then(|| parts.next()).flatten()
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Peer ===

impl Peer {
    /// The SPIFFE id that TLS proved.
    #[must_use]
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        self.certificate()?.spiffe.as_ref()
    }

    /// What its filter chain is chosen by.
    #[must_use]
    pub fn ends(&self) -> Ends {
        match (self.local, self.remote) {
            (Some(local), Some(remote)) => Ends::Ip { local, remote },
            _ => Ends::Unix,
        }
    }

    /// Our address, for logs.
    #[must_use]
    pub fn local_address(&self) -> Option<Address> {
        self.local.map(Address::Socket).or_else(|| self.unix.clone().map(Address::Unix))
    }

    /// The address that the peer comes from, for logs. Peers of a unix-domain socket hardly ever have one of their own,
    /// and what they bind to proves nothing: as in Envoy it is that of the socket they came to.
    #[must_use]
    pub fn remote_address(&self) -> Option<Address> {
        self.remote.map(Address::Socket).or_else(|| self.unix.clone().map(Address::Unix))
    }

    /// The names of the verified certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateNames> {
        self.tls.as_ref()?.certificate.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\Aspiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*\z").expect("a valid pattern")
    });

    #[test]
    fn an_id_is_read_into_trust_domain_and_path() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/reviews").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("cluster.local", "/ns/shop/sa/reviews"));
        assert_eq!(id.namespace(), Some("shop"));
        let domain = SpiffeId::parse("spiffe://cluster.local").unwrap();
        assert_eq!((domain.path(), domain.namespace()), ("", None));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for bad in [
            "https://td/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/a/",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://td/a?b",
            "spiffe://user@td/a",
            "spiffe://td:80/a",
            "spiffe://td/%41",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://td/{}", "a".repeat(2048))).is_err());
    }

    proptest! {
        #[test]
        fn an_id_is_accepted_exactly_if_the_grammar_says_so(
            text in prop_oneof![
                "spiffe://[a-zA-Z0-9._:@%-]{0,12}(/[a-zA-Z0-9._%?-]{0,4}){0,4}",
                "spiffe://[a-z.]{1,8}(/(\\.{0,3}|[A-Za-z0-9_-]{1,3})){0,3}",
                "(spiffe|SPIFFE|https)?(:|://|:///)?\\PC{0,20}",
                "spiffe://[a-z]{250,260}/[a-z]{0,3}",
                "spiffe://td/[a-z]{2030,2040}",
            ],
        ) {
            let relative = text.split('/').skip(3).any(|s| s == "." || s == "..");
            let valid = GRAMMAR.is_match(&text) && !relative && text.len() <= SpiffeId::MAX_BYTES;
            let id = SpiffeId::parse(&text);
            prop_assert_eq!(id.is_ok(), valid, "{}", text);
            if let Ok(id) = id {
                let whole = format!("spiffe://{}{}", id.trust_domain(), id.path());
                prop_assert_eq!(&whole, &text);
                prop_assert_eq!(id.as_str(), &text);
                prop_assert!(id.path().is_empty() || id.path().starts_with('/'));
            }
        }
    }
}
