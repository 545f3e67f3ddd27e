//! Static configuration: the resources of a YAML or JSON file instead of a control plane.
//!
//! The file holds one of these, and nothing else:
//!
//! * one resource: `{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": …}`
//! * a list of them, alone or under `resources` (the form of Envoy's file subscriptions)
//! * `static_resources: {listeners: […], clusters: […]}`, as Envoy's own configuration file writes it; its `admin` and
//!   `node` are skipped, its other sections listed, and `dynamic_resources` refused
//!
//! An unknown field is an error with its line and column. What the file holds goes through the same validation and the
//! same assembly as what comes over xDS: there is no second model. A listener with an `api_listener` is a client target by its name; any
//! other serves the address that it names. Routes by name (`rds`) and endpoints by name (`eds`) come from the same file.
//!
//! ```text
//! file ─► resource_json ─► resource::decode ─► store ─► assemble ─► one SnapshotCell per open target
//! ```
//! A file is taken whole or refused whole: a bad one changes nothing, and is reported once, with every field that is
//! wrong, its line and its column. Sections of Envoy's file that hold no resources are listed with the fields that have no
//! effect. Deviation from Envoy: a resource that is named and not in the file is an error of those requests alone.

mod file;
mod load;
mod state;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, ServerSnapshot, Subscription};
use mesh_core::status::ResourceStatus;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

#[cfg(feature = "control-plane")]
pub(crate) use self::file::of_any_application;
pub use self::load::{FileProblem, InvalidFile, TextPlace};
use self::load::{Loaded, load};
use self::state::{Key, State};
use crate::resource::Rules;
use crate::resource_json::Format;

/// Configuration from a file, or from a text in code.
///
/// ```
/// use mesh_core::snapshot::{ConfigSource as _, Resolution};
/// use mesh_xds::{Format, Rules, StaticSource};
///
/// let text = r#"
/// static_resources:
///   clusters:
///   - name: ratings
///     load_assignment:
///       endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9080}}}}]}]
///   listeners:
///   - name: ratings.shop:9080
///     api_listener:
///       api_listener:
///         "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
///         route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: ratings}}]}]}
///         http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
/// "#;
/// let source = StaticSource::from_text(text, Format::Yaml, Rules::default())?;
/// let target = source.client("xds:///ratings.shop:9080");
/// assert!(matches!(&*target.cell().load(), Resolution::Ready(_)));
/// # Ok::<(), mesh_xds::static_config::InvalidFile>(())
/// ```
pub struct StaticSource {
    shared: Arc<Shared>,
    watcher: Option<AbortHandle>,
}

struct Shared {
    rules: Rules,
    file: Option<PathBuf>,
    /// The bytes that were looked at last, good or bad. Held for the whole of a reload, so that there is one at a time.
    seen: Mutex<Option<Vec<u8>>>,
    /// The store, the open targets and the last error. Held for a look-up or an assembly, never across an await.
    state: Mutex<State>,
}

/// Closes a target when its last holder is dropped.
struct Guard<K: Key> {
    shared: Arc<Shared>,
    key: K,
}

// === impl StaticSource ===

impl StaticSource {
    /// Reads a file; its extension tells whether it is JSON, everything else is YAML.
    ///
    /// # Errors
    /// When the file cannot be read, or anything in it is wrong.
    pub fn from_file(path: impl Into<PathBuf>, rules: Rules) -> Result<Self, InvalidFile> {
        let path = path.into();
        let bytes = file::read(&path)?;
        let loaded = file::load(&path, &bytes, &rules)?;
        Ok(Self::new(Some(path), rules, Some(bytes), loaded))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When anything in it is wrong.
    pub fn from_text(text: &str, format: Format, rules: Rules) -> Result<Self, InvalidFile> {
        let loaded = load(text, format, &rules)?;
        Ok(Self::new(None, rules, None, loaded))
    }

    /// Replaces what the source holds by the resources of another text.
    ///
    /// # Errors
    /// When anything in it is wrong; then nothing changes.
    pub fn replace(&self, text: &str, format: Format) -> Result<(), InvalidFile> {
        let loaded = load(text, format, &self.shared.rules)?;
        self.shared.state().apply(loaded);
        Ok(())
    }

    /// Looks at the file again, now. True when it has changed and is in use.
    ///
    /// This reads a file, so an asynchronous caller puts it on a blocking thread.
    ///
    /// # Errors
    /// When it cannot be read or anything in it is wrong; then nothing changes.
    pub fn reload(&self) -> Result<bool, InvalidFile> {
        self.shared.reload()
    }

    /// Looks at the file again and again, for as long as the source lives; a second call replaces the interval.
    ///
    /// The content decides, not its time stamp: replacing the file in one step, through a link or in place, all work.
    pub fn watch(&mut self, interval: Duration, runtime: &Handle) {
        let shared = self.shared.clone();
        let span = tracing::info_span!("static_config", file = ?shared.file);
        let task = runtime.spawn(watch(shared, interval).instrument(span));
        if let Some(before) = self.watcher.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// Why the file as it is now is not in use; none where it is.
    #[must_use]
    pub fn last_error(&self) -> Option<InvalidFile> {
        self.shared.state().last_error()
    }

    fn new(file: Option<PathBuf>, rules: Rules, seen: Option<Vec<u8>>, loaded: Loaded) -> Self {
        let origin = file.as_deref().map_or_else(|| "static configuration".into(), Path::to_string_lossy);
        let mut state = State::new(origin.as_ref().into());
        state.apply(loaded);
        let shared = Shared { rules, file, seen: Mutex::new(seen), state: Mutex::new(state) };
        Self { shared: Arc::new(shared), watcher: None }
    }

    fn subscribe<K: Key>(&self, key: K) -> Subscription<K::Snapshot> {
        let cell = self.shared.state().open(&key);
        Subscription::new(cell, Guard { shared: self.shared.clone(), key })
    }
}

impl ConfigSource for StaticSource {
    fn client(&self, target: &str) -> Subscription<ClientSnapshot> {
        self.subscribe(Arc::<str>::from(target))
    }

    fn server(&self, address: &Address) -> Subscription<ServerSnapshot> {
        self.subscribe(address.clone())
    }

    fn status(&self) -> Vec<ResourceStatus> {
        self.shared.state().status()
    }
}

impl Drop for StaticSource {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl fmt::Debug for StaticSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticSource").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn reload(&self) -> Result<bool, InvalidFile> {
        let Some(path) = &self.file else { return Ok(false) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file::read(path);
        if read.as_ref().is_ok_and(|bytes| seen.as_ref() == Some(bytes)) {
            // The same bytes, the same verdict.
            return self.state().last_error().map_or(Ok(false), Err);
        }
        *seen = read.as_ref().ok().cloned();
        match read.and_then(|bytes| file::load(path, &bytes, &self.rules)) {
            Ok(loaded) => {
                self.state().apply(loaded);
                tracing::info!(file = %path.display(), "static configuration reloaded");
                Ok(true)
            }
            Err(error) => {
                if self.state().refuse(error.clone()) {
                    tracing::warn!(%error, "static configuration refused; the last good one stays in use");
                }
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method of the state leaves it whole, so it is valid after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Key> Drop for Guard<K> {
    fn drop(&mut self) {
        self.shared.state().close(&self.key);
    }
}

async fn watch(shared: Arc<Shared>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = shared.clone();
        // What is wrong is kept and logged by the reload itself; a panic in it must not end the watch.
        let reloaded = tokio::task::spawn_blocking(move || drop(shared.reload())).await;
        // A runtime that ends cancels it.
        if reloaded.is_err_and(|error| !error.is_cancelled()) {
            tracing::warn!("reloading the static configuration was abandoned");
        }
    }
}

#[cfg(test)]
mod tests;
