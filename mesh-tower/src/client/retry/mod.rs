//! Repeats attempts: transparently where the peer provably did nothing, by policy otherwise.
//!
//! Place in the stack: below `route`; everything below runs once per attempt. The verdict is `mesh_core::retry`'s
//! (gRFC A6, A44; Envoy's retry policy); this layer keeps the request repeatable ([`replay`]), holds the retry permit
//! of the cluster's breaker, bounds each try (`per_try_timeout`, not for gRPC) and writes the remaining time into
//! `grpc-timeout`. A response head that is passed on commits the call: what was kept of the request is let go. On
//! drop: the attempt in flight is cancelled. On config change: a call keeps its policy.

mod replay;
#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use mesh_core::breaker::Permit;
use mesh_core::config::retry::RetryPolicy;
use mesh_core::config::route::RouteAction;
use mesh_core::deadline::{Deadline, GRPC_TIMEOUT, format_grpc_timeout};
use mesh_core::error::{Reason, Rejection};
use mesh_core::outcome::{Outcome, ResponseFlags};
use mesh_core::request::RequestKind;
use mesh_core::retry::{Ended, Retries, Stop, Untouched, Verdict, attempt_timeout};
use mesh_core::route::RouteEntry;
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::replay::Replay;
use super::deadline::{Within, timer};
use super::pin::PinnedCluster;
use super::request::{Attempt, AttemptError, AttemptStage, Call, Exchange, Routed, RoutedStage};
use super::service::Service;
use crate::body::Body;
use crate::client::trace::header_bytes;
use crate::runtime::rng::ThreadRng;
use crate::telemetry::span::{ActiveSpan, SpanOf, SpanStart};

/// The layer.
#[derive(Debug)]
pub(crate) struct Retry<S> {
    inner: S,
    runtime: Handle,
}

/// `grpc-previous-rpc-attempts`.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Transparent repetitions in a row. Each needs a connection that closed in the very moment of sending, so this many
/// mean that something else is wrong; the bound keeps a call from spinning.
const MOST_TRANSPARENT: u32 = 32;

/// Connections that may go away under one call. The pool paces them, so this only ends what would go on for ever.
const MOST_GONE_AWAY: u32 = 256;

/// The state of one call's attempts.
struct Attempts<'c> {
    replay: Replay,
    policy: Option<&'c RetryPolicy>,
    retries: Retries,
    permit: Option<Permit>,
    transparent: u32,
    gone_away: u32,
    /// Retries by policy so far.
    previous: u32,
}

/// What changes in the head of a request from attempt to attempt.
struct Fresh<'c> {
    span: Option<&'c ActiveSpan>,
    deadline: Option<Deadline>,
    previous: u32,
}

/// What follows an attempt.
enum Next {
    Return(Result<Outcome, Rejection>),
    Again,
    After(std::time::Duration),
}

impl<S> Retry<S> {
    pub(crate) fn new(inner: S, runtime: Handle) -> Self {
        Self { inner, runtime }
    }
}

impl<S: Service<AttemptStage>> Service<RoutedStage> for Retry<S> {
    async fn call<'c>(&'c self, routed: Routed<'c>) -> Result<Outcome, Rejection> {
        let Routed { call, route, cluster } = routed;
        let mut attempts = Attempts::new(call, policy_of(&route));
        // A body that is all there needs no sharing between attempts.
        std::future::poll_fn(|cx| attempts.replay.poll_whole(cx)).await;
        call.facts.known_bytes = attempts.replay.known_bytes();
        loop {
            attempts.prepare(call)?;
            let limit = attempts.try_limit(call.kind);
            let attempt = Attempt {
                exchange: &mut call.exchange,
                kind: call.kind,
                cluster: &cluster,
                facts: &mut call.facts,
                held: &mut call.answer.held,
            };
            let result = Within::new(self.inner.call(attempt), limit, &self.runtime).await;
            match attempts.next(result, call, &cluster) {
                Next::Return(result) => return result,
                Next::Again => tokio::task::yield_now().await,
                Next::After(wait) => timer((Instant::now() + wait).into_std(), &self.runtime).await,
            }
        }
    }
}

// === impl Attempts ===

impl<'c> Attempts<'c> {
    fn new(call: &mut Call, policy: Option<&'c RetryPolicy>) -> Self {
        let body = std::mem::take(call.request.body_mut());
        Self {
            replay: Replay::new(body, policy.is_some()),
            policy,
            retries: Retries::new(),
            permit: None,
            transparent: 0,
            gone_away: 0,
            previous: 0,
        }
    }

    /// Makes the request of the next attempt.
    fn prepare(&mut self, call: &mut Call) -> Result<(), Rejection> {
        let of_call = call.span.as_ref();
        call.answer.held.span =
            of_call.filter(|span| span.is_recorded()).map(|of_call| Box::new(begin_span(call, of_call)));
        let fresh = Fresh {
            // The peer continues the span of the attempt, or else that of the call.
            span: call.answer.held.span.as_deref().or(call.span.as_ref()),
            deadline: call.deadline.filter(|_| call.kind == RequestKind::Grpc),
            previous: if call.kind == RequestKind::Grpc { self.previous } else { 0 },
        };
        if let Exchange::Request(request) = &mut call.exchange {
            // It came back from an attempt that sent nothing of it.
            fresh.write(request.headers_mut());
        } else {
            let body = self.replay.next().ok_or_else(|| Rejection::new(Reason::RequestBody))?;
            // Before they are copied: a copy has no room for more.
            fresh.write(call.request.headers_mut());
            // Made where it stays.
            call.exchange = Exchange::Request(copy_of(&call.request, body));
        }
        if call.facts.attempts == 0 {
            call.facts.known_bytes += header_bytes(call.request.headers());
            call.facts.streamed_bytes = self.replay.streamed_bytes();
        }
        call.facts.attempts += 1;
        Ok(())
    }

    /// `per_try_timeout`, where it applies.
    fn try_limit(&self, kind: RequestKind) -> Option<Deadline> {
        let timeout = attempt_timeout(self.policy, kind)?;
        let at = Instant::now().checked_add(timeout)?;
        Some(Deadline { at: at.into_std(), bound: Reason::PerTryTimeout })
    }

    fn next(
        &mut self,
        result: Result<Outcome, AttemptError>,
        call: &mut Call,
        cluster: &PinnedCluster,
    ) -> Next {
        let ended = ended(&result, call);
        let (outcome, untouched) = (ended.outcome, ended.untouched);
        let verdict = self.retries.after(self.policy, &ended, &mut ThreadRng);
        let next = match verdict {
            Verdict::Transparent if self.can_repeat(call) && self.count_transparent(untouched) => Next::Again,
            Verdict::Retry { after } if self.can_repeat(call) => {
                if self.permit(cluster) {
                    self.previous += 1;
                    Next::After(after)
                } else {
                    call.facts.flags = call.facts.flags.union(ResponseFlags::UPSTREAM_OVERFLOW);
                    self.finish(result, call)
                }
            }
            Verdict::Stop(Stop::Exhausted) => {
                let used_up = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
                call.facts.flags = call.facts.flags.union(used_up);
                self.finish(result, call)
            }
            _ => self.finish(result, call),
        };
        if !matches!(next, Next::Return(Ok(_))) {
            call.exchange.take_response();
            let held = std::mem::take(&mut call.answer.held);
            call.facts.end_attempt(held.span, outcome);
        }
        next
    }

    /// Whether there is room for one more transparent repetition.
    fn count_transparent(&mut self, untouched: Option<Untouched>) -> bool {
        if untouched == Some(Untouched::GoneAway) {
            self.transparent = 0;
            self.gone_away += 1;
            return self.gone_away <= MOST_GONE_AWAY;
        }
        self.transparent += 1;
        self.transparent <= MOST_TRANSPARENT
    }

    fn can_repeat(&self, call: &Call) -> bool {
        matches!(call.exchange, Exchange::Request(_)) || self.replay.can_repeat()
    }

    /// One permit serves all retries of a call: they follow each other.
    fn permit(&mut self, cluster: &PinnedCluster) -> bool {
        if self.permit.is_none() {
            self.permit = cluster.runtime.permits().retry(&cluster.config.limits).ok();
        }
        self.permit.is_some()
    }

    fn finish(&mut self, result: Result<Outcome, AttemptError>, call: &mut Call) -> Next {
        self.replay.commit();
        if result.is_ok() {
            call.answer.held.retry = self.permit.take();
        }
        Next::Return(result.map_err(|error| error.rejection))
    }
}

// === impl Fresh ===

impl Fresh<'_> {
    fn write(&self, headers: &mut HeaderMap) {
        if let Some(span) = self.span {
            span.context().inject(headers);
        }
        if let Some(deadline) = &self.deadline {
            put_timeout(headers, deadline);
        }
        if self.previous > 0 {
            // gRFC A6.
            headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.previous));
        }
    }
}

/// The span of an attempt, below a call's.
fn begin_span(call: &Call, of_call: &ActiveSpan) -> ActiveSpan {
    let start = SpanStart {
        of: SpanOf::Attempt { previous: call.facts.attempts },
        parent: Some(of_call.context()),
        method: call.request.method().as_str(),
        path: call.request.uri().path(),
        grpc: call.kind == RequestKind::Grpc,
    };
    call.shared.telemetry.tracing().start(start, &mut ThreadRng)
}

/// How an attempt ended, as far as it is known.
fn ended<'c>(result: &Result<Outcome, AttemptError>, call: &'c Call) -> Ended<'c> {
    let kind = call.kind;
    match result {
        Ok(outcome) => {
            let headers = call.exchange.response().map(Response::headers);
            Ended { kind, outcome: *outcome, headers, untouched: None }
        }
        Err(error) => Ended {
            kind,
            outcome: Outcome::Failed(error.rejection.reason().failure()),
            headers: None,
            untouched: error.untouched,
        },
    }
}

fn policy_of(route: &RouteEntry) -> Option<&RetryPolicy> {
    match &route.action {
        RouteAction::Forward(forward) => forward.retry.as_deref(),
        RouteAction::NonForwarding | RouteAction::DirectResponse { .. } | RouteAction::Unsupported(_) => None,
    }
}

/// The head of a call with another body. Extensions stay behind: they are the application's, not the peer's.
fn copy_of(request: &Request<Body>, body: Body) -> Request<Body> {
    let mut copy = Request::new(body);
    let method: &Method = request.method();
    let uri: &Uri = request.uri();
    *copy.method_mut() = method.clone();
    *copy.uri_mut() = uri.clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn put_timeout(headers: &mut HeaderMap, deadline: &Deadline) {
    let remaining = deadline.remaining(Instant::now().into_std());
    let mut value = format_grpc_timeout(remaining);
    value.set_sensitive(true); // as good as never the same twice: not worth a place in HPACK's table
    headers.insert(GRPC_TIMEOUT, value);
}
