//! The public entry: a [`ConfigSource`] that is fed by a control plane.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::rng::Xoshiro;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, ServerSnapshot, Subscription, UnappliedFields};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::ads::{ABSENT_AFTER, ABSENT_AFTER_TRANSIENT};
use crate::bootstrap::Bootstrap;
use crate::driver::{Driver, Settings, Targets};
use crate::resolve::Resolver;
use crate::store::OnDataError;
use crate::transport::connect::{Connect, SystemConnect};
use crate::unapplied::Ledger;

/// Configuration from an xDS control plane: one ADS stream for all targets of a process.
///
/// Nothing is connected before the first target is opened, and never is a control plane waited for: a target has what
/// its cell holds, from "pending" on. Dropping the source ends the stream and the task; the cells keep what they hold.
///
/// ```no_run
/// # async fn run() -> Result<(), mesh_xds::bootstrap::BootstrapError> {
/// use mesh_core::snapshot::ConfigSource as _;
/// use mesh_xds::XdsSource;
/// use mesh_xds::bootstrap::Bootstrap;
///
/// let source = XdsSource::new(Bootstrap::from_env()?, &tokio::runtime::Handle::current());
/// let greeter = source.client("greeter.default:50051");
/// let first = greeter.cell().subscribe().changed().await;
/// # Ok(())
/// # }
/// ```
pub struct XdsSource {
    bootstrap: Arc<Bootstrap>,
    targets: Arc<Targets>,
    unapplied: Ledger,
    task: AbortHandle,
}

// === impl XdsSource ===

impl XdsSource {
    /// A source whose task runs on `runtime`.
    ///
    /// The first control plane of the bootstrap is spoken to; fallback (gRFC A71) is not there yet.
    #[must_use]
    pub fn new(bootstrap: Bootstrap, runtime: &Handle) -> Self {
        Self::with_connector(bootstrap, runtime, SystemConnect)
    }

    /// A source that connects by other means than the system's sockets.
    #[must_use]
    pub fn with_connector(bootstrap: Bootstrap, runtime: &Handle, connector: impl Connect) -> Self {
        let bootstrap = Arc::new(bootstrap);
        let node: Arc<str> = bootstrap.node().id().into();
        let server = bootstrap.first_server().clone();
        let features = server.features();
        let absent_is_transient = features.resource_timer_is_transient_error;
        let unapplied = Ledger::default();
        let settings = Settings {
            node: node.clone(),
            on_data_error: if features.fail_on_data_errors { OnDataError::Drop } else { OnDataError::Keep },
            absent_after: if absent_is_transient { ABSENT_AFTER_TRANSIENT } else { ABSENT_AFTER },
            absent_is_transient,
            unapplied: unapplied.clone(),
        };
        let targets = Targets::new(Resolver::new(bootstrap.clone(), node));
        let connector = Arc::new(connector);
        let driver = Driver::new(
            bootstrap.clone(),
            server,
            connector,
            targets.clone(),
            settings,
            Xoshiro::seeded(seed()),
        );
        let task = runtime.spawn(driver.run()).abort_handle();
        Self { bootstrap, targets, unapplied, task }
    }

    /// The bootstrap, whose certificate providers the data path needs.
    #[must_use]
    pub fn bootstrap(&self) -> &Arc<Bootstrap> {
        &self.bootstrap
    }
}

impl ConfigSource for XdsSource {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        self.targets.client(target)
    }

    fn server(&self, address: SocketAddr) -> Subscription<ServerSnapshot> {
        self.targets.server(address)
    }

    fn unapplied(&self) -> Vec<UnappliedFields> {
        self.unapplied.list()
    }
}

impl Drop for XdsSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for XdsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.bootstrap.first_server().uri();
        f.debug_struct("XdsSource").field("server", server).finish_non_exhaustive()
    }
}

/// A seed that differs between processes: they must not all reconnect at the same moment.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
