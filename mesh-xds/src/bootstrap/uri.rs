//! Addresses of control planes, in the forms that bootstrap files hold (gRPC naming, gRFC A27).
//!
//! Bare `host:port` and `dns:///host:port` are the norm, `unix:///path` and `unix:path` are what Istio's agent
//! serves, `http://` and `https://` are accepted because peers in Rust require them. The scheme never chooses the
//! security: `channel_creds` does, and a scheme that contradicts them is an error.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::error::Reason;

/// gRPC's default where a name has no port.
const DEFAULT_PORT: u16 = 443;

/// Where a control plane listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerAddress {
    /// A host name or address, and a port.
    Tcp {
        /// A name to resolve, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix-domain socket.
    Unix(PathBuf),
}

/// The address of a control plane as it was written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUri {
    text: String,
    address: ServerAddress,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Neutral,
    Http,
    Https,
}

// === impl ServerUri ===

impl ServerUri {
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        let (scheme, address) =
            parse(text).map_err(|problem| Reason::Uri { uri: text.to_owned(), problem })?;
        Ok(Self { text: text.to_owned(), address, scheme })
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// The URI as the bootstrap wrote it, for messages.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The `:authority` of requests: host and port; `localhost` over a Unix-domain socket, as gRPC does.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.address {
            ServerAddress::Tcp { host, port } if host.parse::<Ipv6Addr>().is_ok() => {
                format!("[{host}]:{port}")
            }
            ServerAddress::Tcp { host, port } => format!("{host}:{port}"),
            ServerAddress::Unix(_) => "localhost".to_owned(),
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

type HostPort<'a> = (&'a str, Option<&'a str>);
type Parsed = Result<(Scheme, ServerAddress), &'static str>;

fn parse(text: &str) -> Parsed {
    if text.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return Err("it holds white space");
    }
    if let Some(rest) = text.strip_prefix("http://") {
        return Ok((Scheme::Http, host_port(trim_root(rest)?, 80)?));
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return Ok((Scheme::Https, host_port(trim_root(rest)?, 443)?));
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        return Ok((Scheme::Neutral, unix(rest)?));
    }
    if let Some(rest) = text.strip_prefix("dns:") {
        return Ok((Scheme::Neutral, host_port(dns_name(rest)?, DEFAULT_PORT)?));
    }
    for family in ["ipv4:", "ipv6:"] {
        if let Some(rest) = text.strip_prefix(family) {
            return Ok((Scheme::Neutral, host_port(rest, DEFAULT_PORT)?));
        }
    }
    if text.contains("://") {
        return Err("its scheme is not known");
    }
    Ok((Scheme::Neutral, host_port(text, DEFAULT_PORT)?))
}

/// An HTTP address may end in `/`; a path is more than an address can say.
fn trim_root(rest: &str) -> Result<&str, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        Err("only a host and a port may follow the scheme")
    } else {
        Ok(rest)
    }
}

/// `dns:name` or `dns:///name`; the authority between the slashes would name a DNS server.
fn dns_name(rest: &str) -> Result<&str, &'static str> {
    let Some(rest) = rest.strip_prefix("//") else { return Ok(rest) };
    match rest.split_once('/') {
        Some(("", name)) => Ok(name),
        Some(_) => Err("a DNS server of its own (dns://server/name) is not supported"),
        None => Err("dns:// needs a third slash before the name"),
    }
}

/// `unix:path` or `unix:///path`.
fn unix(rest: &str) -> Result<ServerAddress, &'static str> {
    let path = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("unix:// needs an absolute path"),
        None => rest,
    };
    if path.is_empty() {
        Err("the path is empty")
    } else {
        Ok(ServerAddress::Unix(Path::new(path).to_owned()))
    }
}

fn host_port(text: &str, default_port: u16) -> Result<ServerAddress, &'static str> {
    let (host, port) = split_port(text)?;
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("the port is not between 1 and 65535")?,
        Some(_) => return Err("the port is not a number"),
    };
    if host.is_empty() {
        return Err("the host is empty");
    }
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.parse::<IpAddr>().is_err() && !host.bytes().all(is_name_byte) {
        return Err("the host is neither a name nor an IP address");
    }
    Ok(ServerAddress::Tcp { host: host.to_owned(), port })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address.
fn split_port(text: &str) -> Result<HostPort<'_>, &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("the brackets hold no IPv6 address");
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("only a port may follow the bracket"),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    Ok(text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))))
}
