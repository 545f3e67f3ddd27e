//! `envoy.config.core.v3.CidrRange`.

use std::net::IpAddr;

use ipnet::IpNet;

/// A text or length that makes no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCidr {
    /// Not an IP address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The prefix is longer than the address.
    #[error("prefix length {0} is longer than the address")]
    Length(u32),
}

/// The range of an address prefix; the bits below the prefix are ignored, an absent length is 0 (gRFC A36, A41).
///
/// # Errors
/// When the prefix is no IP address, or the length exceeds its bits.
pub fn cidr(prefix: &str, length: Option<u32>) -> Result<IpNet, InvalidCidr> {
    let addr: IpAddr = prefix.parse().map_err(|_| InvalidCidr::Address(prefix.to_owned()))?;
    let length = length.unwrap_or(0);
    let bits = u8::try_from(length).map_err(|_| InvalidCidr::Length(length))?;
    Ok(IpNet::new(addr, bits).map_err(|_| InvalidCidr::Length(length))?.trunc())
}
