//! `envoy.config.route.v3.RetryPolicy` (gRFC A44, Envoy).

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::RetryPolicy as PbRetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::RetryBackOff;
use http::StatusCode;
use mesh_core::config::retry::{BackOffConfig, RetryOn, RetryPolicy};
use mesh_core::config::units::OutOfRange;

use super::common::{duration, timeout_opt};
use super::range::ranged;
use super::{matcher, range};
use crate::invalid::{Invalid, Place, Reason, fields};

/// Back-off steps below this are raised to it (gRFC A44).
const MIN_BACK_OFF: Duration = Duration::from_millis(1);

/// A retry policy. One whose conditions are all unknown still counts: it overrides the virtual host's.
pub(super) fn policy(pb: PbRetryPolicy, at: &Place<'_>) -> Result<RetryPolicy, Invalid> {
    let PbRetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = pb;
    at.unapplied_if(fields![
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        rate_limited_retry_back_off,
        retriable_request_headers,
        refresh_cluster_on_retry,
    ]);
    range::check(ranged![per_try_idle_timeout, rate_limited_retry_back_off], at)?;
    let num_retries = match num_retries.map(|n| n.value) {
        None => RetryPolicy::default().num_retries,
        Some(0) => {
            let reason = OutOfRange { value: 0, min: 1, max: u32::MAX.into() };
            return at.at("num_retries").fail(reason);
        }
        Some(n) => n,
    };
    let per_try_timeout = timeout_opt(per_try_timeout, &at.at("per_try_timeout"))?;
    let codes_at = at.at("retriable_status_codes");
    let codes = retriable_status_codes.into_iter().enumerate().map(|(i, code)| {
        let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let out = OutOfRange { value: code.into(), min: 100, max: 999 };
        codes_at.index(i).check(status.ok_or(out))
    });
    Ok(RetryPolicy {
        on: RetryOn::parse(&retry_on),
        num_retries,
        // Zero is none, as for every timeout of Envoy's.
        per_try_timeout: per_try_timeout.filter(|d| !d.is_zero()),
        back_off: retry_back_off
            .map_or_else(|| Ok(BackOffConfig::default()), |pb| back_off(pb, &at.at("retry_back_off")))?,
        retriable_status_codes: codes.collect::<Result<_, _>>()?,
        retriable_headers: matcher::headers(retriable_headers, &at.at("retriable_headers"))?,
    })
}

fn back_off(pb: RetryBackOff, at: &Place<'_>) -> Result<BackOffConfig, Invalid> {
    let RetryBackOff { base_interval, max_interval } = pb;
    let positive = |pb, at: &Place<'_>| match duration(pb, at)? {
        Duration::ZERO => at.fail(Reason::Rule("must be more than 0")),
        given => Ok(given.max(MIN_BACK_OFF)),
    };
    let base_at = at.at("base_interval");
    let base = positive(base_at.required(base_interval)?, &base_at)?;
    let max = match max_interval {
        None => base.saturating_mul(10),
        Some(pb) => positive(pb, &at.at("max_interval"))?,
    };
    if max < base {
        return at.at("max_interval").fail(Reason::Rule("must not be less than base_interval"));
    }
    Ok(BackOffConfig { base, max })
}

#[cfg(test)]
mod tests;
