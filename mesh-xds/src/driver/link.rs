//! The connection to one control plane: opened while something is wanted of it, kept alive, opened again.
//!
//! ```text
//! Idle ──something is wanted──► Connecting ──► Streaming ──nothing wanted for a while, or not in use──► Waiting
//!  ▲                               ▲  └─failed─┐   │ ended                                                │
//!  └──nothing is wanted── Waiting ─┘◄──────────┴───┘                                                      │
//!                            ▲  (gRFC A27 back-off)                                                       │
//!                            └────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A link is polled by the driver and owns everything that it began: dropped, it ends. The clock is passed in.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mesh_core::rng::Rng;

use crate::ads::{Reconnect, Request};
use crate::authority::ServerIx;
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::outage::Outage;
use crate::transport::connect::Connect;
use crate::transport::{ConnectError, Credentials, Message, Stream};

/// How long a stream is kept after the last target was closed, for one that may be opened next.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How many responses are taken in a row before an answer is sent. Up to that, what has arrived already is taken
/// first, because one answer does for all of a type, and each carries all names.
const UNANSWERED_MAX: u32 = 64;

/// The connection to one control plane.
pub(super) struct Link {
    pub(super) server: ServerIx,
    bootstrap: Arc<Bootstrap>,
    config: ServerConfig,
    credentials: Arc<Credentials>,
    connector: Arc<dyn Connect>,
    reconnect: Reconnect,
    state: State,
}

enum State {
    /// Nothing is wanted.
    Idle,
    Connecting(Opening),
    Streaming(Streaming),
    /// For the next attempt.
    Waiting {
        until: Instant,
    },
}

struct Streaming {
    stream: Stream,
    /// Nobody takes requests any more: the end of the responses will say why.
    writable: bool,
    /// Responses taken since the last request.
    unanswered: u32,
    /// When it ends, if nothing is wanted until then.
    over_at: Option<Instant>,
}

type Opening = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

/// What the engine wants of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Resources.
    Something,
    /// Nothing at the moment.
    Nothing,
    /// Nothing, because another control plane is used (gRFC A71).
    Gone,
}

/// What became of a link by the passage of time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Same,
    /// The stream was closed from this side.
    Closed,
    /// It is not tried any more.
    Idle,
}

/// What happened on a link.
pub(super) enum Happened {
    Connected,
    Response(Message),
    /// There is room for one request: [`Link::send`] it, or [`Link::release`] the room.
    Room,
    /// The connection failed, or the control plane ended the stream. To be told to [`Link::handle_lost`].
    Lost(Outage),
}

// === impl Link ===

impl Link {
    pub(super) fn new(
        server: ServerIx,
        bootstrap: Arc<Bootstrap>,
        config: ServerConfig,
        connector: Arc<dyn Connect>,
    ) -> Self {
        let credentials = Arc::new(Credentials::new(&config));
        let (reconnect, state) = (Reconnect::new(), State::Idle);
        Self { server, bootstrap, config, credentials, connector, reconnect, state }
    }

    pub(super) fn uri(&self) -> &str {
        self.config.uri().as_str()
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Instant, wanted: Wanted, rng: &mut impl Rng) -> Turn {
        if let State::Streaming(streaming) = &mut self.state {
            streaming.handle_wanted(now, wanted);
        }
        match &self.state {
            State::Idle if wanted == Wanted::Something => {
                self.connect(now);
                Turn::Same
            }
            State::Waiting { until } if *until > now => Turn::Same,
            State::Waiting { .. } if wanted == Wanted::Something => {
                self.connect(now);
                Turn::Same
            }
            State::Waiting { .. } => {
                self.state = State::Idle;
                Turn::Idle
            }
            State::Idle => Turn::Same,
            State::Connecting(_) if wanted != Wanted::Gone => Turn::Same,
            State::Streaming(streaming) if streaming.over_at.is_none_or(|at| at > now) => Turn::Same,
            State::Connecting(_) | State::Streaming(_) => {
                let server = self.uri();
                tracing::info!(server, "control plane no longer needed");
                self.handle_lost(now, rng);
                Turn::Closed
            }
        }
    }

    /// When [`Link::turn`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle | State::Connecting(_) => None,
            State::Streaming(streaming) => streaming.over_at,
            State::Waiting { until } => Some(*until),
        }
    }

    /// Waits for the next thing that happens. Cancel safe: nothing is lost between two polls.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants_room: bool) -> Poll<Happened> {
        match &mut self.state {
            State::Idle | State::Waiting { .. } => Poll::Pending,
            State::Connecting(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Happened::Lost(error.outage())),
                Poll::Ready(Ok(stream)) => {
                    tracing::info!(server = self.uri(), "control plane connected");
                    self.state = State::Streaming(Streaming::new(stream));
                    Poll::Ready(Happened::Connected)
                }
            },
            State::Streaming(streaming) => streaming.poll(cx, wants_room),
        }
    }

    /// The control plane sent something valid enough to count as an answer.
    pub(super) fn handle_response(&mut self) {
        self.reconnect.handle_response();
    }

    /// The connection is gone: the next attempt has to wait. Returns how long.
    pub(super) fn handle_lost(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let until = self.reconnect.next_attempt(now, rng);
        self.state = State::Waiting { until };
        until.saturating_duration_since(now)
    }

    /// Sends a request, for which [`Happened::Room`] was the invitation.
    pub(super) fn send(&mut self, request: Request) {
        if let State::Streaming(streaming) = &mut self.state {
            streaming.unanswered = 0;
            streaming.stream.send(request);
        }
    }

    /// There is nothing to send.
    pub(super) fn release(&mut self) {
        if let State::Streaming(streaming) = &mut self.state {
            streaming.unanswered = 0;
            streaming.stream.release();
        }
    }

    fn connect(&mut self, now: Instant) {
        tracing::debug!(server = self.uri(), "connecting to control plane");
        self.reconnect.handle_attempt(now);
        let Self { bootstrap, config, credentials, connector, .. } = &*self;
        let (bootstrap, config) = (bootstrap.clone(), config.clone());
        let (credentials, connector) = (credentials.clone(), connector.clone());
        let opening = async move { Stream::open(&bootstrap, &config, &credentials, &*connector).await };
        self.state = State::Connecting(Box::pin(opening));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("server", &self.uri()).finish_non_exhaustive()
    }
}

// === impl Streaming ===

impl Streaming {
    fn new(stream: Stream) -> Self {
        Self { stream, writable: true, unanswered: 0, over_at: None }
    }

    fn handle_wanted(&mut self, now: Instant, wanted: Wanted) {
        self.over_at = match wanted {
            Wanted::Something => None,
            Wanted::Nothing => self.over_at.or(Some(now + IDLE_AFTER)),
            Wanted::Gone => Some(now),
        };
    }

    fn poll(&mut self, cx: &mut Context<'_>, wants_room: bool) -> Poll<Happened> {
        let write_first = self.unanswered >= UNANSWERED_MAX;
        if write_first && wants_room && self.poll_room(cx).is_ready() {
            return Poll::Ready(Happened::Room);
        }
        if let Poll::Ready(response) = self.stream.poll_response(cx) {
            self.unanswered = self.unanswered.saturating_add(1);
            return Poll::Ready(match response {
                Some(Ok(response)) => Happened::Response(response),
                Some(Err(status)) => Happened::Lost(self.stream.why(&status).into()),
                None => Happened::Lost("the control plane ended the stream".into()),
            });
        }
        if !write_first && wants_room && self.poll_room(cx).is_ready() {
            return Poll::Ready(Happened::Room);
        }
        Poll::Pending
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.writable {
            return Poll::Pending;
        }
        match self.stream.poll_room(cx) {
            Poll::Ready(true) => Poll::Ready(()),
            Poll::Ready(false) => {
                self.writable = false;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
