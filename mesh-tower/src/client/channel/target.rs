//! What a channel is asked for: `xds:///NAME`, `xds://AUTHORITY/NAME` (gRFC A47) and bare `host:port` go through the mesh,
//! `dns:///host:port` past it.
//!
//! What is written with a scheme is a URI: `%20` is a space. Such a name may hold what a host cannot; virtual hosts are then
//! matched with its percent-encoded form, as in gRPC. Deviation: `:authority` has `_` for `%`, which the `http` crate does
//! not let into an authority, nor most servers.

use std::fmt::Write as _;

use http::uri::Authority;

use crate::error::Error;

/// A target, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetName {
    /// A name that the configuration resolves.
    Mesh {
        /// What the configuration is asked for: the name of a listener, or the whole target where it has an authority.
        name: String,
        /// The authority of requests that name none.
        authority: TargetAuthority,
    },
    /// A direct dial: no routing, no policy, plaintext.
    Dns {
        /// Host and port.
        authority: Authority,
    },
}

/// The authority of requests that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetAuthority {
    sent: Authority,
    /// What virtual hosts are matched with, where it cannot be sent.
    escaped: Option<Box<str>>,
}

// === impl TargetAuthority ===

impl TargetAuthority {
    /// What requests are sent with.
    pub(crate) fn sent(&self) -> &Authority {
        &self.sent
    }

    /// What virtual hosts are matched with.
    pub(crate) fn as_str(&self) -> &str {
        self.escaped.as_deref().unwrap_or_else(|| self.sent.as_str())
    }

    /// Of any text that is not empty.
    fn escaping(host: &str) -> Option<Self> {
        let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]".contains(&byte);
        let mut escaped = String::with_capacity(host.len());
        for byte in host.bytes() {
            match is_kept(byte) {
                true => escaped.push(char::from(byte)),
                // Writing to a String cannot fail.
                false => _ = write!(escaped, "%{byte:02X}"),
            }
        }
        let near = escaped.replace('%', "_");
        let plain = || near.replace(|c: char| !c.is_ascii_alphanumeric() && !".-_".contains(c), "_");
        let sent = Authority::try_from(near.as_str()).or_else(|_| Authority::try_from(plain())).ok()?;
        Some(Self { sent, escaped: Some(escaped.into()) })
    }
}

impl From<Authority> for TargetAuthority {
    fn from(sent: Authority) -> Self {
        Self { sent, escaped: None }
    }
}

// === impl TargetName ===

impl TargetName {
    /// Parses a target.
    ///
    /// # Errors
    /// When it has another scheme, or its host is not valid.
    pub(crate) fn parse(target: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            let next = "use xds:///NAME, xds://AUTHORITY/NAME, host:port or dns:///host:port";
            Error::setup(format!("target {target:?} {why}; {next}"))
        };
        if target.contains(char::is_control) {
            return Err(bad("holds a control character"));
        }
        let (scheme, of_names, path) = match target.split_once("://") {
            None => ("host:port", "", target),
            Some((scheme, rest)) => match rest.split_once('/') {
                // The bootstrap knows who is asked about the names of an authority.
                Some((of_names, path)) if scheme == "xds" || of_names.is_empty() => (scheme, of_names, path),
                Some(_) => return Err(bad("names a server of names, which is not supported")),
                None => return Err(bad("has no path")),
            },
        };
        if path.is_empty() {
            return Err(bad("is empty"));
        }
        if scheme == "xds" {
            let path = decoded(path).ok_or_else(|| bad("is not UTF-8"))?;
            // What follows the last slash stands for the authority, as in gRPC.
            let host = path.rsplit('/').next().unwrap_or(&path);
            let plain = Authority::try_from(host).ok().map(TargetAuthority::from);
            let authority = plain.or_else(|| TargetAuthority::escaping(host));
            let authority = authority.ok_or_else(|| bad("is not a valid host"))?;
            let name = match of_names {
                "" => path,
                of_names => format!("xds://{of_names}/{path}"),
            };
            return Ok(Self::Mesh { name, authority });
        }
        let host = path.rsplit('/').next().unwrap_or(path);
        let authority = Authority::try_from(host).map_err(|_| bad("is not a valid host"))?;
        match scheme {
            "host:port" => Ok(Self::Mesh { name: path.to_owned(), authority: authority.into() }),
            "dns" if authority.port().is_some() => Ok(Self::Dns { authority }),
            "dns" => Err(bad("has no port")),
            _ => Err(bad("has an unknown scheme")),
        }
    }
}

/// Percent-decodes; a `%` that encodes nothing is itself.
fn decoded(text: &str) -> Option<String> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let pair = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        out.push(pair.map_or(*byte, |(high, low)| high * 16 + low));
        rest = if pair.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xds_and_bare_names_go_through_the_mesh_and_dns_past_it() {
        let mesh = |name: &str, authority: &'static str| TargetName::Mesh {
            name: name.to_owned(),
            authority: Authority::from_static(authority).into(),
        };
        for (target, name) in
            [("xds:///shop:80", "shop:80"), ("shop.default:80", "shop.default:80"), ("shop", "shop")]
        {
            assert_eq!(
                TargetName::parse(target).unwrap(),
                mesh(name, Box::leak(name.to_owned().into_boxed_str()))
            );
        }
        assert_eq!(
            TargetName::parse("xds://one/shop:80").unwrap(),
            mesh("xds://one/shop:80", "shop:80"),
            "a name within an authority"
        );
        let direct = TargetName::Dns { authority: Authority::from_static("localhost:80") };
        assert_eq!(TargetName::parse("dns:///localhost:80").unwrap(), direct);
    }

    #[test]
    fn a_name_that_is_no_host_is_escaped_as_grpc_does() {
        for (target, name, matched, sent) in [
            ("xds://a/shop here", "xds://a/shop here", "shop%20here", "shop_20here"),
            ("xds://a/shop%20here", "xds://a/shop here", "shop%20here", "shop_20here"),
            (
                "xds:///outbound|80||shop.svc",
                "outbound|80||shop.svc",
                "outbound%7C80%7C%7Cshop.svc",
                "outbound_7C80_7C_7Cshop.svc",
            ),
            ("xds:///shop here:80", "shop here:80", "shop%20here:80", "shop_20here:80"),
            ("xds://a/ns/läden", "xds://a/ns/läden", "l%C3%A4den", "l_C3_A4den"),
            ("xds://a/x#y?z", "xds://a/x#y?z", "x%23y%3Fz", "x_23y_3Fz"),
            ("xds:///100%", "100%", "100%25", "100_25"),
            ("xds:///[a b", "[a b", "[a%20b", "_a_20b"),
            ("xds:///a%2Fb", "a/b", "b", "b"),
        ] {
            let TargetName::Mesh { name: found, authority } = TargetName::parse(target).unwrap() else {
                panic!("{target}")
            };
            assert_eq!(
                (found.as_str(), authority.as_str(), authority.sent().as_str()),
                (name, matched, sent)
            );
        }
    }

    #[test]
    fn a_bad_target_says_what_would_be_good() {
        for bad in [
            "",
            "xds:///",
            "xds://one/",
            "dns://server/shop:80",
            "ftp:///shop",
            "dns:///shop",
            "shop here",
            "xds:///a\nb",
            "xds:///%FF",
        ] {
            let error = TargetName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("xds:///NAME"), "{error}");
        }
    }
}
