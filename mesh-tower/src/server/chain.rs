//! A server's listener as it runs: the chains of the latest snapshot, with what lives longer than one snapshot.
//!
//! A chain whose configuration did not change stays the same object from one snapshot to the next: its connections
//! go on, its TLS sessions stay valid, and its new routes reach requests of old connections (gRFC A36: an RDS update
//! drains nothing). A chain that changed is a new object; connections of the old one are drained.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::chain::Ends;
use mesh_core::config::listener::{FilterChain, ListenerConfig, ServerListener};
use mesh_core::snapshot::{ChainRoutes, ServerSnapshot};

use crate::tls::TlsRuntime;
use crate::tls::server::ServerTls;

/// One filter chain, for as long as its configuration stays the same.
#[derive(Debug)]
pub(crate) struct Chain {
    config: FilterChain,
    security: Security,
    routing: ArcSwap<Routing>,
}

/// How the connections of a chain are secured.
#[derive(Debug)]
pub(crate) enum Security {
    Plaintext,
    Tls(Arc<ServerTls>),
    /// TLS is configured and this mesh has none: nobody gets in, least of all in plaintext.
    Impossible,
}

/// What a request pins: the routes of its chain in one snapshot.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) version: u64,
    pub(crate) routes: ChainRoutes,
}

/// All chains of one snapshot.
#[derive(Debug)]
pub(crate) struct Chains {
    listener: Arc<ListenerConfig>,
    /// The default chain last.
    chains: Vec<Arc<Chain>>,
}

// === impl Chain ===

impl Chain {
    fn new(config: &FilterChain, routing: Routing, tls: Option<&Arc<TlsRuntime>>) -> Self {
        let security = match (&config.tls, tls) {
            (None, _) => Security::Plaintext,
            (Some(value), Some(tls)) => Security::Tls(tls.server(value.clone())),
            (Some(_), None) => Security::Impossible,
        };
        Self { config: config.clone(), security, routing: ArcSwap::from_pointee(routing) }
    }

    pub(crate) fn config(&self) -> &FilterChain {
        &self.config
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// The latest routes. A request asks once.
    pub(crate) fn pin(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// Whether requests must pass the server stack: some filter other than the router is configured.
    pub(crate) fn has_http_policy(&self) -> bool {
        use mesh_core::config::filter::FilterConfig;
        self.config.http.filters.iter().any(|filter| !matches!(filter.config, FilterConfig::Router))
    }
}

// === impl Chains ===

impl Chains {
    /// The chains of a snapshot, those of `previous` kept where their configuration is the same. None if the snapshot
    /// is not one of a server.
    pub(crate) fn of(
        snapshot: &ServerSnapshot,
        previous: Option<&Self>,
        tls: Option<&Arc<TlsRuntime>>,
    ) -> Option<Self> {
        listener_of(&snapshot.listener)?;
        let chains = snapshot.chains().map(|(config, routes)| {
            let routing = Routing { version: snapshot.version, routes: routes.clone() };
            let kept = previous.and_then(|p| p.chains.iter().find(|chain| chain.config == *config));
            match kept {
                Some(chain) => {
                    chain.routing.store(Arc::new(routing));
                    chain.clone()
                }
                None => Arc::new(Chain::new(config, routing, tls)),
            }
        });
        Some(Self { chains: chains.collect(), listener: snapshot.listener.clone() })
    }

    /// The configuration of the listener.
    pub(crate) fn listener(&self) -> Option<&ServerListener> {
        listener_of(&self.listener)
    }

    /// The chain of a connection; none closes it.
    pub(crate) fn find(&self, ends: &Ends) -> Option<&Arc<Chain>> {
        self.chains.get(self.listener()?.find_chain(ends)?)
    }
}

fn listener_of(config: &ListenerConfig) -> Option<&ServerListener> {
    match config {
        ListenerConfig::Server(listener) => Some(listener),
        ListenerConfig::Client(_) => None,
    }
}
