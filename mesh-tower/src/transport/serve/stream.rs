//! One HTTP/2 stream that we serve: the application's future, and then its response on the way out.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use ::h2::server::SendResponse;
use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use tower_service::Service;

use super::service::Call;
use super::signal::Signal;
use crate::body::{Body, BoxError};
use crate::server::ResponseBody;
use crate::transport::h2::has_content;
use crate::transport::h2::upload::{Upload, Uploaded};

/// Serves one stream. Dropping it resets the stream, and drops the application's future or the body of its response.
#[pin_project::pin_project]
pub(super) struct ServedStream<S, F, B> {
    respond: SendResponse<Bytes>,
    #[pin]
    state: State<S, F, B>,
    /// A response to HEAD has no content.
    is_head: bool,
    /// The client waits for 100 (Continue), and this is raised when the application waits for the client.
    continued: Option<Arc<Signal>>,
}

/// ```text
/// Calling ──response──► Sending ──last byte──► (over)
/// ```
#[expect(clippy::large_enum_variant, reason = "the whole future is one allocation: its task")]
#[pin_project::pin_project(project = StateProj)]
enum State<S, F, B> {
    Calling(#[pin] Call<S, F>),
    Sending {
        #[pin]
        body: Upload<ResponseBody<B>>,
        /// Not sent yet, so that it leaves together with the beginning of the body.
        head: Option<Response<()>>,
        stream: Option<SendStream<Bytes>>,
    },
}

// === impl ServedStream ===

impl<S, F, B> ServedStream<S, F, B> {
    pub(super) const fn new(
        call: Call<S, F>,
        respond: SendResponse<Bytes>,
        is_head: bool,
        continued: Option<Arc<Signal>>,
    ) -> Self {
        Self { respond, state: State::Calling(call), is_head, continued }
    }
}

impl<S, B> Future for ServedStream<S, S::Future, B>
where
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling(call) => {
                    if let Some(continued) = this.continued {
                        continued.register(cx.waker());
                    }
                    let response = match call.poll(cx) {
                        Poll::Ready(Ok(response)) => response,
                        Poll::Ready(Err(error)) => {
                            let error = error.into();
                            tracing::debug!(error = &*error, "the application failed; stream reset");
                            this.respond.send_reset(reason_of(&*error));
                            return Poll::Ready(());
                        }
                        // A caller that has gone ends the application's work.
                        Poll::Pending => {
                            if this.continued.take_if(|continued| continued.lower()).is_some() {
                                send_continue(this.respond);
                            }
                            return this.respond.poll_reset(cx).map(drop);
                        }
                    };
                    let (mut head, body) = response.into_parts();
                    let has_content = !*this.is_head && has_content(head.status);
                    let length = prepare(&mut head.headers, &body);
                    let head = Response::from_parts(head, ());
                    if !has_content {
                        drop(body);
                        return send_head(this.respond, head, true)
                            .map_or(Poll::Ready(()), |_| Poll::Ready(()));
                    }
                    let body = Upload::new(body, length);
                    this.state.set(State::Sending { body, head: Some(head), stream: None });
                }
                StateProj::Sending { mut body, head, stream } => {
                    if let Some(head) = head.take() {
                        if let Err(error) = body.as_mut().fill(cx) {
                            tracing::debug!(%error, "the response body failed; stream reset");
                            this.respond.send_reset(reason_of(&error));
                            return Poll::Ready(());
                        }
                        *stream = send_head(this.respond, head, body.is_finished());
                    }
                    let Some(stream) = stream.as_mut().filter(|_| !body.is_finished()) else {
                        return Poll::Ready(());
                    };
                    let sent = body.as_mut().poll(cx, stream);
                    if sent.is_pending() {
                        // A caller that does not read cannot hold its request beyond its time.
                        let _ = ready!(body.body().poll_time_up(cx));
                        stream.send_reset(Reason::CANCEL);
                        return Poll::Ready(());
                    }
                    if let Poll::Ready(Uploaded::Failed(error)) = sent {
                        tracing::debug!(%error, "the response body failed; stream reset");
                        stream.send_reset(reason_of(&error));
                    }
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// Tells the client to send the body that it has announced.
fn send_continue(respond: &mut SendResponse<Bytes>) {
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    if let Err(error) = respond.send_informational(interim) {
        tracing::debug!(%error, "100 (Continue) cannot be sent");
    }
}

/// Sends the head of a response. None where the stream is gone.
fn send_head(
    respond: &mut SendResponse<Bytes>,
    head: Response<()>,
    is_all: bool,
) -> Option<SendStream<Bytes>> {
    match respond.send_response(head, is_all) {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "the response cannot be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}

/// Makes headers that HTTP/2 can carry, with length and date. Returns the length that they announce.
fn prepare<B: http_body::Body>(headers: &mut HeaderMap, body: &B) -> Option<u64> {
    let (mut length, mut is_dated, mut unfit) = (None, false, false);
    for (name, value) in &*headers {
        match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                unfit = true
            }
            "content-length" => length = value.to_str().ok().and_then(|text| text.parse().ok()),
            "date" => is_dated = true,
            _ => {}
        }
    }
    if unfit {
        for name in ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
            headers.remove(name);
        }
    }
    if !is_dated {
        headers.insert(DATE, date());
    }
    if length.is_none()
        && let Some(exact) = body.size_hint().exact().filter(|_| !body.is_end_stream())
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(exact));
        length = Some(exact);
    }
    length
}

/// The code that a peer is told, where the error comes from a stream of HTTP/2 itself.
fn reason_of(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<::h2::Error>().and_then(::h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}

thread_local! {
    /// The date of the second in which a response was sent last.
    static TODAY: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The current date (RFC 9110 §6.6.1).
fn date() -> HeaderValue {
    #[expect(clippy::disallowed_methods, reason = "a date is read from the clock, once a response")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    TODAY.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
            if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(whole)) {
                (*second, *text) = (now.as_secs(), value);
            }
        }
        text.clone()
    })
}
