//! Names and help texts of metrics. Istio's, so that dashboards and Kiali read them unchanged.

/// Requests, by outcome.
pub const REQUESTS_TOTAL: &str = "istio_requests_total";
/// Help text of [`REQUESTS_TOTAL`].
pub const REQUESTS_TOTAL_HELP: &str = "Requests, by how they ended.";
/// Duration of requests.
pub const REQUEST_DURATION: &str = "istio_request_duration_milliseconds";
/// Help text of [`REQUEST_DURATION`].
pub const REQUEST_DURATION_HELP: &str =
    "Time from the arrival of a request to the end of its response, in milliseconds.";
/// Size of requests.
pub const REQUEST_BYTES: &str = "istio_request_bytes";
/// Help text of [`REQUEST_BYTES`].
pub const REQUEST_BYTES_HELP: &str = "Size of requests, headers and body, in bytes.";
/// Size of responses.
pub const RESPONSE_BYTES: &str = "istio_response_bytes";
/// Help text of [`RESPONSE_BYTES`].
pub const RESPONSE_BYTES_HELP: &str = "Size of responses, headers and body, in bytes.";

/// Fields of the configuration in use that have no effect.
pub const CONFIG_UNAPPLIED_FIELDS: &str = "mesh_config_unapplied_fields";
/// Help text of [`CONFIG_UNAPPLIED_FIELDS`].
pub const CONFIG_UNAPPLIED_FIELDS_HELP: &str =
    "Fields of the configuration in use that are set and have no effect, because they are not implemented.";

/// Resources that are refused as they are now.
pub const CONFIG_REFUSED_RESOURCES: &str = "mesh_config_refused_resources";
/// Help text of [`CONFIG_REFUSED_RESOURCES`].
pub const CONFIG_REFUSED_RESOURCES_HELP: &str = "Resources that are wanted and refused as the control plane has them now; a last good value may serve meanwhile.";

/// Resources in use that are those of an earlier run.
pub const CONFIG_RESTORED_RESOURCES: &str = "mesh_config_restored_resources";
/// Help text of [`CONFIG_RESTORED_RESOURCES`].
pub const CONFIG_RESTORED_RESOURCES_HELP: &str =
    "Resources in use that are those of an earlier run, because no control plane has answered for them yet.";

/// Connections that a server closed before their first request.
pub const CONNECTIONS_REFUSED: &str = "mesh_connections_refused_total";
/// Help text of [`CONNECTIONS_REFUSED`].
pub const CONNECTIONS_REFUSED_HELP: &str =
    "Connections that a server closed before their first request, by reason.";

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

/// Names of span attributes: OpenTelemetry's where it has one, else Envoy's, else ours under `mesh.`.
pub mod attribute {
    /// HTTP method.
    pub const METHOD: &str = "http.request.method";
    /// Path without the query.
    pub const PATH: &str = "url.path";
    /// HTTP status; 0 without a response.
    pub const STATUS: &str = "http.response.status_code";
    /// `grpc` for gRPC requests.
    pub const RPC_SYSTEM: &str = "rpc.system";
    /// gRPC status code.
    pub const GRPC_STATUS: &str = "rpc.grpc.status_code";
    /// Attempts before this one (gRFC A72).
    pub const PREVIOUS_ATTEMPTS: &str = "previous-rpc-attempts";
    /// Envoy's response flags.
    pub const RESPONSE_FLAGS: &str = "response_flags";
    /// Envoy's response code details.
    pub const DETAILS: &str = "response_code_details";
    /// Cluster that the route chose.
    pub const UPSTREAM_CLUSTER: &str = "upstream_cluster.name";
    /// Address of the peer.
    pub const PEER_ADDRESS: &str = "peer.address";
    /// Verified principal of the peer.
    pub const PEER_PRINCIPAL: &str = "mesh.peer.principal";
    /// Version of the snapshot that decided.
    pub const SNAPSHOT: &str = "mesh.snapshot.version";
}
