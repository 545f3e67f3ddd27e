//! Which balancing policy a cluster has: `load_balancing_policy`, else `lb_policy` (gRFC A42, A48, A52).

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy as PbLbPolicy, LeastRequestLbConfig, RoundRobinLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::LocalityLbConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::LocalityConfigSpecifier;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::least_request::SelectionMethod;
use envoy_types::pb::envoy::extensions::load_balancing_policies::random::v3::Random;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use mesh_core::config::cluster::LbPolicy;
use mesh_core::config::units::OutOfRange;

use super::super::common::{is_type, unpack};
use super::super::range::{self, Ranged as _, ranged};
use crate::invalid::{Invalid, Place, Reason, fields};

/// How deep policies may be nested (gRFC A52).
const MAX_DEPTH: usize = 16;

/// `choice_count` where it is not set, and its ceiling (gRFC A48).
const DEFAULT_CHOICES: u8 = 2;
const MAX_CHOICES: u8 = 10;

/// A balancing policy.
pub(super) struct Lb {
    pub(super) policy: LbPolicy,
    pub(super) locality_weighted: bool,
}

/// `lb_policy` with its options. Round robin is weighted by locality (gRFC A42: `wrr_locality` around it).
pub(super) fn by_enum(policy: i32, options: Option<LbConfig>, at: &Place<'_>) -> Result<Lb, Invalid> {
    let policy_at = at.at("lb_policy");
    let policy = match PbLbPolicy::try_from(policy) {
        Ok(PbLbPolicy::RoundRobin) => {
            if let Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config })) = options {
                let at = at.at("round_robin_lb_config");
                range::check(ranged![slow_start_config], &at)?;
                at.unapplied_if(fields![slow_start_config]);
            }
            return Ok(Lb { policy: LbPolicy::RoundRobin, locality_weighted: true });
        }
        Ok(PbLbPolicy::Random) => LbPolicy::Random,
        Ok(PbLbPolicy::LeastRequest) => {
            let options = match options {
                Some(LbConfig::LeastRequestLbConfig(options)) => options,
                _ => LeastRequestLbConfig::default(),
            };
            let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = options;
            let at = at.at("least_request_lb_config");
            range::check(ranged![slow_start_config], &at)?;
            at.unapplied_if(fields![active_request_bias, slow_start_config]);
            LbPolicy::LeastRequest { choices: choices(choice_count, &at)? }
        }
        Ok(PbLbPolicy::LoadBalancingPolicyConfig) => {
            return at.at("load_balancing_policy").fail(Reason::Missing);
        }
        Ok(other @ (PbLbPolicy::RingHash | PbLbPolicy::Maglev | PbLbPolicy::ClusterProvided)) => {
            return policy_at.fail(Reason::UnsupportedValue(other.as_str_name().to_owned()));
        }
        Err(_) => return policy_at.fail(Reason::UnknownEnum(policy)),
    };
    Ok(Lb { policy, locality_weighted: false })
}

/// The first policy of the list that is implemented.
pub(super) fn policy(pb: LoadBalancingPolicy, depth: usize, at: &Place<'_>) -> Result<Lb, Invalid> {
    if depth >= MAX_DEPTH {
        return at.fail(Reason::TooMany(MAX_DEPTH));
    }
    let LoadBalancingPolicy { policies } = pb;
    let at = at.at("policies");
    let mut refused = String::new();
    for (i, Policy { typed_extension_config }) in policies.into_iter().enumerate() {
        let at = at.index(i);
        let at = at.at("typed_extension_config");
        let TypedExtensionConfig { name: _, typed_config } = at.required(typed_extension_config)?;
        let at = at.at("typed_config");
        let any = at.required(typed_config)?;
        match typed(&any, depth, &at)? {
            Some(lb) => return Ok(lb),
            None => refused = any.type_url,
        }
    }
    if refused.is_empty() { at.fail(Reason::Empty) } else { at.fail(Reason::UnsupportedExtension(refused)) }
}

fn typed(any: &Any, depth: usize, at: &Place<'_>) -> Result<Option<Lb>, Invalid> {
    if is_type::<RoundRobin>(any) {
        let RoundRobin { slow_start_config, locality_lb_config } = unpack(any, at)?;
        range::check(ranged![slow_start_config], at)?;
        at.unapplied_if(fields![slow_start_config]);
        let locality_weighted = weighted(locality_lb_config, at)?;
        return Ok(Some(Lb { policy: LbPolicy::RoundRobin, locality_weighted }));
    }
    if is_type::<Random>(any) {
        let Random { locality_lb_config } = unpack(any, at)?;
        let locality_weighted = weighted(locality_lb_config, at)?;
        return Ok(Some(Lb { policy: LbPolicy::Random, locality_weighted }));
    }
    if is_type::<LeastRequest>(any) {
        let LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = unpack(any, at)?;
        range::check(ranged![slow_start_config], at)?;
        at.unapplied_if(fields![active_request_bias, slow_start_config, enable_full_scan]);
        if selection_method != SelectionMethod::NChoices as i32 {
            at.at("selection_method").unapplied();
        }
        let policy = LbPolicy::LeastRequest { choices: choices(choice_count, at)? };
        return Ok(Some(Lb { policy, locality_weighted: weighted(locality_lb_config, at)? }));
    }
    if is_type::<WrrLocality>(any) {
        let WrrLocality { endpoint_picking_policy } = unpack(any, at)?;
        let at = at.at("endpoint_picking_policy");
        let inner = policy(at.required(endpoint_picking_policy)?, depth + 1, &at)?;
        return Ok(Some(Lb { policy: inner.policy, locality_weighted: true }));
    }
    Ok(None)
}

fn weighted(pb: Option<LocalityLbConfig>, at: &Place<'_>) -> Result<bool, Invalid> {
    let Some(LocalityLbConfig { locality_config_specifier }) = pb else { return Ok(false) };
    Ok(match locality_config_specifier {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(pb)) => {
            let at = at.at("locality_lb_config");
            let at = at.at("zone_aware_lb_config");
            pb.in_range(&at)?;
            at.unapplied();
            false
        }
        None => false,
    })
}

/// At least 2; above the ceiling the ceiling counts.
fn choices(pb: Option<UInt32Value>, at: &Place<'_>) -> Result<u8, Invalid> {
    let Some(UInt32Value { value }) = pb else { return Ok(DEFAULT_CHOICES) };
    if value < DEFAULT_CHOICES.into() {
        let reason = OutOfRange { value: value.into(), min: DEFAULT_CHOICES.into(), max: u32::MAX.into() };
        return at.at("choice_count").fail(reason);
    }
    Ok(u8::try_from(value).unwrap_or(MAX_CHOICES).min(MAX_CHOICES))
}
