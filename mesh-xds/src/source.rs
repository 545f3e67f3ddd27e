//! The public entry: a [`ConfigSource`] that is fed by a control plane.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use mesh_core::config::endpoints::Address;
use mesh_core::rng::Xoshiro;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, ServerSnapshot, Subscription};
use mesh_core::status::ResourceStatus;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::bootstrap::Bootstrap;
use crate::driver::{Driver, Reports, Targets};
use crate::last_good::{LastGood, Owner, restore};
use crate::resolve::Resolver;
use crate::rows::Rows;
use crate::transport::connect::{Connect, SystemConnect};
use crate::transport::rules;

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
    rows: Rows,
    tasks: Vec<AbortHandle>,
}

/// How an [`XdsSource`] is put together.
#[must_use = "nothing runs before `start`"]
pub struct XdsSourceBuilder {
    bootstrap: Arc<Bootstrap>,
    connector: Arc<dyn Connect>,
    last_good: Option<PathBuf>,
}

// === impl XdsSource ===

impl XdsSource {
    /// A source whose task runs on `runtime`.
    #[must_use]
    pub fn new(bootstrap: Bootstrap, runtime: &Handle) -> Self {
        Self::builder(bootstrap).start(runtime)
    }

    /// A source with the parts that differ from the usual.
    pub fn builder(bootstrap: Bootstrap) -> XdsSourceBuilder {
        let connector = Arc::new(SystemConnect);
        XdsSourceBuilder { bootstrap: Arc::new(bootstrap), connector, last_good: None }
    }

    /// The bootstrap, whose certificate providers the data path needs.
    #[must_use]
    pub fn bootstrap(&self) -> &Arc<Bootstrap> {
        &self.bootstrap
    }
}

// === impl XdsSourceBuilder ===

impl XdsSourceBuilder {
    /// Connects by other means than the system's sockets.
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Keeps the last accepted configuration in a file of this process alone, and starts from it when no control plane
    /// answers (in the spirit of gRFC A71 and A88: cached resources outlive the control plane).
    ///
    /// * A restored resource is used only while no control plane has answered, and is replaced by the first value that comes.
    /// * The file is used whole or not at all: it belongs to one node and one list of control planes, and passes the
    ///   validation that every resource passes. One that is refused is moved aside, to `FILE.refused`, with the reason in
    ///   the log. It is replaced by renaming: a crash leaves the old file or the new one.
    /// * What an earlier run used and this one has not asked for yet stays in the file for a week.
    ///
    /// The file holds what the control plane sent: guard it as you would the control plane's word (it is created with mode
    /// 0600).
    pub fn last_good_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.last_good = Some(path.into());
        self
    }

    /// The source. Its tasks run on `runtime`; the file of last good configuration is read before this returns.
    #[must_use]
    pub fn start(self, runtime: &Handle) -> XdsSource {
        let Self { bootstrap, connector, last_good } = self;
        let mut tasks = Vec::new();
        let last_good = last_good.map_or_else(LastGood::default, |path| {
            let (last_good, keeper) = restore(path, Owner::of(&bootstrap), &rules(&bootstrap));
            tasks.push(
                runtime.spawn(keeper.run().instrument(tracing::debug_span!("last_good"))).abort_handle(),
            );
            last_good
        });
        let rows = Rows::default();
        let targets = Targets::new(Resolver::new(bootstrap.clone(), bootstrap.node().id().into()));
        let rng = Xoshiro::seeded(seed());
        let reports = Reports { rows: rows.clone(), last_good };
        let driver = Driver::new(&bootstrap, &connector, targets.clone(), reports, rng);
        tasks.push(runtime.spawn(driver.run().instrument(tracing::debug_span!("xds"))).abort_handle());
        XdsSource { bootstrap, targets, rows, tasks }
    }
}

impl fmt::Debug for XdsSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdsSourceBuilder").field("last_good", &self.last_good).finish_non_exhaustive()
    }
}

impl ConfigSource for XdsSource {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        self.targets.client(target)
    }

    fn server(&self, address: &Address) -> Subscription<ServerSnapshot> {
        self.targets.server(address)
    }

    fn status(&self) -> Vec<ResourceStatus> {
        self.rows.status()
    }
}

impl Drop for XdsSource {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
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
