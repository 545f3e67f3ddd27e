//! The accept loop, as a poll function: no task of its own, so it ends with whoever polls it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_core::config::endpoints::Address;
use mesh_core::snapshot::{
    Changes, ConfigError, ConfigProblem, Resolution, ServerSnapshot, SnapshotCell, Subscription,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tracing::Instrument as _;

use super::handshake::{Accepted, establish};
use super::io::MeshIo;
use super::pending::PendingHandshakes;
use super::socket::{Incoming, ListeningSocket};
use super::turns::Turns;
use crate::drain::{Draining, Held};
use crate::server::ServerRuntime;
use crate::server::chain::Chains;
use crate::server::concurrency::Permit;

/// What a listener does with connections, old and new.
#[derive(Debug, Clone)]
pub(crate) enum Serving {
    /// No valid listener has arrived yet: connections are closed, so that nobody waits for one that may never come.
    Waiting,
    /// Connections belong to these chains.
    Chains(Arc<Chains>),
    /// The listener is gone: old connections are drained, new ones closed.
    Absent,
    /// The mesh drains: old connections are drained, the socket is closed.
    Draining,
}

/// A listening socket, the configuration of its address, and the connections that are not established yet.
pub(crate) struct Acceptor {
    server: Arc<ServerRuntime>,
    socket: Option<ListeningSocket>,
    address: Option<Address>,
    changes: Changes<ServerSnapshot>,
    /// Keeps the target open at the source of configuration.
    _subscription: Subscription<ServerSnapshot>,
    serving: watch::Sender<Serving>,
    establishing: JoinSet<Option<MeshIo>>,
    pending: Arc<PendingHandshakes>,
    /// One at once per processor: more would only keep other tasks from running.
    turns: Arc<Turns>,
    draining: Draining,
    /// A shutdown waits for this listener, unless somebody else's server decides when it is dropped.
    _held: Option<Held>,
    /// Ends a pause after an error of the socket.
    pause: Option<Pin<Box<Sleep>>>,
    foreign: bool,
    /// Counted among the listeners that do not serve.
    not_ready: Option<Permit>,
}

// === impl Acceptor ===

impl Acceptor {
    /// `foreign`: the connections will be served by a server that is not ours.
    pub(crate) fn new(server: Arc<ServerRuntime>, socket: ListeningSocket, foreign: bool) -> Self {
        if let Err(error) = socket.set_backlog(BACKLOG) {
            tracing::debug!(?error, "the backlog stays as it came");
        }
        let address = socket.address();
        let subscription = match &address {
            Some(address) => server.source.server(address),
            None => Subscription::fixed(SnapshotCell::new(Resolution::Failed(without_address()))),
        };
        Self {
            changes: subscription.cell().subscribe(),
            _subscription: subscription,
            socket: Some(socket),
            address,
            serving: watch::Sender::new(Serving::Waiting),
            establishing: JoinSet::new(),
            pending: PendingHandshakes::new(server.limits.handshakes),
            turns: Turns::new(std::thread::available_parallelism().map_or(1, usize::from)),
            draining: server.drain.draining(),
            _held: (!foreign).then(|| server.drain.hold()),
            pause: None,
            foreign,
            not_ready: Some(server.not_ready.enter()),
            server,
        }
    }

    /// The address that the socket is bound to.
    pub(super) fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The same, for logs.
    fn shown(&self) -> impl std::fmt::Display + use<> {
        self.address.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
    }

    /// What becomes of connections; each established one follows it.
    pub(crate) fn serving(&self) -> watch::Receiver<Serving> {
        self.serving.subscribe()
    }

    /// The next established connection; none once the mesh drains. Cancel safe.
    pub(crate) fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshIo>> {
        if self.socket.is_none() {
            return self.poll_last(cx);
        }
        if Pin::new(&mut self.draining).poll(cx).is_ready() {
            self.stop();
            return self.poll_last(cx);
        }
        while let Poll::Ready(resolution) = self.changes.poll_changed(cx) {
            self.apply(&resolution);
        }
        if (0..ACCEPTS).all(|_| self.poll_accepted(cx).is_ready()) {
            // There may be more, after those who wait for this task's thread.
            cx.waker().wake_by_ref();
        }
        while let Poll::Ready(Some(established)) = self.establishing.poll_join_next(cx) {
            // A connection whose task panicked is closed like any that was refused.
            if let Ok(Some(io)) = established {
                return Poll::Ready(Some(io));
            }
        }
        Poll::Pending
    }

    /// Closes the socket, and tells every connection to drain. What the kernel has accepted already is served: to its
    /// client it is a connection like any other.
    fn stop(&mut self) {
        let socket = self.socket.take();
        if self.foreign {
            self.establishing.abort_all();
        } else if let Some(socket) = socket {
            self.accept_queued(socket);
        }
        self.pause = Some(Box::pin(sleep(self.server.limits.drain_idle_grace)));
        self.serving.send_replace(Serving::Draining);
        tracing::info!(address = %self.shown(), "draining");
    }

    fn accept_queued(&mut self, socket: ListeningSocket) {
        let Serving::Chains(chains) = self.serving.borrow().clone() else { return };
        for queued in socket.into_queued() {
            self.begin(queued, Some(chains.clone()));
        }
    }

    /// The connections that were accepted before the end, as far as they are established soon.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshIo>> {
        if let Some(pause) = &mut self.pause
            && pause.as_mut().poll(cx).is_ready()
        {
            self.pause = None;
            self.establishing.abort_all();
        }
        loop {
            match std::task::ready!(self.establishing.poll_join_next(cx)) {
                Some(Ok(Some(io))) => return Poll::Ready(Some(io)),
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    /// Whether the listener has a valid configuration, for `/ready`.
    fn note_ready(&mut self, ready: bool) {
        self.not_ready =
            (!ready).then(|| self.not_ready.take().unwrap_or_else(|| self.server.not_ready.enter()));
    }

    fn apply(&mut self, resolution: &Resolution<ServerSnapshot>) {
        let previous = self.serving.borrow().clone();
        let next = match resolution {
            // Nothing known yet; what was served before goes on being served.
            Resolution::Pending(error) => {
                if matches!(previous, Serving::Waiting) {
                    tracing::info!(address = %self.shown(), "waiting for {} {:?}", error.kind, error.name);
                }
                return;
            }
            Resolution::Ready(snapshot) => self.chains(snapshot, &previous),
            Resolution::Failed(error) => self.absent(error, &previous),
        };
        self.note_ready(matches!(next, Serving::Chains(_)));
        self.serving.send_replace(next);
    }

    fn chains(&self, snapshot: &ServerSnapshot, previous: &Serving) -> Serving {
        let old = match previous {
            Serving::Chains(chains) => Some(&**chains),
            Serving::Waiting | Serving::Absent | Serving::Draining => None,
        };
        let chains = Chains::of(snapshot, old, self.server.tls.as_ref());
        let configured = chains.as_ref().and_then(|chains| Some(chains.listener()?.address.clone()));
        match chains {
            Some(chains) if configured == self.address => {
                if old.is_none() {
                    tracing::info!(address = %self.shown(), version = snapshot.version, "serving");
                }
                Serving::Chains(Arc::new(chains))
            }
            // gRFC A36: a listener for another address is not ours to serve.
            Some(_) | None => {
                let configured = configured.map(|address| address.to_string());
                tracing::warn!(address = %self.shown(), ?configured, "not serving: the listener is for another address");
                Serving::Absent
            }
        }
    }

    fn absent(&self, error: &ConfigError, previous: &Serving) -> Serving {
        if !matches!(previous, Serving::Absent) {
            tracing::warn!(address = %self.shown(), %error, "not serving");
        }
        Serving::Absent
    }

    /// Accepts one connection, and closes it if there is no configuration to serve it under (gRFC A36, "not serving").
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let chains = match &*self.serving.borrow() {
            Serving::Draining => return Poll::Pending,
            Serving::Waiting | Serving::Absent => None,
            Serving::Chains(chains) => Some(chains.clone()),
        };
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let Some(socket) = &self.socket else { return Poll::Pending };
        match std::task::ready!(socket.poll_accept(cx)) {
            Ok(incoming) => self.begin(incoming, chains),
            Err(error) if is_of_one_connection(&error) => {}
            // Most likely the descriptors are used up, and one is about to come free.
            Err(error) if self.pending.give_way() => {
                tracing::debug!(address = %self.shown(), %error, "accepting failed; a silent connection was closed");
                self.pause = Some(Box::pin(sleep(SHORT_PAUSE)));
            }
            Err(error) => {
                tracing::warn!(address = %self.shown(), %error, "accepting failed; trying again in {PAUSE:?}");
                self.pause = Some(Box::pin(sleep(PAUSE)));
            }
        }
        Poll::Ready(())
    }

    fn begin(&mut self, (stream, remote): Incoming, chains: Option<Arc<Chains>>) {
        let Some(chains) = chains else {
            tracing::debug!(?remote, "not serving; closed");
            return;
        };
        let connections = &self.server.connections;
        // The connection that gives way is closed at once; its permit is only counted back when its task has ended.
        let permit =
            connections.try_acquire().or_else(|| self.pending.give_way().then(|| connections.enter()));
        let Some(permit) = permit else {
            tracing::debug!(?remote, "connection limit reached; closed");
            return;
        };
        let now = Instant::now();
        let place = self.pending.enter(remote.map(|remote| remote.ip()), now);
        let task = place.task();
        let accepted = Accepted {
            stream,
            listening: self.address.clone(),
            permit,
            chains,
            server: self.server.clone(),
            turns: self.turns.clone(),
            place,
            foreign: self.foreign,
        };
        let span = tracing::debug_span!("establish", ?remote);
        let handle = self.establishing.spawn_on(establish(accepted).instrument(span), &self.server.runtime);
        // It is set here alone.
        let _ = task.set(handle);
        self.pending.trim(now);
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("address", &self.address)
            .field("establishing", &self.establishing.len())
            .finish_non_exhaustive()
    }
}

/// Nothing can be configured for a socket that has no address.
fn without_address() -> ConfigError {
    let why = "the socket has no address; bind it to one";
    let problem = ConfigProblem::Invalid(why.into());
    ConfigError { kind: "listener", name: Arc::from("-"), problem, node: Arc::from("-") }
}

/// Connections that the kernel may hold for us, up to a limit of its own (`net.core.somaxconn`). A listener comes with
/// 128 of the standard library, or 1,024 of tokio, and a client beyond that waits a second or more for its turn.
const BACKLOG: i32 = 4_096;

/// Long enough not to spin while the process is out of file descriptors, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// Enough for a task that was aborted to close its socket.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Connections that are accepted in a row: other tasks of the thread, the handshakes among them, get their turn.
const ACCEPTS: usize = 32;

/// The connection was lost before it was accepted: no reason to pause.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
