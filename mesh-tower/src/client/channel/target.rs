//! What a channel is asked for: `xds:///NAME`, `xds://AUTHORITY/NAME` (gRFC A47) and bare `host:port` go through the mesh,
//! `dns:///host:port` past it.

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
        authority: Authority,
    },
    /// A direct dial: no routing, no policy, plaintext.
    Dns {
        /// Host and port.
        authority: Authority,
    },
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
        let (scheme, name, rest) = match target.split_once("://") {
            None => ("xds", target, target),
            Some((scheme, rest)) => match rest.split_once('/') {
                Some(("", path)) => (scheme, path, path),
                // The bootstrap knows who is asked about the names of an authority.
                Some((_, path)) if scheme == "xds" => (scheme, target, path),
                Some(_) => return Err(bad("names a server of names, which is not supported")),
                None => return Err(bad("has no path")),
            },
        };
        if rest.is_empty() {
            return Err(bad("is empty"));
        }
        // A name may hold what an authority cannot; what follows the last slash then stands for it, as in gRPC.
        let host = rest.rsplit('/').next().unwrap_or(rest);
        let authority = Authority::try_from(host).map_err(|_| bad("is not a valid host"))?;
        match scheme {
            "xds" => Ok(Self::Mesh { name: name.to_owned(), authority }),
            "dns" if authority.port().is_some() => Ok(Self::Dns { authority }),
            "dns" => Err(bad("has no port")),
            _ => Err(bad("has an unknown scheme")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xds_and_bare_names_go_through_the_mesh_and_dns_past_it() {
        let mesh = |name: &str, authority: &'static str| TargetName::Mesh {
            name: name.to_owned(),
            authority: Authority::from_static(authority),
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
    fn a_bad_target_says_what_would_be_good() {
        for bad in
            ["", "xds:///", "xds://one/", "dns://server/shop:80", "ftp:///shop", "dns:///shop", "shop here"]
        {
            let error = TargetName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("xds:///NAME"), "{error}");
        }
    }
}
