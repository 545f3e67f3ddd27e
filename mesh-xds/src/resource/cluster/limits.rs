//! `CircuitBreakers` (gRFC A32, A105; Envoy): the `DEFAULT` priority counts, others are listed as not applied.

use std::num::NonZeroU32;

use envoy_types::pb::envoy::config::cluster::v3::CircuitBreakers;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget as PbRetryBudget;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::google::protobuf::UInt32Value;
use mesh_core::config::cluster::{BreakerConfig, RetryBudget};
use mesh_core::config::units::{Limit, OutOfRange, PerMillion};

use super::super::common::percent;
use super::super::range::{self, ranged};
use crate::invalid::{Invalid, Place, Reason, fields};

/// Envoy's defaults of a retry budget.
const DEFAULT_BUDGET_PERCENT: f64 = 20.0;
const DEFAULT_MIN_RETRY_CONCURRENCY: u32 = 3;

/// The limits of a cluster; the first entry of the `DEFAULT` priority counts.
pub(super) fn breakers(pb: Option<CircuitBreakers>, at: &Place<'_>) -> Result<BreakerConfig, Invalid> {
    let Some(CircuitBreakers { thresholds, per_host_thresholds }) = pb else {
        return Ok(BreakerConfig::default());
    };
    let mut config = match default_priority(thresholds, &at.at("thresholds"))? {
        Some((i, pb)) => whole_cluster(pb, &at.at("thresholds").index(i))?,
        None => BreakerConfig::default(),
    };
    let at = at.at("per_host_thresholds");
    if let Some((i, pb)) = default_priority(per_host_thresholds, &at)? {
        config.max_connections_per_endpoint = per_endpoint(pb, &at.index(i))?;
    }
    Ok(config)
}

fn default_priority(list: Vec<Thresholds>, at: &Place<'_>) -> Result<Option<(usize, Thresholds)>, Invalid> {
    let mut found = None;
    for (i, pb) in list.into_iter().enumerate() {
        match RoutingPriority::try_from(pb.priority) {
            Ok(RoutingPriority::Default) if found.is_none() => found = Some((i, pb)),
            Ok(RoutingPriority::Default | RoutingPriority::High) => at.index(i).unapplied(),
            Err(_) => return at.index(i).at("priority").fail(Reason::UnknownEnum(pb.priority)),
        }
    }
    Ok(found)
}

fn whole_cluster(pb: Thresholds, at: &Place<'_>) -> Result<BreakerConfig, Invalid> {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining: _,
        max_connection_pools,
    } = pb;
    at.unapplied_if(fields![max_connection_pools]);
    let default = BreakerConfig::default();
    let limit = |pb: Option<UInt32Value>, default| pb.map_or(default, |n| Limit::new(n.value));
    Ok(BreakerConfig {
        max_connections: limit(max_connections, default.max_connections),
        max_pending_requests: limit(max_pending_requests, default.max_pending_requests),
        max_requests: limit(max_requests, default.max_requests),
        max_retries: limit(max_retries, default.max_retries),
        retry_budget: retry_budget.map(|pb| budget(pb, &at.at("retry_budget"))).transpose()?,
        max_connections_per_endpoint: None,
    })
}

fn per_endpoint(pb: Thresholds, at: &Place<'_>) -> Result<Option<NonZeroU32>, Invalid> {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining: _,
        max_connection_pools,
    } = pb;
    at.unapplied_if(fields![
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        max_connection_pools
    ]);
    if let Some(pb) = retry_budget {
        budget(pb, &at.at("retry_budget"))?;
    }
    let Some(UInt32Value { value }) = max_connections else { return Ok(None) };
    let out = OutOfRange { value: value.into(), min: 1, max: u32::MAX.into() };
    at.at("max_connections").check(NonZeroU32::new(value).ok_or(out)).map(Some)
}

fn budget(pb: PbRetryBudget, at: &Place<'_>) -> Result<RetryBudget, Invalid> {
    let PbRetryBudget { budget_percent, budget_interval, min_retry_concurrency } = pb;
    at.unapplied_if(fields![budget_interval]);
    range::check(ranged![budget_interval], at)?;
    let at = at.at("budget_percent");
    let percent = budget_percent.map_or(Ok(DEFAULT_BUDGET_PERCENT), |pb| percent(pb, &at))?;
    let min = min_retry_concurrency.map_or(DEFAULT_MIN_RETRY_CONCURRENCY, |n| n.value);
    Ok(RetryBudget {
        budget: at.check(PerMillion::new((percent * 10_000.0).round() as u32))?,
        min_retry_concurrency: Limit::new(min),
    })
}
