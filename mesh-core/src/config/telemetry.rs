//! Labels of a workload, as Istio names them. They come from configuration or verified identity, never from a header.

use std::sync::Arc;

/// Who a workload is, for the labels of `istio_requests_total` and its siblings.
///
/// An unknown value is the literal `unknown`, as Istio writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// `*_workload`.
    pub workload: Arc<str>,
    /// `*_workload_namespace`.
    pub namespace: Arc<str>,
    /// `*_canonical_service`, `*_app`.
    pub canonical_service: Arc<str>,
    /// `*_canonical_revision`, `*_version`.
    pub canonical_revision: Arc<str>,
    /// `*_cluster`.
    pub cluster: Arc<str>,
}

impl WorkloadLabels {
    /// Every label `unknown`.
    #[must_use]
    pub fn unknown() -> Self {
        let unknown: Arc<str> = Arc::from("unknown");
        Self {
            workload: unknown.clone(),
            namespace: unknown.clone(),
            canonical_service: unknown.clone(),
            canonical_revision: unknown.clone(),
            cluster: unknown,
        }
    }
}

impl Default for WorkloadLabels {
    fn default() -> Self {
        Self::unknown()
    }
}
