//! The typed requests that travel down the stack. What is large stays in the call: it is lent on the way down, and only
//! what is known of it travels up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use mesh_core::breaker::Permit;
use mesh_core::config::endpoints::EndpointExtra;
use mesh_core::deadline::Deadline;
use mesh_core::error::Rejection;
use mesh_core::outcome::{GrpcCode, Outcome, ResponseFlags};
use mesh_core::request::RequestKind;
use mesh_core::retry::Untouched;
use mesh_core::route::RouteEntry;
use mesh_core::snapshot::ConfigSource;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::channel::target::TargetAuthority;
use super::outlier::{Observation, outcome_of};
use super::pin::{PinnedCluster, PinnedSnapshot};
use super::service::Stage;
use crate::body::Body;
use crate::local_reply::LocalReplies;
use crate::runtime::endpoint::{EndpointRuntime, InFlight};
use crate::telemetry::Telemetry;
use crate::telemetry::span::ActiveSpan;

/// What all calls of one mesh share.
pub(crate) struct Shared {
    pub(crate) telemetry: Telemetry,
    pub(crate) replies: Arc<LocalReplies>,
    pub(crate) runtime: Handle,
    /// No further calls.
    pub(crate) shut_down: AtomicBool,
    pub(crate) calls: Calls,
    /// Kept open as long as there is a channel, whatever becomes of the `Mesh` that opened it.
    pub(crate) _source: Arc<dyn ConfigSource>,
}

/// Counts the calls of one mesh, for its shutdown.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    in_flight: AtomicUsize,
    /// Somebody waits for the last one to end.
    awaited: AtomicBool,
    ended: Notify,
}

/// One request from the application, what becomes known of it on its way, and in the end the body of its response:
/// one allocation from the first to the last byte of a call. Dropping it before its end tells of a cancelled call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request<Body>,
    pub(crate) exchange: Exchange,
    pub(crate) kind: RequestKind,
    /// The request came with a `host` header.
    pub(crate) has_host: bool,
    /// The request came with a `traceparent` header.
    pub(crate) has_traceparent: bool,
    /// The target's authority, for requests that name none.
    pub(crate) authority: Arc<TargetAuthority>,
    pub(crate) arrived: Instant,
    /// The caller's own timeout.
    pub(crate) timeout: Option<Duration>,
    /// The deadline of the request that this call is made for.
    pub(crate) inherited: Option<Instant>,
    /// When the call must be over; tightened by the route.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) span: Option<ActiveSpan>,
    pub(crate) facts: Facts,
    pub(crate) answer: Answer,
}

/// What an attempt sends, and in the same place what it receives.
#[derive(Debug, Default)]
pub(crate) enum Exchange {
    /// Nothing yet, or the request is on its way.
    #[default]
    Nothing,
    /// To be sent.
    Request(Request<Body>),
    /// To be handed on.
    Response(Response<Body>),
}

/// What is told of a call at its end. Lent to every layer, so that a call that fails half way tells as much as is known.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) snapshot: u64,
    pub(crate) route: Option<Arc<RouteEntry>>,
    pub(crate) cluster: Option<Arc<PinnedCluster>>,
    pub(crate) upstream: Option<Arc<EndpointRuntime>>,
    pub(crate) extra: Option<Arc<EndpointExtra>>,
    pub(crate) attempts: u32,
    pub(crate) flags: ResponseFlags,
    /// Bytes of the request that are known at once: headers, and a body that was all there.
    pub(crate) known_bytes: u64,
    /// Bytes of a body that streams.
    pub(crate) streamed_bytes: Option<Arc<AtomicU64>>,
}

/// The response as far as it has been passed on.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) body: Body,
    pub(crate) held: Held,
    pub(crate) timer: Option<std::pin::Pin<Box<Sleep>>>,
    pub(crate) status: u16,
    pub(crate) grpc: Option<GrpcCode>,
    pub(crate) details: &'static str,
    pub(crate) bytes: u64,
    /// The end has come and has been told.
    pub(crate) over: bool,
}

/// A call with the snapshot that it uses from now on.
#[derive(Debug)]
pub(crate) struct Pinned<'c> {
    pub(crate) call: &'c mut Call,
    pub(crate) snapshot: Arc<PinnedSnapshot>,
}

/// A call with its route and cluster. The snapshot as a whole is let go: an hour-long call must not hold it.
#[derive(Debug)]
pub(crate) struct Routed<'c> {
    pub(crate) call: &'c mut Call,
    pub(crate) route: Arc<RouteEntry>,
    pub(crate) cluster: Arc<PinnedCluster>,
}

/// One attempt of a call. What is large is lent, so that it stays where it is while the attempt passes the layers.
#[derive(Debug)]
pub(crate) struct Attempt<'c> {
    /// Holds the request, which is taken by whoever sends it, and still or again there where nothing of it left. Holds
    /// the response when the attempt ends with an outcome.
    pub(crate) exchange: &'c mut Exchange,
    pub(crate) kind: RequestKind,
    pub(crate) cluster: &'c PinnedCluster,
    pub(crate) facts: &'c mut Facts,
    pub(crate) held: &'c mut Held,
}

/// An attempt with its endpoint.
#[derive(Debug)]
pub(crate) struct Picked<'c> {
    /// As in [`Attempt`].
    pub(crate) exchange: &'c mut Exchange,
    pub(crate) kind: RequestKind,
    pub(crate) cluster: &'c PinnedCluster,
    pub(crate) endpoint: &'c Arc<EndpointRuntime>,
    pub(crate) held: &'c mut Held,
}

/// What an attempt holds: given back when it fails, or else when the body of its response ends.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) request: Option<Permit>,
    pub(crate) retry: Option<Permit>,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) observation: Option<Observation>,
    /// The span of the attempt, where it is recorded.
    pub(crate) span: Option<Box<ActiveSpan>>,
}

/// An attempt that has no response.
#[derive(Debug)]
pub(crate) struct AttemptError {
    pub(crate) rejection: Rejection,
    /// Proof that the peer did nothing.
    pub(crate) untouched: Option<Untouched>,
}

/// Between channel and trace: the call is handed over, and comes back as the body of its response.
#[derive(Debug)]
pub(crate) enum EntryStage {}
/// Between trace and pin.
#[derive(Debug)]
pub(crate) enum CallStage {}
/// Between pin and route.
#[derive(Debug)]
pub(crate) enum PinnedStage {}
/// Between route and retry.
#[derive(Debug)]
pub(crate) enum RoutedStage {}
/// Between retry and balance.
#[derive(Debug)]
pub(crate) enum AttemptStage {}
/// Below balance.
#[derive(Debug)]
pub(crate) enum PickedStage {}

impl Stage for EntryStage {
    type Request<'c> = Box<Call>;
    type Response = Response<Body>;
    type Error = Rejection;
}

impl Stage for CallStage {
    type Request<'c> = &'c mut Call;
    type Response = Outcome;
    type Error = Rejection;
}

impl Stage for PinnedStage {
    type Request<'c> = Pinned<'c>;
    type Response = Outcome;
    type Error = Rejection;
}

impl Stage for RoutedStage {
    type Request<'c> = Routed<'c>;
    type Response = Outcome;
    type Error = Rejection;
}

impl Stage for AttemptStage {
    type Request<'c> = Attempt<'c>;
    type Response = Outcome;
    type Error = AttemptError;
}

impl Stage for PickedStage {
    type Request<'c> = Picked<'c>;
    type Response = Outcome;
    type Error = AttemptError;
}

// === impl Calls ===

impl Calls {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        // Sequentially consistent, as in `all_ended`: either sees the other's.
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.awaited.load(Ordering::SeqCst) {
            self.ended.notify_waiters();
        }
    }

    /// Waits until no call is in flight. Cancel safe.
    pub(crate) async fn all_ended(&self) {
        self.awaited.store(true, Ordering::SeqCst);
        loop {
            let ended = self.ended.notified();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

// === impl Facts ===

impl Facts {
    /// Bytes of the request, all attempts of a streaming body counted once.
    pub(crate) fn request_bytes(&self) -> u64 {
        let streamed = self.streamed_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        self.known_bytes + streamed
    }

    /// Ends the span of an attempt, if it has one.
    pub(crate) fn end_attempt(&self, span: Option<Box<ActiveSpan>>, outcome: Outcome) {
        if let Some(mut span) = span {
            let nowhere: &dyn fmt::Display = &"";
            span.end_attempt(outcome, self.upstream.as_ref().map_or(nowhere, |endpoint| endpoint.address()));
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Hands over the request, if there is one. A response stays.
    #[inline]
    pub(crate) fn send<R>(&mut self, send: impl FnOnce(Request<Body>) -> R) -> Option<R> {
        // From one place to the other: requests are large.
        match std::mem::take(self) {
            Self::Request(request) => Some(send(request)),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) fn request(&self) -> Option<&Request<Body>> {
        match self {
            Self::Request(request) => Some(request),
            Self::Nothing | Self::Response(_) => None,
        }
    }

    /// A request of which nothing left comes back.
    pub(crate) fn give_back(&mut self, request: Option<Request<Body>>) {
        *self = request.map_or(Self::Nothing, Self::Request);
    }

    /// The response is there.
    pub(crate) fn receive(&mut self, response: Response<Body>, kind: RequestKind) -> Outcome {
        let outcome = outcome_of(&response, kind);
        *self = Self::Response(response);
        outcome
    }

    pub(crate) fn response(&self) -> Option<&Response<Body>> {
        match self {
            Self::Response(response) => Some(response),
            Self::Nothing | Self::Request(_) => None,
        }
    }

    /// The response, to be handed on. A request stays.
    pub(crate) fn take_response(&mut self) -> Option<Response<Body>> {
        match self {
            Self::Response(_) => match std::mem::take(self) {
                Self::Response(response) => Some(response),
                Self::Nothing | Self::Request(_) => None,
            },
            Self::Nothing | Self::Request(_) => None,
        }
    }
}

// === impl AttemptError ===

impl From<Rejection> for AttemptError {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, untouched: None }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_last_call_wakes_who_waits_for_it() {
        let calls = Calls::default();
        assert_ready!(task::spawn(calls.all_ended()).poll());
        calls.begin();
        calls.begin();
        let mut ended = task::spawn(calls.all_ended());
        assert_pending!(ended.poll());
        calls.end();
        assert!(!ended.is_woken());
        calls.end();
        assert!(ended.is_woken());
        assert_ready!(ended.poll());
    }
}
