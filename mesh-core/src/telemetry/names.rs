//! Names and help texts of metrics. Istio's, so that dashboards and Kiali read them unchanged.

/// Requests, by outcome.
pub const REQUESTS_TOTAL: &str = "istio_requests_total";
/// Duration of requests.
pub const REQUEST_DURATION: &str = "istio_request_duration_milliseconds";
/// Size of requests.
pub const REQUEST_BYTES: &str = "istio_request_bytes";
/// Size of responses.
pub const RESPONSE_BYTES: &str = "istio_response_bytes";

/// Upper bounds of every histogram above (Envoy's, milliseconds and bytes alike).
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
