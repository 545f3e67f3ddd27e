//! A call as the body of its response: counts, keeps to the deadline, and tells at the end.
//!
//! A gRPC caller never sees a body error: what breaks a stream off ends it with trailers that hold a status. Other
//! callers get a body error whose source is the mesh's [`Error`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use mesh_core::error::{Origin, Reason, Rejection};
use mesh_core::outcome::{Failure, GrpcCode, Outcome};
use mesh_core::request::RequestKind;
use tokio::time::Instant;

use crate::body::{Body, BodyError};
use crate::cause;
use crate::client::deadline::timer;
use crate::client::outlier::grpc_status;
use crate::client::request::Call;
use crate::local_reply::Side;

use super::event::header_bytes;

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl http_body::Body for Call {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        if this.answer.over {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.answer.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(this.frame(frame)))),
            Poll::Ready(None) => this.last(),
            Poll::Ready(Some(Err(error))) => {
                let detail =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                let reason = error.reason().unwrap_or(Reason::UpstreamReset);
                let cause = cause::of(error.into_source());
                this.break_off(Rejection::new(reason).with_detail(detail).with_source(cause))
            }
            Poll::Pending => this.poll_deadline(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.answer.over || self.answer.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.answer.over { SizeHint::with_exact(0) } else { self.answer.body.size_hint() }
    }
}

impl Call {
    fn frame(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(data) = frame.data_ref() {
            self.answer.bytes += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.answer.bytes += header_bytes(trailers);
            let status = match self.kind {
                RequestKind::Grpc => grpc_status(trailers),
                RequestKind::Http => None,
            };
            self.answer.grpc = status.or(self.answer.grpc);
            self.complete(status);
        }
        frame
    }

    /// The upstream's body is over without trailers, which a gRPC response must have unless its head had the status.
    fn last(&mut self) -> Polled {
        if self.kind == RequestKind::Grpc && self.answer.grpc.is_none() {
            let missing =
                Rejection::new(Reason::UpstreamProtocol).with_detail("the stream ended without a status");
            return self.break_off(missing);
        }
        self.complete(None);
        Poll::Ready(None)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Polled {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let runtime = &self.shared.runtime;
        let armed = self.answer.timer.get_or_insert_with(|| Box::pin(timer(deadline.at, runtime)));
        match armed.as_mut().poll(cx) {
            Poll::Ready(()) => self.break_off(Rejection::new(deadline.bound)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends the response where it is; dropping the upstream's body cancels the stream.
    fn break_off(&mut self, rejection: Rejection) -> Polled {
        self.answer.body = Body::empty();
        if let Some(observation) = &mut self.answer.held.observation {
            observation.failed(Outcome::Failed(rejection.reason().failure()));
        }
        let rejection = self.timely(rejection);
        self.refused(&rejection);
        self.end();
        Poll::Ready(Some(match self.kind {
            RequestKind::Grpc => Ok(Frame::trailers(self.shared.replies.trailers(Side::Client, &rejection))),
            RequestKind::Http => Err(BodyError::new(self.shared.replies.error(rejection))),
        }))
    }

    /// What the caller is told: once its deadline has passed, that is what ended the call. The server keeps the same
    /// deadline, and its timer may be first: then it resets the stream before ours is seen to have passed.
    pub(super) fn timely(&self, rejection: Rejection) -> Rejection {
        let Some(deadline) = self.deadline else { return rejection };
        let of_upstream = rejection.origin() == Origin::Upstream;
        let told = rejection.reason().failure() == Failure::Deadline;
        if !of_upstream || told || !deadline.remaining(Instant::now().into_std()).is_zero() {
            return rejection;
        }
        Rejection::new(deadline.bound).with_detail(rejection.to_string())
    }

    /// The whole response has been passed on, with this status in its trailers if any.
    pub(super) fn complete(&mut self, trailers: Option<GrpcCode>) {
        if let Some(observation) = &mut self.answer.held.observation {
            observation.end(trailers);
        }
        self.end();
    }

    /// The mesh ends the call.
    pub(super) fn refused(&mut self, rejection: &Rejection) {
        let reason = rejection.reason();
        self.facts.flags = self.facts.flags.union(rejection.flags());
        self.answer.details = reason.details();
        match self.kind {
            RequestKind::Grpc => {
                self.answer.status = 200;
                self.answer.grpc = Some(reason.grpc_code());
            }
            RequestKind::Http if self.answer.status == 0 => {
                self.answer.status = reason.http_status().as_u16();
            }
            RequestKind::Http => {}
        }
    }

    /// Tells of the call, once, and gives back what it holds.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.answer.over, true) {
            self.tell();
            self.answer.held = Default::default();
            self.answer.timer = None;
            self.shared.calls.end();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.answer.over {
            return;
        }
        // Nobody need read on to find that nothing more comes.
        if self.answer.status != 0 && self.answer.body.is_end_stream() {
            self.complete(None);
            return;
        }
        let rejection = Rejection::new(Reason::Cancelled);
        let grpc = self.answer.grpc;
        self.refused(&rejection);
        if self.kind == RequestKind::Grpc {
            self.answer.grpc = grpc.or(Some(GrpcCode::CANCELLED));
        }
        self.end();
    }
}
