//! The mesh of one process: owner of configuration, connections, counters and tasks.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use mesh_core::error::Reason;
use mesh_core::snapshot::{ClientSnapshot, ConfigSource, Subscription};
use mesh_core::status::{RefusedResource, ResourceStatus, UnappliedFields};
use tokio::time::Instant;
use tower_service::Service;

use crate::body::{Body, BoxError};
use crate::builder::MeshBuilder;
use crate::client::channel::target::TargetName;
use crate::client::pin::{Patience, Target};
use crate::client::request::{Calls, Shared};
use crate::client::{MeshChannel, direct};
use crate::drain::{Drain, Drained, Draining, Phase};
use crate::error::Error;
use crate::local_reply::LocalReplies;
use crate::readiness::Readiness;
use crate::runtime::registry::Runtime;
use crate::server::{ServerLayer, ServerLimits, ServerParts, ServerRuntime};
use crate::telemetry::Telemetry;
use crate::tls::TlsRuntime;
use crate::transport::listen::{ListeningSocket, MeshListener};
use crate::transport::serve::serve;

/// The mesh of one process. Cheap to clone; clones are the same mesh.
///
/// ```
/// # use mesh_tower::Mesh;
/// # async fn call(mesh: Mesh) -> Result<(), mesh_tower::Error> {
/// let reviews = mesh.channel("xds:///reviews.default:9080")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

/// What a mesh is made of.
pub(crate) struct Parts {
    pub(crate) source: Arc<dyn ConfigSource>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) telemetry: Telemetry,
    pub(crate) tls: Arc<TlsRuntime>,
    pub(crate) limits: ServerLimits,
    pub(crate) lame_duck: Duration,
    pub(crate) replies: Arc<LocalReplies>,
}

/// Open targets by name.
type Targets = HashMap<Arc<str>, Weak<Target>>;

struct Inner {
    source: Arc<dyn ConfigSource>,
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    server: Arc<ServerRuntime>,
    drain: Arc<Drain>,
    lame_duck: Duration,
    /// Targets that a channel is open to. Dead entries are swept whenever one is added.
    targets: Mutex<Targets>,
}

// === impl Mesh ===

impl Mesh {
    /// A mesh that is configured by `source`.
    pub fn builder(source: impl ConfigSource) -> MeshBuilder {
        MeshBuilder::new(Arc::new(source))
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { source, runtime, telemetry, tls, limits, lame_duck, replies } = parts;
        let drain = Arc::new(Drain::new());
        let server = ServerRuntime::new(ServerParts {
            source: source.clone(),
            tls: Some(tls),
            telemetry: telemetry.clone(),
            drain: drain.clone(),
            limits,
            replies: replies.clone(),
            budget: runtime.budget().clone(),
            runtime: runtime.handle().clone(),
        });
        let shared = Arc::new(Shared {
            telemetry,
            replies,
            runtime: runtime.handle().clone(),
            shut_down: AtomicBool::new(false),
            calls: Calls::default(),
            _source: source.clone(),
        });
        let targets = Mutex::default();
        Self { inner: Arc::new(Inner { source, runtime, shared, server, drain, lame_duck, targets }) }
    }

    /// A channel to a target: `xds:///NAME` and bare `host:port` go through the mesh.
    ///
    /// Never waits: calls wait for the first configuration, within their deadlines.
    ///
    /// # Errors
    /// When the target cannot be parsed, outside a Tokio runtime, or after [`Mesh::shutdown`].
    pub fn channel(&self, target: &str) -> Result<MeshChannel, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::setup(
                "a channel is opened within a Tokio runtime: call this from async code",
            ));
        }
        if self.inner.shared.shut_down.load(Ordering::Relaxed) {
            return Err(Error::setup("the mesh was shut down"));
        }
        let (target, authority) = match TargetName::parse(target)? {
            TargetName::Mesh { name, authority } => {
                (self.target(&name, || self.inner.source.client(&name)), authority)
            }
            TargetName::Dns { authority } => {
                let name = format!("dns:///{authority}");
                let handle = self.inner.runtime.handle();
                (self.target(&name, || direct::open(&authority, handle)), authority.into())
            }
        };
        Ok(MeshChannel::new(target, authority, self.inner.shared.clone()))
    }

    /// Waits until every target that a channel is open to has its first configuration, also while no control plane can
    /// be reached. Says what is refused meanwhile, while the last good configuration serves.
    ///
    /// # Errors
    /// At the deadline, or as soon as the control plane has said that a target cannot be served: what is missing, and
    /// why.
    pub async fn ready(&self, deadline: Duration) -> Result<Readiness, Error> {
        let until = Instant::now() + deadline;
        let targets: Vec<_> = self.inner.lock().values().filter_map(Weak::upgrade).collect();
        for target in targets {
            match tokio::time::timeout_at(until, target.first(Patience::Wait)).await {
                Ok(Ok(_)) => {}
                Ok(Err(rejection)) => return Err(rejection.into()),
                Err(_) => {
                    return Err(target.refusal(Reason::NoConfiguration).into());
                }
            }
        }
        Ok(Readiness { refused: self.refused() })
    }

    /// Serves an application on a socket, a `TcpListener` or a `UnixListener`: tonic's `Routes`, axum's `Router`, any
    /// service of HTTP requests. Policy is around the whole of it. Returns when the mesh has drained: when the calls that it served have ended, and those that
    /// the application makes through the mesh, or at the limit of the shutdown.
    ///
    /// The configuration of a unix-domain socket is the listener of its address, `unix:PATH` (`unix:@NAME` in Linux's
    /// abstract namespace). Its peers have no addresses: what a rule asks about one is answered against the request, and
    /// filter chains that ask for one do not match. The file of the socket is the application's, also at the end.
    ///
    /// # Errors
    /// When the mesh was shut down before.
    pub async fn serve<S, B>(&self, socket: impl Into<ListeningSocket>, app: S) -> Result<(), Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.inner.shared.shut_down.load(Ordering::Relaxed) {
            return Err(Error::setup("the mesh was shut down"));
        }
        serve(self.inner.server.clone(), socket.into(), app).await;
        tokio::select! {
            () = self.inner.finish() => {}
            () = self.inner.drain.forced() => {}
        }
        Ok(())
    }

    /// Connections for tonic's or axum's own server, which also needs the [`Mesh::server_layer`].
    #[must_use]
    pub fn listen(&self, socket: impl Into<ListeningSocket>) -> MeshListener {
        MeshListener::new(self.inner.server.clone(), socket.into())
    }

    /// The server stack for tonic's or axum's own server, over the connections of [`Mesh::listen`].
    #[must_use]
    pub fn server_layer(&self) -> ServerLayer {
        self.inner.server.layer()
    }

    /// What is known of each resource that is wanted: what serves, since when, in which version, and what is refused of it.
    #[must_use]
    pub fn status(&self) -> Vec<ResourceStatus> {
        self.inner.source.status()
    }

    /// The resources in use of which some fields have no effect, because they are not implemented.
    #[must_use]
    pub fn unapplied(&self) -> Vec<UnappliedFields> {
        self.inner.source.unapplied()
    }

    /// What is refused as the control plane, or the file, has it now. Where there is a last good value, that serves.
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedResource> {
        self.inner.source.refused()
    }

    /// How many resources in use are those of an earlier run, from its file of last good configuration, because no
    /// control plane has answered for them yet.
    #[must_use]
    pub fn restored(&self) -> usize {
        self.inner.source.restored()
    }

    /// What `/ready` says of servers: how many listeners have no valid configuration.
    pub(crate) fn listeners_not_ready(&self) -> usize {
        self.inner.server.not_ready.used()
    }

    /// Connections that servers closed before their first request, by reason.
    pub(crate) fn refused_connections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.inner.server.refused.counts()
    }

    /// What `/ready` says of a shutdown that has begun.
    pub(crate) fn leaving(&self) -> Option<&'static str> {
        let drain = &self.inner.drain;
        match (drain.is(Phase::Draining), drain.is(Phase::Leaving)) {
            (true, _) => Some("draining"),
            (false, true) => Some("leaving, and still serving"),
            (false, false) => None,
        }
    }

    /// Ready once a shutdown drains, which it does after [`MeshBuilder::lame_duck`].
    pub fn draining(&self) -> Draining {
        self.inner.drain.draining()
    }

    /// Ends the mesh: `/ready` is 503; after [`MeshBuilder::lame_duck`] servers drain, further calls are refused, and what
    /// is in flight may finish within `limit`. See [`drain`](crate::drain) for the contract, and for Kubernetes.
    pub async fn shutdown(&self, limit: Duration) -> Drained {
        self.inner.drain.leave(self.inner.lame_duck).await;
        let begun = Instant::now();
        // Servers first: the calls that their requests still make are part of what may finish.
        let drained = self.inner.drain.shutdown(limit).await;
        let left = limit.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, self.inner.finish()).await {
            Ok(()) => drained,
            Err(_) => {
                self.inner.drain.force();
                Drained::Forced
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.inner.runtime
    }

    fn target(&self, name: &str, open: impl FnOnce() -> Subscription<ClientSnapshot>) -> Arc<Target> {
        let mut targets = self.inner.lock();
        if let Some(open) = targets.get(name).and_then(Weak::upgrade) {
            return open;
        }
        targets.retain(|_, target| target.strong_count() > 0);
        let name: Arc<str> = name.into();
        let target = Target::open(name.clone(), open(), &self.inner.runtime);
        targets.insert(name, Arc::downgrade(&target));
        target
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("runtime", &self.inner.runtime).finish_non_exhaustive()
    }
}

// === impl Inner ===

impl Inner {
    /// Waits for the servers of the mesh, and then for the calls that are made through it; further ones are refused.
    /// Cancel safe.
    async fn finish(&self) {
        self.drain.let_go().await;
        self.shared.shut_down.store(true, Ordering::Relaxed);
        self.shared.calls.all_ended().await;
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        // Entries are added and removed whole.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
