//! Istio's labels: borrowed from an event for the lookup, owned by a series, rendered with our own workload's.
//!
//! Values come from configuration or verified identity, never from a header. What is not known is `unknown`.

use std::fmt::Write as _;
use std::sync::Arc;

use mesh_core::config::cluster::ServiceLabels;
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::identity::SpiffeId;
use mesh_core::outcome::{GrpcCode, ResponseFlags};
use mesh_core::request::RequestKind;
use mesh_core::telemetry::event::{Reporter, RequestEvent};

/// What tells one series from another, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LabelKey<'a> {
    reporter: Reporter,
    kind: RequestKind,
    code: u16,
    grpc: Option<GrpcCode>,
    flags: ResponseFlags,
    mutual_tls: bool,
    cluster: &'a str,
    principal: Option<&'a str>,
    service: Option<&'a ServiceLabels>,
    peer: Option<&'a WorkloadLabels>,
}

/// The same, owned.
#[derive(Debug)]
pub(super) struct Labels {
    reporter: Reporter,
    kind: RequestKind,
    code: u16,
    grpc: Option<GrpcCode>,
    flags: ResponseFlags,
    mutual_tls: bool,
    cluster: Box<str>,
    principal: Option<Box<str>>,
    service: Option<Arc<ServiceLabels>>,
    peer: Option<Arc<WorkloadLabels>>,
}

// === impl LabelKey ===

impl<'a> LabelKey<'a> {
    pub(super) fn of(event: &RequestEvent<'a>) -> Self {
        Self {
            reporter: event.reporter,
            kind: event.kind,
            code: event.response_code,
            grpc: event.grpc_status,
            flags: event.flags,
            mutual_tls: event.mutual_tls,
            cluster: event.cluster,
            principal: event.peer_principal,
            service: event.service.map(|service| &**service),
            peer: event.upstream_workload.map(|workload| &**workload),
        }
    }

    pub(super) fn owned(self) -> Labels {
        Labels {
            reporter: self.reporter,
            kind: self.kind,
            code: self.code,
            grpc: self.grpc,
            flags: self.flags,
            mutual_tls: self.mutual_tls,
            cluster: self.cluster.into(),
            principal: self.principal.map(Into::into),
            service: self.service.map(|service| Arc::new(service.clone())),
            peer: self.peer.map(|peer| Arc::new(peer.clone())),
        }
    }
}

// === impl Labels ===

impl Labels {
    pub(super) fn is(&self, key: &LabelKey<'_>) -> bool {
        let own = LabelKey {
            reporter: self.reporter,
            kind: self.kind,
            code: self.code,
            grpc: self.grpc,
            flags: self.flags,
            mutual_tls: self.mutual_tls,
            cluster: &self.cluster,
            principal: self.principal.as_deref(),
            service: self.service.as_deref(),
            peer: self.peer.as_deref(),
        };
        own == *key
    }

    /// Whether they are those of calls to a cluster.
    pub(super) fn are_of_cluster(&self, name: &str) -> bool {
        self.reporter == Reporter::Source && *self.cluster == *name
    }

    /// The cluster that was called; empty on servers, and where none was chosen.
    pub(super) fn cluster(&self) -> &str {
        match self.reporter {
            Reporter::Source => &self.cluster,
            Reporter::Destination => "",
        }
    }

    /// The labels in Istio's order, without the braces.
    pub(super) fn render(&self, own: &WorkloadLabels) -> String {
        let spiffe = self.principal.as_deref().and_then(|id| SpiffeId::parse(id).ok());
        let mut peer = self.peer.as_deref().cloned().unwrap_or_default();
        if self.peer.is_none()
            && let Some(namespace) = spiffe.as_ref().and_then(SpiffeId::namespace)
        {
            peer.namespace = namespace.into();
        }
        let (source, destination) = match self.reporter {
            Reporter::Source => (own, &peer),
            Reporter::Destination => (&peer, own),
        };
        let principal = self.principal.as_deref().unwrap_or(UNKNOWN);
        let (from, to) = match self.reporter {
            Reporter::Source => (UNKNOWN, principal),
            Reporter::Destination => (principal, UNKNOWN),
        };
        let mut text = String::with_capacity(1_024);
        let mut label = |name: &str, value: &str| {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, r#"{comma}{name}="{}""#, escape(value));
        };
        label("reporter", self.reporter.as_str());
        workload(&mut label, "source", source, from);
        workload(&mut label, "destination", destination, to);
        self.service_labels(&mut label, destination);
        self.response_labels(&mut label);
        text
    }

    fn service_labels(&self, label: &mut impl FnMut(&str, &str), destination: &WorkloadLabels) {
        let (host, name, namespace) = match (&self.service, self.reporter) {
            (Some(service), _) => (&*service.host, &*service.name, &*service.namespace),
            // A client without labels in the configuration still knows the cluster that it called.
            (None, Reporter::Source) if !self.cluster.is_empty() => (&*self.cluster, &*self.cluster, UNKNOWN),
            (None, Reporter::Source) => (UNKNOWN, UNKNOWN, UNKNOWN),
            (None, Reporter::Destination) => {
                (&*destination.canonical_service, &*destination.canonical_service, &*destination.namespace)
            }
        };
        label("destination_service", host);
        label("destination_service_name", name);
        label("destination_service_namespace", namespace);
    }

    fn response_labels(&self, label: &mut impl FnMut(&str, &str)) {
        let protocol = match self.kind {
            RequestKind::Grpc => "grpc",
            RequestKind::Http => "http",
        };
        let security = match (self.reporter, self.mutual_tls) {
            (Reporter::Source, _) => UNKNOWN, // Istio: only the server knows for certain
            (Reporter::Destination, true) => "mutual_tls",
            (Reporter::Destination, false) => "none",
        };
        label("request_protocol", protocol);
        label("response_code", &self.code.to_string());
        label("grpc_response_status", self.grpc.map_or("", GrpcCode::as_str));
        label("response_flags", &self.flags.to_string());
        label("connection_security_policy", security);
    }
}

const UNKNOWN: &str = "unknown";

fn workload(label: &mut impl FnMut(&str, &str), side: &str, of: &WorkloadLabels, principal: &str) {
    for (name, value) in [
        ("workload", &*of.workload),
        ("canonical_service", &of.canonical_service),
        ("canonical_revision", &of.canonical_revision),
        ("workload_namespace", &of.namespace),
        ("principal", principal),
        ("app", &of.canonical_service),
        ("version", &of.canonical_revision),
        ("cluster", &of.cluster),
    ] {
        label(&format!("{side}_{name}"), value);
    }
}

/// Prometheus' rules for a label's value.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n")
}
