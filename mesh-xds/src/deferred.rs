//! What of a route configuration only the listener that takes it can judge: whether a filter that is overridden runs, and
//! whether it is a server that is served by it.
//!
//! Reference: gRFC A39. Deviation: what A39 refuses on every side is refused on servers alone, where an override may be
//! what keeps somebody out. A client has no filters that could be overridden, so there it is listed as not applied, and
//! the rest of the routes is honoured.

use std::sync::{Arc, LazyLock};

use mesh_core::config::filter::{FilterConfig, HttpFilter};
use mesh_core::config::listener::{HttpConfig, ListenerConfig, RouteSource};

use crate::invalid::{FieldPath, Invalid, Unapplied};

/// What is left to the listener that takes a route configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deferred {
    overrides: Vec<(FieldPath, Arc<str>)>,
    refused_by_servers: Option<Invalid>,
}

// === impl Deferred ===

impl Deferred {
    /// Why a server does not use the routes, if it does not: the first field, and what is wrong with it.
    #[must_use]
    pub fn refused_by_servers(&self) -> Option<&Invalid> {
        self.refused_by_servers.as_ref()
    }

    /// Whether nothing is left to judge.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.overrides.is_empty() && self.refused_by_servers.is_none()
    }

    /// The overrides of filters that do not run: they have no effect.
    pub(crate) fn without_effect(&self, runs: impl Fn(&str) -> bool) -> Unapplied {
        self.overrides.iter().filter(|(_, filter)| !runs(filter)).map(|(path, _)| path.clone()).collect()
    }

    /// Shares it. Nearly all are empty: those are one.
    pub(crate) fn shared(self) -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Deferred>> = LazyLock::new(Arc::default);
        if self.is_empty() { EMPTY.clone() } else { Arc::new(self) }
    }

    pub(crate) fn override_of(&mut self, filter: &str, path: FieldPath) {
        self.overrides.push((path, Arc::from(filter)));
    }

    pub(crate) fn refuse(&mut self, invalid: Invalid) {
        self.refused_by_servers.get_or_insert(invalid);
    }
}

/// Whether a listener takes these routes by name, and runs a filter of this name with them.
pub(crate) fn runs_with(listener: &ListenerConfig, routes: &str, filter: &str) -> bool {
    listener.http().any(|http| takes(http, routes) && runs(&http.filters, filter))
}

/// Whether a listener is of a server, and takes these routes by name.
pub(crate) fn is_server_of(listener: &ListenerConfig, routes: &str) -> bool {
    matches!(listener, ListenerConfig::Server(_)) && listener.http().any(|http| takes(http, routes))
}

/// Whether a connection manager takes these routes by name.
fn takes(http: &HttpConfig, routes: &str) -> bool {
    matches!(&http.routes, RouteSource::Rds(name) if **name == *routes)
}

/// Whether a filter of this name runs, or could be turned on: the router is none that could be overridden.
pub(crate) fn runs(filters: &[HttpFilter], name: &str) -> bool {
    filters.iter().any(|filter| &*filter.name == name && filter.config != FilterConfig::Router)
}
