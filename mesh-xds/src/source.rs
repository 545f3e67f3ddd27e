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

use crate::bootstrap::Bootstrap;
use crate::driver::{Driver, Targets};
use crate::resolve::Resolver;
use crate::transport::connect::{Connect, SystemConnect};
use crate::unapplied::Ledger;

/// Configuration from xDS control planes: one ADS stream to each that is in use, for all targets of a process.
///
/// A resource comes from the control planes of its authority (gRFC A47): from the first of them that can be reached, as
/// soon as something is missing that only they have (gRFC A71).
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
    #[must_use]
    pub fn new(bootstrap: Bootstrap, runtime: &Handle) -> Self {
        Self::with_connector(bootstrap, runtime, SystemConnect)
    }

    /// A source that connects by other means than the system's sockets.
    #[must_use]
    pub fn with_connector(bootstrap: Bootstrap, runtime: &Handle, connector: impl Connect) -> Self {
        let bootstrap = Arc::new(bootstrap);
        let unapplied = Ledger::default();
        let targets = Targets::new(Resolver::new(bootstrap.clone(), bootstrap.node().id().into()));
        let connector: Arc<dyn Connect> = Arc::new(connector);
        let rng = Xoshiro::seeded(seed());
        let driver = Driver::new(&bootstrap, &connector, targets.clone(), unapplied.clone(), rng);
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
