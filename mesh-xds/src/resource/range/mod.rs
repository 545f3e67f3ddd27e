//! Ranges of what is accepted and not applied: a value that no proxy could apply is refused all the same.
//!
//! Durations that are negative or out of range, percentages above 100. What is applied is checked where it is read.

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{RefreshRate, SlowStartConfig};
use envoy_types::pb::envoy::config::core::v3::{HealthCheck, RuntimeFractionalPercent};
use envoy_types::pb::envoy::config::route::v3::retry_policy::RateLimitedRetryBackOff;
use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use envoy_types::pb::envoy::config::route::v3::{HedgePolicy, Tracing as RouteTracing};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig as PolicySlowStart;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::ZoneAwareLbConfig as PolicyZoneAware;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Percent};
use envoy_types::pb::google::protobuf::{Duration, UInt32Value};
use mesh_core::config::units::OutOfRange;

use super::common;
use crate::invalid::{Invalid, Place};

/// A value that has a range of its own.
pub(super) trait Ranged {
    /// Refuses what is out of range, at its field.
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid>;
}

/// Percent as a whole number.
struct Whole<'a>(&'a Option<UInt32Value>);

/// Refuses the first of these fields that is out of range.
pub(super) fn check(fields: &[(&'static str, &dyn Ranged)], at: &Place<'_>) -> Result<(), Invalid> {
    fields.iter().try_for_each(|(field, value)| value.in_range(&at.at(field)))
}

/// A number within these bounds.
pub(super) fn within(value: u32, min: u32, max: u32, at: &Place<'_>) -> Result<u32, Invalid> {
    let out = OutOfRange { value: value.into(), min: min.into(), max: max.into() };
    if (min..=max).contains(&value) { Ok(value) } else { at.fail(out) }
}

/// Names each variable, for [`check`].
macro_rules! ranged {
    ($($field:ident),+ $(,)?) => {
        &[$((stringify!($field), &$field as &dyn $crate::resource::range::Ranged)),+]
    };
}
pub(super) use ranged;

/// Names each field of a message, for [`check`].
macro_rules! ranged_fields {
    ($message:expr, $($field:ident),+ $(,)?) => {
        &[$((stringify!($field), &$message.$field as &dyn Ranged)),+]
    };
}

// === impl Ranged ===

impl<T: Ranged> Ranged for Option<T> {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        self.as_ref().map_or(Ok(()), |value| value.in_range(at))
    }
}

impl<T: Ranged> Ranged for Vec<T> {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        self.iter().enumerate().try_for_each(|(i, value)| value.in_range(&at.index(i)))
    }
}

impl Ranged for Duration {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        common::duration(*self, at).map(|_| ())
    }
}

impl Ranged for Percent {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        common::percent(*self, at).map(|_| ())
    }
}

impl Ranged for Whole<'_> {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        self.0.as_ref().map_or(Ok(()), |n| within(n.value, 0, 100, at).map(|_| ()))
    }
}

impl Ranged for FractionalPercent {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        common::fraction(*self, at).map(|_| ())
    }
}

impl Ranged for RuntimeFractionalPercent {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, default_value), at)
    }
}

impl Ranged for RefreshRate {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, base_interval, max_interval), at)
    }
}

impl Ranged for RateLimitedRetryBackOff {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, max_interval), at)
    }
}

impl Ranged for SlowStartConfig {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, slow_start_window, min_weight_percent), at)
    }
}

impl Ranged for PolicySlowStart {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, slow_start_window, min_weight_percent), at)
    }
}

impl Ranged for ZoneAwareLbConfig {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, routing_enabled), at)
    }
}

impl Ranged for PolicyZoneAware {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, routing_enabled), at)
    }
}

impl Ranged for HealthCheck {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        let fields = ranged_fields!(
            self,
            timeout,
            interval,
            initial_jitter,
            interval_jitter,
            no_traffic_interval,
            no_traffic_healthy_interval,
            unhealthy_interval,
            unhealthy_edge_interval,
            healthy_edge_interval,
        );
        check(fields, at)
    }
}

impl Ranged for OutlierDetection {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(
            ranged_fields!(self, interval, base_ejection_time, max_ejection_time, max_ejection_time_jitter),
            at,
        )?;
        let percents: [(&'static str, &dyn Ranged); 8] = [
            ("max_ejection_percent", &Whole(&self.max_ejection_percent)),
            ("enforcing_consecutive_5xx", &Whole(&self.enforcing_consecutive_5xx)),
            ("enforcing_success_rate", &Whole(&self.enforcing_success_rate)),
            ("enforcing_consecutive_gateway_failure", &Whole(&self.enforcing_consecutive_gateway_failure)),
            (
                "enforcing_consecutive_local_origin_failure",
                &Whole(&self.enforcing_consecutive_local_origin_failure),
            ),
            ("enforcing_local_origin_success_rate", &Whole(&self.enforcing_local_origin_success_rate)),
            ("failure_percentage_threshold", &Whole(&self.failure_percentage_threshold)),
            ("enforcing_failure_percentage", &Whole(&self.enforcing_failure_percentage)),
        ];
        check(&percents, at)?;
        let at = at.at("enforcing_failure_percentage_local_origin");
        Whole(&self.enforcing_failure_percentage_local_origin).in_range(&at)
    }
}

impl Ranged for RouteTracing {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, client_sampling, random_sampling, overall_sampling), at)
    }
}

impl Ranged for Tracing {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, client_sampling, random_sampling, overall_sampling), at)
    }
}

impl Ranged for HedgePolicy {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, additional_request_chance), at)
    }
}

impl Ranged for RequestMirrorPolicy {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, runtime_fraction), at)
    }
}

impl Ranged for FaultDelay {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, percentage), at)?;
        match &self.fault_delay_secifier {
            Some(FaultDelaySecifier::FixedDelay(delay)) => delay.in_range(&at.at("fixed_delay")),
            Some(FaultDelaySecifier::HeaderDelay(_)) | None => Ok(()),
        }
    }
}

impl Ranged for FaultAbort {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, percentage), at)
    }
}

impl Ranged for HttpFault {
    fn in_range(&self, at: &Place<'_>) -> Result<(), Invalid> {
        check(ranged_fields!(self, delay, abort), at)
    }
}

#[cfg(test)]
mod tests;
