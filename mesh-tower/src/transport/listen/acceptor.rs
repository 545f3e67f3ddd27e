//! The accept loop, as a poll function: no task of its own, so it ends with whoever polls it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_core::snapshot::{Changes, ConfigError, Resolution, ServerSnapshot, Subscription};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tracing::Instrument as _;

use super::handshake::{Accepted, establish};
use super::io::MeshIo;
use crate::drain::{Draining, Held};
use crate::server::ServerRuntime;
use crate::server::chain::Chains;
use crate::server::concurrency::Permit;

/// What a listener does with connections, old and new.
#[derive(Debug, Clone)]
pub(crate) enum Serving {
    /// No valid listener has arrived yet: nothing is accepted.
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
    tcp: Option<TcpListener>,
    address: Option<SocketAddr>,
    changes: Changes<ServerSnapshot>,
    /// Keeps the target open at the source of configuration.
    _subscription: Subscription<ServerSnapshot>,
    serving: watch::Sender<Serving>,
    establishing: JoinSet<Option<MeshIo>>,
    handshakes: Arc<Semaphore>,
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
    pub(crate) fn new(server: Arc<ServerRuntime>, tcp: TcpListener, foreign: bool) -> Self {
        let address = tcp.local_addr().ok();
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let subscription = server.source.server(address.unwrap_or(unspecified));
        Self {
            changes: subscription.cell().subscribe(),
            _subscription: subscription,
            tcp: Some(tcp),
            address,
            serving: watch::Sender::new(Serving::Waiting),
            establishing: JoinSet::new(),
            handshakes: Arc::new(Semaphore::new(server.limits.handshakes)),
            draining: server.drain.draining(),
            _held: (!foreign).then(|| server.drain.hold()),
            pause: None,
            foreign,
            not_ready: Some(server.not_ready.enter()),
            server,
        }
    }

    /// What becomes of connections; each established one follows it.
    pub(crate) fn serving(&self) -> watch::Receiver<Serving> {
        self.serving.subscribe()
    }

    /// The next established connection; none once the mesh drains. Cancel safe.
    pub(crate) fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Option<MeshIo>> {
        if self.tcp.is_none() {
            return Poll::Ready(None);
        }
        if Pin::new(&mut self.draining).poll(cx).is_ready() {
            self.stop();
            return Poll::Ready(None);
        }
        while let Poll::Ready(resolution) = self.changes.poll_changed(cx) {
            self.apply(&resolution);
        }
        while self.poll_accepted(cx).is_ready() {}
        while let Poll::Ready(Some(established)) = self.establishing.poll_join_next(cx) {
            // A connection whose task panicked is closed like any that was refused.
            if let Ok(Some(io)) = established {
                return Poll::Ready(Some(io));
            }
        }
        Poll::Pending
    }

    /// Closes the socket and what has not been established, and tells every connection to drain.
    fn stop(&mut self) {
        self.tcp = None;
        self.establishing.abort_all();
        self.serving.send_replace(Serving::Draining);
        tracing::info!(address = ?self.address, "draining");
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
            Resolution::Pending(_) => return,
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
        let configured = chains.as_ref().and_then(|chains| Some(chains.listener()?.address));
        match chains {
            Some(chains) if configured == self.address => {
                if old.is_none() {
                    tracing::info!(address = ?self.address, version = snapshot.version, "serving");
                }
                Serving::Chains(Arc::new(chains))
            }
            // gRFC A36: a listener for another address is not ours to serve.
            Some(_) | None => {
                tracing::warn!(address = ?self.address, ?configured, "not serving: the listener is for another address");
                Serving::Absent
            }
        }
    }

    fn absent(&self, error: &ConfigError, previous: &Serving) -> Serving {
        if !matches!(previous, Serving::Absent) {
            tracing::warn!(address = ?self.address, %error, "not serving");
        }
        Serving::Absent
    }

    /// Accepts one connection, if there is a configuration to accept it under.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let chains = match &*self.serving.borrow() {
            Serving::Waiting | Serving::Draining => return Poll::Pending,
            Serving::Absent => None,
            Serving::Chains(chains) => Some(chains.clone()),
        };
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let Some(listener) = &self.tcp else { return Poll::Pending };
        match std::task::ready!(listener.poll_accept(cx)) {
            Ok((tcp, remote)) => self.begin(tcp, remote, chains),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = ?self.address, %error, "accepting failed; trying again in {PAUSE:?}");
                self.pause = Some(Box::pin(sleep(PAUSE)));
            }
        }
        Poll::Ready(())
    }

    fn begin(&mut self, tcp: TcpStream, remote: SocketAddr, chains: Option<Arc<Chains>>) {
        let Some(chains) = chains else { return };
        let Some(permit) = self.server.connections.try_acquire() else {
            tracing::debug!(%remote, "connection limit reached; closed");
            return;
        };
        let accepted = Accepted {
            tcp,
            permit,
            chains,
            server: self.server.clone(),
            handshakes: self.handshakes.clone(),
            foreign: self.foreign,
        };
        let span = tracing::debug_span!("establish", %remote);
        self.establishing.spawn_on(establish(accepted).instrument(span), &self.server.runtime);
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

/// Long enough not to spin while the process is out of file descriptors, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// The connection was lost before it was accepted: no reason to pause.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
