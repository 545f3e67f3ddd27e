//! `envoy.filters.http.router`: the terminal filter. None of its options decides who may talk.
#![expect(deprecated, reason = "deprecated fields must be decided as well")]

use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;

use crate::invalid::{Invalid, Place, Reason, fields};

/// Accepts a router; its options are listed as not applied.
pub(super) fn validate(pb: Router, at: &Place<'_>) -> Result<(), Invalid> {
    let Router {
        dynamic_stats: _,
        start_child_span: _, // attempts always have a span of their own
        upstream_log,
        upstream_log_options: _,   // of `upstream_log`
        suppress_envoy_headers: _, // none are added
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats: _,
        upstream_http_filters,
        reject_connect_request_early_data: _, // CONNECT is not served
    } = pb;
    // A filter that is not known could be the one that keeps somebody out, here as well.
    if !upstream_http_filters.is_empty() {
        return at.at("upstream_http_filters").fail(Reason::Unsupported);
    }
    at.unapplied_if(fields![upstream_log, strict_check_headers, respect_expected_rq_timeout]);
    Ok(())
}
