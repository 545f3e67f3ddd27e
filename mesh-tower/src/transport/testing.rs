//! Peers for the tests of this directory: an HTTP/2 server on the `h2` crate, and one that writes frames by hand.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::ConnectionEvents;
use super::error::{EndReason, SendError};
use super::io::BoxIo;
use super::pool::Lease;
use crate::body::Body;

/// What a connection told its pool.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) freed: AtomicUsize,
    pub(crate) draining: AtomicBool,
    pub(crate) closed: Mutex<Option<String>>,
}

impl ConnectionEvents for Heard {
    fn slot_freed(&self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }

    fn draining(self: Arc<Self>, _id: u64) {
        self.draining.store(true, Ordering::SeqCst);
    }

    fn closed(self: Arc<Self>, _id: u64, reason: Option<EndReason>) {
        *self.closed.lock().unwrap() = Some(reason.as_ref().map_or("", EndReason::text).to_owned());
    }
}

/// A pair of connected streams; the server's end is concrete.
pub(crate) fn pipe() -> (BoxIo, DuplexStream) {
    let (client, server) = tokio::io::duplex(256 * 1024);
    (Box::new(client), server)
}

/// Spawns in tests; production code has owned tasks.
pub(crate) fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::runtime::Handle::current().spawn(future)
}

/// A response head to come, as a future of its own.
pub(crate) type Sending = Pin<Box<dyn Future<Output = Result<Response<Body>, SendError>> + Send>>;

impl Lease {
    /// Sends the request when the future is first polled.
    pub(crate) fn send(self, request: Request<Body>) -> Sending {
        let mut unsent = Some((self, request));
        Box::pin(async move {
            let start = |cx: &mut Context<'_>| {
                let (lease, request) = unsent.take().expect("polled once");
                Poll::Ready(lease.start(cx, request))
            };
            std::future::poll_fn(start).await?.await
        })
    }
}

pub(crate) type Respond = ::h2::server::SendResponse<Bytes>;
pub(crate) type Incoming = Request<::h2::RecvStream>;

/// Serves one connection: `handle` is spawned for each request.
pub(crate) async fn serve_h2<T, F>(
    io: T,
    builder: ::h2::server::Builder,
    handle: impl Fn(Incoming, Respond) -> F + Send + 'static,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        spawn(handle(request, respond));
    }
}

/// Reads the whole request and answers with its body.
pub(crate) async fn echo(request: Incoming, mut respond: Respond) {
    let mut body = request.into_body();
    let mut data = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap();
        data.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.ok().flatten();
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let _ = stream.send_data(data.into(), trailers.is_none());
    if let Some(trailers) = trailers {
        let _ = stream.send_trailers(trailers);
    }
}

pub(crate) fn post(body: Body) -> Request<Body> {
    Request::post("http://peer.example/path").body(body).unwrap()
}

/// An HTTP/2 server that writes its frames by hand, to say what no well-behaved library says.
pub(crate) struct RawServer {
    io: DuplexStream,
}

impl RawServer {
    /// Preface and SETTINGS in both directions.
    pub(crate) async fn accept(mut io: DuplexStream) -> Self {
        let mut preface = [0; 24];
        io.read_exact(&mut preface).await.unwrap();
        let mut this = Self { io };
        this.write(4, 0, 0, &[]).await;
        this
    }

    pub(crate) fn into_io(self) -> DuplexStream {
        self.io
    }

    /// The next frame that is neither SETTINGS nor WINDOW_UPDATE: type, flags, stream, payload.
    pub(crate) async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.io.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                4 if head[4] == 0 => self.write(4, 1, 0, &[]).await,
                4 | 8 => {}
                kind => return Some((kind, head[4], stream, payload)),
            }
        }
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        let _ = self.io.write_all(&frame).await;
    }

    pub(crate) async fn goaway(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&0u32.to_be_bytes());
        self.write(7, 0, 0, &payload).await;
    }

    /// `:status: 200`, end of headers and of the stream.
    pub(crate) async fn ok(&mut self, stream: u32) {
        self.write(1, 0x5, stream, &[0x88]).await;
    }
}

/// Keeps every write of the client as it was made.
pub(crate) struct Recorder {
    pub(crate) io: BoxIo,
    pub(crate) writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = result {
            self.writes.lock().unwrap().push(buf[..n].to_vec());
        }
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
