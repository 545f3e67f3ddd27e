//! HTTP filters in their configured order, and their overrides per route (gRFC A39).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rbac::RbacConfig;

/// One entry of `http_filters`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// Instance name: the key of overrides.
    pub name: Arc<str>,
    /// What it does.
    pub config: FilterConfig,
    /// Off unless a route turns it on (`disabled`).
    pub disabled: bool,
}

/// What a filter does.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterConfig {
    /// The terminal filter: sends the request on.
    Router,
    /// Role-based access control (servers; gRFC A41).
    Rbac(Arc<RbacConfig>),
}

/// `typed_per_filter_config` of a virtual host, a route or a weighted cluster, by filter instance name.
///
/// The most specific one wins whole (weighted cluster, route, virtual host); nothing is merged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilterOverrides(pub BTreeMap<Arc<str>, FilterOverride>);

/// What a route changes about a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// `FilterConfig { disabled: true }`.
    Disabled,
    /// `FilterConfig` without a config and `disabled: false`: turns a disabled filter on.
    Enabled,
    /// `RBACPerRoute`; none disables RBAC here (an empty message, as Envoy does).
    Rbac(Option<Arc<RbacConfig>>),
}

// === impl FilterOverrides ===

impl FilterOverrides {
    /// The override of a filter instance, if there is one.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<&FilterOverride> {
        self.0.get(filter)
    }

    /// Whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
