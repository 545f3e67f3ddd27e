//! `envoy.config.cluster.v3.Cluster`: a named set of endpoints and how to talk to them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::endpoints::EndpointsConfig;
use super::security::UpstreamTls;
use super::telemetry::WorkloadLabels;
use super::units::{Limit, PerMillion, Percent};

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How an endpoint is chosen.
    pub lb: LbPolicy,
    /// Localities share the load by their weights (Envoy's `locality_weighted_lb_config`; always on for
    /// gRPC's round robin, gRFC A42 and A52: `wrr_locality`).
    pub locality_weighted: bool,
    /// Below this share of healthy endpoints health is ignored; only where set explicitly.
    pub panic_threshold: Option<Percent>,
    /// What may be in flight.
    pub limits: BreakerConfig,
    /// None is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// HTTP version for requests that are not gRPC (gRPC is always HTTP/2).
    pub protocol: UpstreamProtocol,
    /// How long one connect may take, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// HTTP/2 PING keepalive; none sends no PINGs.
    pub keepalive: Option<KeepaliveConfig>,
    /// Service name and namespace for metrics; none where the configuration gives none.
    pub telemetry: Option<Arc<ServiceLabels>>,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// EDS, by service name (the cluster's own name unless `service_name` says otherwise).
    Eds {
        /// Name of the `ClusterLoadAssignment`.
        service: Arc<str>,
    },
    /// Given inline (`STATIC` with `load_assignment`).
    Static(Arc<EndpointsConfig>),
}

/// How an endpoint is chosen among those that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The least loaded of `choices` drawn at random (gRFC A48).
    LeastRequest {
        /// 2..=10; the default is 2.
        choices: u8,
    },
}

/// `CircuitBreakers` of the `DEFAULT` priority (gRFC A32), and its retry budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Connections to the whole cluster. Default 1024.
    pub max_connections: Limit,
    /// Requests that wait for a connection. Default 1024.
    pub max_pending_requests: Limit,
    /// Requests in flight. Default 1024; 0 refuses all.
    pub max_requests: Limit,
    /// Retries in flight, where no budget is set. Default 3 (Envoy's).
    pub max_retries: Limit,
    /// Share of the requests in flight that may be retries.
    pub retry_budget: Option<RetryBudget>,
    /// Connections to one endpoint (gRFC A105 `per_host_thresholds`); none leaves the library's own cap.
    pub max_connections_per_endpoint: Option<NonZeroU32>,
}

/// `retry_budget`: retries in flight as a share of the requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Default 20 %.
    pub budget: PerMillion,
    /// Retries always allowed at once. Default 3.
    pub min_retry_concurrency: Limit,
}

/// HTTP version of a cluster, for requests that are not gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (Envoy's default).
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN under TLS.
    Http2,
    /// The version that ALPN chooses; HTTP/1.1 without TLS (`auto_config`).
    Auto,
}

/// HTTP/2 keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// Time between PINGs.
    pub interval: Duration,
    /// A PING unanswered for this long ends the connection.
    pub timeout: Duration,
}

/// `com.google.csm.telemetry_labels` and Istio's cluster metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceLabels {
    /// Host name of the service (`destination_service`).
    pub host: Arc<str>,
    /// Short name (`destination_service_name`).
    pub name: Arc<str>,
    /// Namespace (`destination_service_namespace`).
    pub namespace: Arc<str>,
    /// Workload labels shared by all endpoints, where the cluster has them.
    pub workload: Option<Arc<WorkloadLabels>>,
}

// === impl ClusterConfig ===

impl ClusterConfig {
    /// Default of `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A plaintext round-robin cluster with every default.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, discovery: Discovery) -> Self {
        Self {
            name: name.into(),
            discovery,
            lb: LbPolicy::RoundRobin,
            locality_weighted: false,
            panic_threshold: None,
            limits: BreakerConfig::default(),
            tls: None,
            protocol: UpstreamProtocol::Http1,
            connect_timeout: Self::CONNECT_TIMEOUT,
            keepalive: None,
            telemetry: None,
        }
    }

    /// The name under which EDS serves this cluster's endpoints, if EDS does.
    #[must_use]
    pub fn eds_service(&self) -> Option<&Arc<str>> {
        match &self.discovery {
            Discovery::Eds { service } => Some(service),
            Discovery::Static(_) => None,
        }
    }
}

// === impl BreakerConfig ===

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            max_connections: Limit::new(1024),
            max_pending_requests: Limit::new(1024),
            max_requests: Limit::new(1024),
            max_retries: Limit::new(3),
            retry_budget: None,
            max_connections_per_endpoint: None,
        }
    }
}
