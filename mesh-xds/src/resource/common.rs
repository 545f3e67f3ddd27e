//! The small messages that every resource uses: durations, percentages, addresses, `Any`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use envoy_types::pb::envoy::config::core::v3::{
    Address as PbAddress, CidrRange, ConfigSource, Pipe, RuntimeFractionalPercent, SocketAddress,
};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Percent as PbPercent};
use envoy_types::pb::google::protobuf::{self, Any, UInt32Value};
use ipnet::IpNet;
use mesh_core::config::endpoints::Address;
use mesh_core::config::units::{BoundedDuration, OutOfRange, PerMillion};
use mesh_core::matcher::cidr::cidr;
use prost::{Message, Name};

use super::range;
use crate::invalid::{Invalid, Place, Reason};

/// Longest path of a unix-domain socket: `sun_path` without the NUL that ends it.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Least window of HTTP/2, which is also its default.
pub(super) const MIN_WINDOW: u32 = 65_535;

/// The message in an `Any`, which must be of the given type.
pub(super) fn unpack<M: Message + Default + Name>(any: &Any, at: &Place<'_>) -> Result<M, Invalid> {
    if !is_type::<M>(any) {
        return at.fail(Reason::WrongType { expected: M::NAME, actual: any.type_url.clone() });
    }
    at.check(M::decode(any.value.as_slice()).map_err(Reason::Decode))
}

/// Whether an `Any` holds a message of the given type. Only the part after the last `/` counts.
pub(super) fn is_type<M: Name>(any: &Any) -> bool {
    type_name(any) == M::full_name()
}

/// The full name of the message in an `Any`.
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name)
}

/// A duration that is not negative, and whose nanoseconds Envoy can count.
pub(super) fn duration(pb: protobuf::Duration, at: &Place<'_>) -> Result<Duration, Invalid> {
    let protobuf::Duration { seconds, nanos } = pb;
    Ok(at.check(BoundedDuration::from_parts(seconds, nanos))?.get())
}

/// A duration that may be absent.
pub(super) fn duration_opt(
    pb: Option<protobuf::Duration>,
    at: &Place<'_>,
) -> Result<Option<Duration>, Invalid> {
    pb.map(|pb| duration(pb, at)).transpose()
}

/// A timeout, where Envoy counts whole milliseconds and 0 is none: less than one is 0.
pub(super) fn timeout_opt(
    pb: Option<protobuf::Duration>,
    at: &Place<'_>,
) -> Result<Option<Duration>, Invalid> {
    let whole = |d: Duration| if d < Duration::from_millis(1) { Duration::ZERO } else { d };
    Ok(duration_opt(pb, at)?.map(whole))
}

/// A text that becomes the value of a header: Envoy's `HTTP_HEADER_VALUE`.
pub(super) fn header_value(text: &str, at: &Place<'_>) -> Result<(), Invalid> {
    match text.contains(['\0', '\r', '\n']) {
        true => at.fail(Reason::Text { value: text.to_owned(), rule: "must not hold a line break or a NUL" }),
        false => Ok(()),
    }
}

/// The name of a header that is to be read.
pub(super) fn header_name(text: &str, at: &Place<'_>) -> Result<(), Invalid> {
    match text.strip_prefix(':').unwrap_or(text).parse::<http::HeaderName>() {
        Ok(_) => Ok(()),
        Err(_) => at.fail(Reason::HeaderName(text.to_owned())),
    }
}

/// Sizes of HTTP/2, with the least of each: what fits into a SETTINGS frame (RFC 9113 §6.5.2; Envoy).
pub(super) fn http2_sizes(
    sizes: [(&'static str, u32, &Option<UInt32Value>); 3],
    at: &Place<'_>,
) -> Result<(), Invalid> {
    sizes.into_iter().try_for_each(|(field, min, value)| match value {
        Some(value) => range::within(value.value, min, i32::MAX.unsigned_abs(), &at.at(field)).map(|_| ()),
        None => Ok(()),
    })
}

/// `FractionalPercent`; an unknown denominator is refused, as in gRPC, and more than the whole.
pub(super) fn fraction(pb: FractionalPercent, at: &Place<'_>) -> Result<PerMillion, Invalid> {
    let FractionalPercent { numerator, denominator } = pb;
    let denominator: u32 = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return at.at("denominator").fail(Reason::UnknownEnum(denominator)),
    };
    let numerator = range::within(numerator, 0, denominator, &at.at("numerator"))?;
    at.check(PerMillion::new(numerator * (1_000_000 / denominator)))
}

/// `RuntimeFractionalPercent`: its default, since there is no runtime that could override it.
pub(super) fn runtime_fraction(pb: &RuntimeFractionalPercent, at: &Place<'_>) -> Result<PerMillion, Invalid> {
    let RuntimeFractionalPercent { default_value, runtime_key: _ } = pb;
    let at = at.at("default_value");
    fraction(at.required(*default_value)?, &at)
}

/// `Percent`, checked to be a number within 0..=100.
pub(super) fn percent(pb: PbPercent, at: &Place<'_>) -> Result<f64, Invalid> {
    let PbPercent { value } = pb;
    if (0.0..=100.0).contains(&value) {
        Ok(value)
    } else {
        at.at("value").fail(Reason::Percent(value.to_string()))
    }
}

/// `CidrRange`.
pub(super) fn cidr_range(pb: CidrRange, at: &Place<'_>) -> Result<IpNet, Invalid> {
    let CidrRange { address_prefix, prefix_len } = pb;
    at.check(cidr(&address_prefix, prefix_len.map(|len| len.value)))
}

/// A port.
pub(super) fn port(value: u32, at: &Place<'_>) -> Result<u16, Invalid> {
    let out = OutOfRange { value: value.into(), min: 0, max: u16::MAX.into() };
    at.check(u16::try_from(value).map_err(|_| out))
}

/// An address that can be connected to without DNS.
pub(super) fn address(pb: PbAddress, at: &Place<'_>) -> Result<Address, Invalid> {
    let PbAddress { address } = pb;
    match at.required(address)? {
        PbAddressKind::SocketAddress(socket) => socket_address(socket, &at.at("socket_address")),
        PbAddressKind::Pipe(pipe) => {
            let Pipe { path, mode: _ } = pipe;
            socket_path(&path, &at.at("pipe").at("path"))?;
            Ok(Address::Unix(Path::new(&path).into()))
        }
        PbAddressKind::EnvoyInternalAddress(_) => at.at("envoy_internal_address").fail(Reason::Unsupported),
    }
}

/// A path that a socket's address has room for.
fn socket_path(path: &str, at: &Place<'_>) -> Result<(), Invalid> {
    if path.is_empty() {
        return at.fail(Reason::Empty);
    }
    if path.contains('\0') {
        return at.fail(Reason::Text { value: path.to_owned(), rule: "must not hold a NUL" });
    }
    if path.len() > MAX_SOCKET_PATH_BYTES {
        return at.fail(Reason::TooLarge { size: path.len(), limit: MAX_SOCKET_PATH_BYTES });
    }
    Ok(())
}

fn socket_address(pb: SocketAddress, at: &Place<'_>) -> Result<Address, Invalid> {
    let SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = pb;
    if protocol != Protocol::Tcp as i32 {
        return at.at("protocol").fail(Reason::Unsupported);
    }
    if !resolver_name.is_empty() {
        return at.at("resolver_name").fail(Reason::Unsupported);
    }
    if !network_namespace_filepath.is_empty() {
        return at.at("network_namespace_filepath").fail(Reason::Unsupported);
    }
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(value)) => port(value, &at.at("port_value"))?,
        Some(PortSpecifier::NamedPort(_)) => return at.at("named_port").fail(Reason::Unsupported),
        None => return at.at("port_value").fail(Reason::Missing),
    };
    if address.is_empty() {
        return at.at("address").fail(Reason::Empty);
    }
    match address.parse::<IpAddr>() {
        Ok(ip) => Ok(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) => at.at("address").fail(Reason::NotAnIp(address)),
    }
}

/// A config source must be the stream that the resource itself came over (gRFC A27).
pub(super) fn ads_source(pb: Option<ConfigSource>, at: &Place<'_>) -> Result<(), Invalid> {
    let ConfigSource {
        authorities,
        initial_fetch_timeout: _,
        resource_api_version: _,
        config_source_specifier,
    } = at.required(pb)?;
    if !authorities.is_empty() {
        at.at("authorities").unapplied();
    }
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        Some(_) => at.fail(Reason::Rule("must be `ads` or `self`")),
        None => at.fail(Reason::Missing),
    }
}
