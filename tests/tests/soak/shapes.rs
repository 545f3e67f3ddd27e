//! The shapes of calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use mesh_core::rng::{Rng as _, Xoshiro};
use mesh_tower::{Body, MeshChannel};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::app::{self, Framed, Site, bytes_of, causes, messages_of, piece};
use crate::record::{End, Started};

/// What a call is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// A GET with a small answer.
    Unary,
    /// A POST of 0 to 3 bytes, each a frame of its own, and as little back.
    Tiny,
    /// Cancelled at a random moment: before the head, within the upload, within the answer.
    Cancelled,
    /// The answer is read with pauses.
    SlowReader,
    /// The answer, of more than 1 MiB, is not read for seconds.
    StalledReader,
    /// Answered while its upload goes on unread.
    Early,
    /// The same, by an upload that stays open for a while without ending.
    EarlyOpen,
    /// Its upload is read in part, and dropped while it goes on; the answer comes later.
    HalfRead,
    /// 4 MiB up and down.
    Large,
    /// 21 and more calls that are cancelled in one go beside a slow one, which counts.
    Burst,
    /// One message up and down.
    GrpcUnary,
    /// Messages up and down in turn.
    GrpcChat,
    /// Many tiny messages to a handler that does not read for a while.
    GrpcTinyUp,
    /// Many tiny messages to a caller that does not read for a while.
    GrpcTinyDown,
    /// An answer of more than 1 MiB that is not read as long as others call on its connection.
    HeldReader,
    /// An upload of more than 1 MiB that is not read as long as others call on its connection.
    HeldUpload,
    /// An answer that ends before its end, politely, which has to be an error.
    Truncated,
    /// A call after one that was answered while its upload goes on, to the same server over HTTP/1.1.
    Beside,
    /// A call to a server that keeps going away.
    GoneAway,
    /// The server drains while the answer is on its way.
    Drained,
}

/// Who calls, and where.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) site: Arc<Site>,
    pub(crate) lane: &'static str,
    pub(crate) channel: MeshChannel,
}

// === impl Shape ===

impl Shape {
    /// Every shape, with its share among the calls.
    pub(crate) const ALL: [(Self, u64); 14] = [
        (Self::Unary, 22),
        (Self::Tiny, 14),
        (Self::Cancelled, 14),
        (Self::SlowReader, 4),
        (Self::StalledReader, 5),
        (Self::Early, 9),
        (Self::EarlyOpen, 5),
        (Self::HalfRead, 3),
        (Self::Large, 2),
        (Self::Burst, 3),
        (Self::GrpcUnary, 12),
        (Self::GrpcChat, 4),
        (Self::GrpcTinyUp, 3),
        (Self::GrpcTinyDown, 3),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Tiny => "tiny",
            Self::Cancelled => "cancelled",
            Self::SlowReader => "slow-reader",
            Self::StalledReader => "stalled-reader",
            Self::Early => "early",
            Self::EarlyOpen => "early-open",
            Self::HalfRead => "half-read",
            Self::Large => "large",
            Self::Burst => "burst",
            Self::GrpcUnary => "grpc-unary",
            Self::GrpcChat => "grpc-chat",
            Self::GrpcTinyUp => "grpc-tiny-up",
            Self::GrpcTinyDown => "grpc-tiny-down",
            Self::HeldReader => "held-reader",
            Self::HeldUpload => "held-upload",
            Self::Truncated => "truncated",
            Self::Beside => "beside",
            Self::GoneAway => "gone-away",
            Self::Drained => "drained",
        }
    }

    /// gRPC is HTTP/2, which alone can cancel many calls in one go.
    pub(crate) fn needs_http2(self) -> bool {
        matches!(self, Self::GrpcUnary | Self::GrpcChat | Self::GrpcTinyUp | Self::GrpcTinyDown)
    }
}

// === impl Caller ===

impl Caller {
    /// Makes one call of a shape, to its end.
    pub(crate) async fn call(&self, shape: Shape, rng: &mut Xoshiro) {
        let call = self.site.record.begin(shape, self.lane);
        let mut below = |bound: u64| rng.below(bound);
        let making = async {
            match shape {
                Shape::Unary => self.get(call, "/echo", 10 + below(500), Duration::ZERO).await,
                Shape::Tiny => self.tiny(call, below(4)).await,
                Shape::Cancelled => self.cancelled(call, below(3), below(20_000)).await,
                Shape::SlowReader => {
                    let pause = Duration::from_millis(1 + below(20));
                    self.get(call, "/echo", (64 << 10) + below(256 << 10), pause).await
                }
                Shape::StalledReader => self.stalled(call, Duration::from_millis(1_500 + below(1_500))).await,
                Shape::Early => self.early(call, below(512), None).await,
                Shape::EarlyOpen => {
                    let open = Duration::from_millis(100 + below(400));
                    self.early(call, below(512), Some(open)).await
                }
                Shape::HalfRead => self.half_read(call, below(512), below(200)).await,
                Shape::Large => self.large(call).await,
                Shape::Burst => self.burst(call, 21 + below(44), below(8_000)).await,
                Shape::GrpcUnary => self.grpc(call, "/grpc/unary", 1, 0, 0).await,
                Shape::GrpcChat => self.grpc(call, "/grpc/chat", 3 + below(30), 0, 0).await,
                Shape::GrpcTinyUp => {
                    let many = if below(3) == 0 { 3_000 } else { 200 + below(800) };
                    self.grpc(call, "/grpc/up", many, 200 + below(1_000), 0).await
                }
                Shape::GrpcTinyDown => {
                    let many = if below(3) == 0 { 3_000 } else { 200 + below(800) };
                    self.grpc(call, "/grpc/down", 1, 0, many).await
                }
                other => End::Failed(format!("{other:?} is not drawn")),
            }
        };
        let end = match tokio::time::timeout(PATIENCE, making).await {
            Ok(end) => end,
            Err(_) => End::Failed(format!("no end within {PATIENCE:?}")),
        };
        self.site.record.end(call, end);
    }

    /// Holds an answer that is not read, or an upload, until `released`.
    pub(crate) async fn hold(&self, shape: Shape, mut released: watch::Receiver<bool>) {
        let call = self.site.record.begin(shape, self.lane);
        let length = (1 << 20) + (256 << 10);
        let outcome = if shape == Shape::HeldReader {
            let request = self.request(call, Method::GET, &format!("/echo?down={length}"), Body::empty());
            let pause = |_| {
                let mut released = released.clone();
                async move { drop(released.wait_for(|released| *released).await) }
            };
            self.exchange(call, request, length, 0, pause).await
        } else {
            let body = Body::new(StreamBody::new(bytes_of(call.id, length)));
            let request = self.request(call, Method::POST, "/hold?down=0", body);
            drop(released.wait_for(|_| true).await);
            self.exchange(call, request, 0, length, |_| std::future::ready(())).await
        };
        self.site.record.end(call, end(outcome));
    }

    async fn get(&self, call: Started, path: &str, down: u64, pause: Duration) -> End {
        let request = self.request(call, Method::GET, &format!("{path}?down={down}"), Body::empty());
        let pause = move |_| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        };
        end(self.exchange(call, request, down, 0, pause).await)
    }

    async fn tiny(&self, call: Started, length: u64) -> End {
        let byte = piece(call.id, 1);
        let frames = stream::iter((0..length).map(move |_| Framed::Ok(Frame::data(byte.clone()))));
        let body = Body::new(StreamBody::new(frames));
        let path = if length == 3 { "/none" } else { "/echo" };
        let down = if length == 3 { 0 } else { length };
        let request = self.request(call, Method::POST, &format!("{path}?down={down}"), body);
        let received = if length == 3 { 0 } else { length };
        end(self.exchange(call, request, down, received, |_| std::future::ready(())).await)
    }

    async fn stalled(&self, call: Started, stall: Duration) -> End {
        let down = (1 << 20) + (256 << 10);
        let request = self.request(call, Method::GET, &format!("/echo?down={down}"), Body::empty());
        let mut first = true;
        let pause = move |_| {
            let stall = if std::mem::take(&mut first) { stall } else { Duration::ZERO };
            async move {
                if !stall.is_zero() {
                    tokio::time::sleep(stall).await;
                }
            }
        };
        end(self.exchange(call, request, down, 0, pause).await)
    }

    async fn large(&self, call: Started) -> End {
        let length = 4 << 20;
        let body = Body::new(StreamBody::new(bytes_of(call.id, length)));
        let request = self.request(call, Method::POST, &format!("/echo?down={length}"), body);
        end(self.exchange(call, request, length, length, |_| std::future::ready(())).await)
    }

    /// An upload of 256 KiB in pieces of 4 KiB, or one that says something and then stays open.
    async fn early(&self, call: Started, down: u64, open: Option<Duration>) -> End {
        let (ended, mut until) = watch::channel(false);
        let id = call.id;
        let pieces = stream::unfold(0_u64, move |sent| async move {
            tokio::task::yield_now().await;
            (sent < 64).then(|| (Framed::Ok(Frame::data(piece(id, 4 << 10))), sent + 1))
        });
        let pieces = pieces.take(if open.is_some() { 3 } else { 64 });
        let body = if open.is_some() {
            let rest = stream::once(async move {
                // Ends when the caller has read the answer and waited, or is gone.
                drop(until.wait_for(|ended| *ended).await);
                Framed::Ok(Frame::data(Bytes::new()))
            });
            Body::new(StreamBody::new(pieces.chain(rest)))
        } else {
            Body::new(StreamBody::new(pieces))
        };
        let target = format!("/early?down={down}&ms={}", down % 4);
        let request = self.request(call, Method::POST, &target, body);
        let outcome = self.exchange(call, request, down, 0, |_| std::future::ready(())).await;
        if let (Ok(()), Some(open)) = (&outcome, open) {
            tokio::time::sleep(open).await;
        }
        ended.send_replace(true);
        end(outcome)
    }

    /// An upload of 4 MiB, of which the server reads what makes it grant more than it has read.
    async fn half_read(&self, call: Started, down: u64, wait: u64) -> End {
        let body = Body::new(StreamBody::new(bytes_of(call.id, 4 << 20)));
        let request = self.request(call, Method::POST, &format!("/half?down={down}&ms={wait}"), body);
        end(self.exchange(call, request, down, 0, |_| std::future::ready(())).await)
    }

    /// An answer that is on its way when the server begins to drain, which it does when all such have `begun`.
    pub(crate) async fn drained(&self, begun: &watch::Sender<u64>) {
        let call = self.site.record.begin(Shape::Drained, self.lane);
        let down = 1 << 20;
        let request = self.request(call, Method::GET, &format!("/echo?down={down}"), Body::empty());
        let mut first = true;
        let pause = |_| {
            if std::mem::take(&mut first) {
                begun.send_modify(|begun| *begun += 1);
            }
            std::future::ready(())
        };
        let outcome = self.exchange(call, request, down, 0, pause).await;
        self.site.record.end(call, end(outcome));
    }

    async fn cancelled(&self, call: Started, when: u64, micros: u64) -> End {
        let after = Duration::from_micros(micros);
        let (method, path, body) = match when {
            0 => (Method::GET, "/echo?down=100&ms=50", Body::empty()),
            1 => (Method::POST, "/echo?down=100", Body::new(StreamBody::new(bytes_of(call.id, 64 << 20)))),
            _ => (Method::GET, "/echo?down=67108864", Body::empty()),
        };
        let request = self.request(call, method, path, body);
        let down = if when == 2 { 64 << 20 } else { 100 };
        let received = if when == 1 { 64 << 20 } else { 0 };
        let making = self.exchange(call, request, down, received, |_| std::future::ready(()));
        match tokio::time::timeout(after, making).await {
            Ok(outcome) => end(outcome),
            Err(_) => End::Cancelled,
        }
    }

    async fn burst(&self, slow: Started, count: u64, micros: u64) -> End {
        let others = join_all((0..count).map(|_| async {
            let call = self.site.record.begin(Shape::Cancelled, self.lane);
            let cancelled = Cancelled { caller: self, call: Some(call) };
            let request = self.request(call, Method::GET, "/echo?down=10&ms=2000", Body::empty());
            let outcome = self.exchange(call, request, 10, 0, |_| std::future::ready(())).await;
            cancelled.ended(end(outcome));
        }));
        let beside = async {
            // All of them are dropped in one go.
            drop(tokio::time::timeout(Duration::from_micros(micros), others).await);
        };
        let request = self.request(slow, Method::GET, "/echo?down=10&ms=200", Body::empty());
        let slow = self.exchange(slow, request, 10, 0, |_| std::future::ready(()));
        let (outcome, ()) = tokio::join!(slow, beside);
        end(outcome)
    }

    /// `up` messages, then `down` back (or as many as were sent, where the path is a chat).
    async fn grpc(&self, call: Started, path: &str, up: u64, wait: u64, down: u64) -> End {
        let body = Body::new(StreamBody::new(messages_of(call.id, up)));
        let mut request = self.request(call, Method::POST, &format!("{path}?ms={wait}&n={down}"), body);
        let headers = request.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
        end(async {
            let response = self.send(request).await?;
            if let Some(status) = response.headers().get("grpc-status") {
                return Err(format!("status {status:?}: {}", refusal(&response)));
            }
            if down > 0 {
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            let received = app::read(response.into_body(), call.id, true, |_| std::future::ready(())).await?;
            let trailers = received.trailers.ok_or("no trailers")?;
            let number = |name| trailers.get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            if number("grpc-status") != Some(0) {
                return Err(format!("trailers {trailers:?}"));
            }
            let (sent, expected) = if path.ends_with("chat") { (0, up) } else { (up, down.max(1)) };
            if number("x-received") != Some(sent) || received.messages != expected {
                return Err(format!("{} messages of {expected}, {trailers:?}", received.messages));
            }
            Ok(())
        }
        .await)
    }

    pub(crate) fn request(&self, call: Started, method: Method, target: &str, body: Body) -> Request<Body> {
        let separator = if target.contains('?') { '&' } else { '?' };
        let uri = format!("{target}{separator}call={}", call.id);
        Request::builder().method(method).uri(uri).body(body).expect("a valid request")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, String> {
        let response = self.channel.clone().oneshot(request).await.map_err(|error| causes(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(format!("{}: {}", response.status(), refusal(&response)))
    }

    async fn exchange<P: Future<Output = ()>>(
        &self,
        call: Started,
        request: Request<Body>,
        down: u64,
        up: u64,
        pause: impl FnMut(u64) -> P,
    ) -> Result<(), String> {
        let response = self.send(request).await?;
        let received =
            response.headers().get("x-received").and_then(|value| value.to_str().ok()?.parse().ok());
        let taken = app::read(response.into_body(), call.id, false, pause).await?;
        if taken.bytes != down {
            return Err(format!("{} bytes of {down} were taken for the whole", taken.bytes));
        }
        if received.unwrap_or(0) != up {
            return Err(format!("{received:?} bytes of {up} arrived"));
        }
        Ok(())
    }
}

/// A call of a burst: cancelled unless it has ended.
struct Cancelled<'a> {
    caller: &'a Caller,
    call: Option<Started>,
}

impl Cancelled<'_> {
    fn ended(mut self, end: End) {
        if let Some(call) = self.call.take() {
            self.caller.site.record.end(call, end);
        }
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.caller.site.record.end(call, End::Cancelled);
        }
    }
}

/// What the mesh says about an answer of its own.
fn refusal(response: &Response<Body>) -> String {
    match response.extensions().get::<mesh_tower::Error>() {
        Some(error) => format!("{} ({:?})", causes(error), error.reason()),
        None => "the server's own".to_owned(),
    }
}

fn end(outcome: Result<(), String>) -> End {
    match outcome {
        Ok(()) => End::Whole,
        Err(why) => End::Failed(why),
    }
}

/// After this, a call has failed.
const PATIENCE: Duration = Duration::from_secs(20);
