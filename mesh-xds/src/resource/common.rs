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
use envoy_types::pb::google::protobuf::{self, Any};
use ipnet::IpNet;
use mesh_core::config::endpoints::Address;
use mesh_core::config::units::{BoundedDuration, OutOfRange, PerMillion};
use mesh_core::matcher::cidr::cidr;
use prost::{Message, Name};

use crate::invalid::{Invalid, Place, Reason};

/// An address as the configuration writes it.
pub(super) enum Host {
    /// One that can be connected to as it is.
    Address(Address),
    /// A host name, which DNS resolves.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

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

/// A duration within protobuf's range.
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

/// `FractionalPercent`; an unknown denominator is refused (grpc-xds.md §2.33).
pub(super) fn fraction(pb: FractionalPercent, at: &Place<'_>) -> Result<PerMillion, Invalid> {
    let FractionalPercent { numerator, denominator } = pb;
    let denominator = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return at.at("denominator").fail(Reason::UnknownEnum(denominator)),
    };
    let scaled = u64::from(numerator) * (1_000_000 / denominator);
    // Above one is one, as Envoy reads it.
    let parts = u32::try_from(scaled.min(1_000_000)).unwrap_or(1_000_000);
    at.check(PerMillion::new(parts))
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

/// An address or a host name, with its port.
pub(super) fn host(pb: PbAddress, at: &Place<'_>) -> Result<Host, Invalid> {
    let PbAddress { address } = pb;
    match at.required(address)? {
        PbAddressKind::SocketAddress(socket) => socket_host(socket, &at.at("socket_address")),
        PbAddressKind::Pipe(pipe) => {
            let Pipe { path, mode: _ } = pipe;
            if path.is_empty() {
                return at.at("pipe").at("path").fail(Reason::Empty);
            }
            Ok(Host::Address(Address::Unix(Path::new(&path).into())))
        }
        PbAddressKind::EnvoyInternalAddress(_) => at.at("envoy_internal_address").fail(Reason::Unsupported),
    }
}

fn socket_host(pb: SocketAddress, at: &Place<'_>) -> Result<Host, Invalid> {
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
    Ok(match address.parse::<IpAddr>() {
        Ok(ip) => Host::Address(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) => Host::Name { host: address, port },
    })
}

/// An address that can be connected to without DNS.
pub(super) fn address(pb: PbAddress, at: &Place<'_>) -> Result<Address, Invalid> {
    match host(pb, at)? {
        Host::Address(address) => Ok(address),
        Host::Name { host, .. } => at.at("socket_address").at("address").fail(Reason::NotAnIp(host)),
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
