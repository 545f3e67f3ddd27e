//! One ADS stream: a reader and a writer, neither of which ever waits for the other.
//!
//! The reader takes requests as fast as they come and folds them into the [`Subscriber`](super::subscriber::Subscriber),
//! whose size depends on what is wanted and not on how often it was said. The writer makes a response only when there
//! is room for it, from the state of that moment. A client that writes without reading, or reads without answering, holds
//! at most one response of each kind in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::clients::Registration;
use super::control::Shared;
use super::serve::closed;
use super::service::shutting_down;
use super::subscriber::{Ask, Push, Received, TooManyNames};

/// What a stream needs.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) shared: Arc<Shared>,
    pub(super) registration: Arc<Registration>,
    pub(super) closing: watch::Receiver<bool>,
}

/// The responses of one stream. Dropping it ends the stream's reader and writer, and takes the client out of the status.
#[derive(Debug)]
pub(super) struct Responses<R> {
    queue: mpsc::Receiver<Result<R, Status>>,
    _tasks: JoinSet<()>,
}

struct Reader {
    shared: Arc<Shared>,
    registration: Arc<Registration>,
    wake: Arc<Notify>,
}

struct Writer<R> {
    stream: Stream,
    wake: Arc<Notify>,
    /// The reader has ended, and with it the stream: by the client, or with a status.
    done: oneshot::Receiver<Status>,
    sender: mpsc::Sender<Result<R, Status>>,
}

// === impl Stream ===

impl Stream {
    pub(super) fn run<Q, R>(self, requests: Streaming<Q>) -> Responses<R>
    where
        Q: Into<Ask> + Send + 'static,
        R: From<Push> + Send + 'static,
    {
        let wake = Arc::new(Notify::new());
        let (end, done) = oneshot::channel();
        let (sender, queue) = mpsc::channel(1);
        let reader = Reader {
            shared: Arc::clone(&self.shared),
            registration: Arc::clone(&self.registration),
            wake: Arc::clone(&wake),
        };
        let stream = self.registration.client.stream();
        let read = async move {
            if let Err(TooManyNames) = reader.run(requests).await {
                // The writer may be gone already.
                drop(end.send(Status::resource_exhausted(TooManyNames.to_string())));
            }
        };
        let write = Writer { stream: self, wake, done, sender }.run();
        let mut tasks = JoinSet::new();
        tasks.spawn(read.instrument(tracing::debug_span!("ads_reader", stream)));
        tasks.spawn(write.instrument(tracing::debug_span!("ads_writer", stream)));
        Responses { queue, _tasks: tasks }
    }
}

// === impl Reader ===

impl Reader {
    /// Takes requests until the client ends its side.
    async fn run<Q: Into<Ask>>(self, mut requests: Streaming<Q>) -> Result<(), TooManyNames> {
        let client = &self.registration.client;
        let stream = client.stream();
        loop {
            let request = match requests.message().await {
                Ok(Some(request)) => request.into(),
                Ok(None) => return Ok(()),
                Err(status) => {
                    tracing::debug!(stream, %status, "ADS stream failed");
                    return Ok(());
                }
            };
            let received =
                client.subscriber().handle(request, Instant::now(), |node| self.shared.view_of(node));
            match received {
                Ok(Received::Nacked(kind, nack)) => {
                    tracing::warn!(stream, %kind, version = nack.version, reason = nack.message, "client refused resources");
                }
                Ok(Received::UnknownType) => {
                    tracing::debug!(stream, "client asked for a type that is not served");
                }
                Ok(Received::Stale(kind)) => {
                    tracing::trace!(stream, %kind, "request answers an older response");
                }
                Ok(Received::Acked(kind, version)) => {
                    tracing::debug!(stream, %kind, version, "acknowledged");
                }
                Ok(Received::Subscribed(kind)) => tracing::debug!(stream, %kind, "subscription changed"),
                Err(error) => {
                    tracing::warn!(stream, %error, "client is cut off");
                    return Err(error);
                }
            }
            self.wake.notify_one();
            self.shared.clients.notify();
        }
    }
}

// === impl Writer ===

impl<R: From<Push>> Writer<R> {
    async fn run(mut self) {
        let mut changes = self.stream.shared.changes();
        let status = loop {
            // Room first, content second: what waits for the client is never stale.
            let permit = tokio::select! {
                permit = self.sender.reserve() => permit,
                ended = &mut self.done => break ended.ok(),
                () = closed(&mut self.stream.closing) => return,
            };
            let Ok(permit) = permit else { return };
            changes.borrow_and_update();
            let (push, timeout) = self.stream.next();
            if let Some(push) = push {
                permit.send(Ok(push.into()));
                self.stream.shared.clients.notify();
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                _ = changes.changed() => {}
                () = at(timeout) => {}
                ended = &mut self.done => break ended.ok(),
                () = closed(&mut self.stream.closing) => {
                    permit.send(Err(shutting_down()));
                    return;
                }
            }
        };
        if let Some(status) = status {
            // A client that does not read does not learn why.
            drop(tokio::time::timeout(FAREWELL, self.sender.send(Err(status))).await);
        }
    }
}

impl Stream {
    fn next(&self) -> (Option<Push>, Option<Instant>) {
        // Lock order everywhere: the cache, then a client.
        let cache = self.shared.resources();
        let mut subscriber = self.registration.client.subscriber();
        (subscriber.poll(Instant::now(), &cache), subscriber.poll_timeout())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

// === impl Responses ===

impl<R> futures_core::Stream for Responses<R> {
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(cx)
    }
}

/// How long the last status may wait for the client to read it.
const FAREWELL: Duration = Duration::from_secs(5);
