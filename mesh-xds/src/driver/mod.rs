//! The driver: the only task of a source. It moves bytes between one control plane and the [`Engine`], and owns the clock.
//!
//! ```text
//! Idle ──a target opens──► Connecting ──► Streaming ──no target left for a while──► Idle
//!                             ▲  └─failed─┐   │ ended
//!                             └── Waiting ◄───┘   (gRFC A27 back-off)
//! ```
//! In every state targets can be opened and closed. There is one stream for all of them, and it ends with the task: the
//! source aborts it when it is dropped. Works on any tokio runtime; nothing is spawned but what tonic needs for the
//! connection, and that ends with the connection.

mod engine;
mod targets;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::rng::Xoshiro;
use tokio::time::sleep_until;

pub(crate) use self::engine::{Engine, Settings};
pub(crate) use self::targets::Targets;

use crate::ads::Reconnect;
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::transport::connect::Connect;
use crate::transport::{Decoder, Message, Room, Stream, render, render_status};

/// How long a stream is kept after the last target was closed, for one that may be opened next.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How many responses are taken in a row before an answer is sent. Up to that, what has arrived already is taken
/// first, because one answer does for all of a type, and each carries all names.
const UNANSWERED_MAX: u32 = 64;

/// The task of one source.
pub(crate) struct Driver {
    bootstrap: Arc<Bootstrap>,
    server: ServerConfig,
    connector: Arc<dyn Connect>,
    targets: Arc<Targets>,
    engine: Engine,
    decoder: Decoder,
    reconnect: Reconnect,
    rng: Xoshiro,
}

/// How a stream ended.
enum Ended {
    /// Nothing was wanted any more.
    Idle,
    /// The connection failed, or the control plane ended the stream.
    Lost(Arc<str>),
}

/// What the loop woke up for.
enum Event<'a> {
    Response(Result<Option<Message>, tonic::Status>),
    Room(Option<Room<'a>>),
    Targets,
    Timer,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(
        bootstrap: Arc<Bootstrap>,
        server: ServerConfig,
        connector: Arc<dyn Connect>,
        targets: Arc<Targets>,
        settings: Settings,
        rng: Xoshiro,
    ) -> Self {
        Self {
            decoder: Decoder::new(&bootstrap),
            engine: Engine::new(server.protocol(), settings),
            bootstrap,
            server,
            connector,
            targets,
            reconnect: Reconnect::new(),
            rng,
        }
    }

    /// Runs for ever; drop or abort it to end.
    pub(crate) async fn run(mut self) {
        loop {
            while self.engine.is_idle() {
                self.targets.changed().await;
                self.sync();
            }
            self.reconnect.handle_attempt(now());
            let ended = self.connect_and_stream().await;
            let next = self.reconnect.next_attempt(now(), &mut self.rng);
            let server = self.server.uri().as_str();
            let why = match ended {
                Ended::Idle => {
                    tracing::info!(server, "control plane no longer needed");
                    "the stream is closed".into()
                }
                Ended::Lost(why) => {
                    let retry_in = next.saturating_duration_since(now());
                    tracing::warn!(server, error = &*why, ?retry_in, "control plane connection failed");
                    why
                }
            };
            self.engine.handle_disconnected(now(), &format!("{server}: {why}").into());
            self.engine.settle();
            let wait = sleep_until(next.into());
            self.meanwhile(wait).await;
        }
    }

    async fn connect_and_stream(&mut self) -> Ended {
        let (server, connector) = (self.server.clone(), self.connector.clone());
        let bootstrap = self.bootstrap.clone();
        tracing::debug!(server = server.uri().as_str(), "connecting to control plane");
        match self.meanwhile(Stream::open(&bootstrap, &server, &*connector)).await {
            Err(error) => Ended::Lost(render(&error).into()),
            Ok(stream) => {
                tracing::info!(server = server.uri().as_str(), "control plane connected");
                self.engine.handle_connected(now());
                self.stream(stream).await
            }
        }
    }

    async fn stream(&mut self, mut stream: Stream) -> Ended {
        let (requests, mut responses) = stream.halves();
        let mut idle_since = None;
        let mut writable = true;
        let mut unanswered = 0;
        loop {
            let now = now();
            self.engine.handle_timeout(now);
            self.engine.settle();
            idle_since = if self.engine.is_idle() { idle_since.or(Some(now)) } else { None };
            let idle_at = idle_since.map(|since| since + IDLE_AFTER);
            if idle_at.is_some_and(|at| at <= now) {
                return Ended::Idle;
            }
            // A deadline that has passed is a refusal that waits for room, which is an event of its own.
            let timer =
                [self.engine.poll_timeout().filter(|at| *at > now), idle_at].into_iter().flatten().min();
            let wants_room = writable && self.engine.wants_transmit(now);
            let write_first = unanswered >= UNANSWERED_MAX;
            let event = tokio::select! {
                biased;
                () = self.targets.changed() => Event::Targets,
                () = sleep_until(timer.unwrap_or(now).into()), if timer.is_some() => Event::Timer,
                room = requests.reserve(), if wants_room && write_first => Event::Room(room.ok()),
                response = responses.next() => Event::Response(response),
                room = requests.reserve(), if wants_room => Event::Room(room.ok()),
            };
            unanswered = if matches!(event, Event::Response(_)) { unanswered + 1 } else { 0 };
            match event {
                Event::Response(Ok(Some(response))) => self.handle_response(response).await,
                Event::Response(Ok(None)) => return Ended::Lost("the control plane ended the stream".into()),
                Event::Response(Err(status)) => return Ended::Lost(render_status(&status)),
                Event::Room(Some(room)) => self.transmit(room),
                // Nobody takes requests any more: the end of the responses will say why.
                Event::Room(None) => writable = false,
                Event::Targets => self.sync(),
                // The next turn does what is due.
                Event::Timer => {}
            }
        }
    }

    async fn handle_response(&mut self, message: Message) {
        let type_url = message.type_url().to_owned();
        self.reconnect.handle_response();
        match self.decoder.decode(message).await {
            Some(response) => {
                let (kind, version, resources) =
                    (response.kind, &*response.version, response.resources.len());
                tracing::debug!(%kind, version, resources, "response received");
                self.engine.handle_response(now(), response);
                let Self { decoder, engine, .. } = self;
                decoder.shrink(kind, engine.watched(kind), |name| engine.is_watched(kind, name));
            }
            None => tracing::warn!(type_url, "control plane sent a type that was not asked for; ignored"),
        }
    }

    fn transmit(&mut self, room: Room<'_>) {
        let Some(request) = self.engine.poll_transmit(now()) else { return };
        let (kind, names) = (request.kind, request.names().len());
        match &request.refusal {
            Some(refusal) => tracing::warn!(%kind, refusal = &**refusal, "response refused (NACK)"),
            None if request.nonce.is_empty() => tracing::debug!(%kind, names, "subscribing"),
            None => tracing::debug!(%kind, names, "response accepted (ACK), or names changed"),
        }
        room.send(request);
    }

    /// Waits for `future`, while targets can be opened and closed, and times to live end.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            let timer = self.engine.poll_timeout();
            tokio::select! {
                output = &mut future => return output,
                () = self.targets.changed() => self.sync(),
                () = sleep_until(timer.unwrap_or_else(now).into()), if timer.is_some() => {
                    self.engine.handle_timeout(now());
                    self.engine.settle();
                }
            }
        }
    }

    fn sync(&mut self) {
        self.engine.sync(self.targets.open());
        self.engine.settle();
    }
}

/// The clock of tokio, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
