//! The good client.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Result;
use crate::role::runtime;

/// How it fared.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

type Client = http2::SendRequest<Empty<Bytes>>;

/// Calls one after the other, over one connection or over one for each call.
pub(super) fn calls(server: SocketAddr, span: Duration, connects: bool) -> Result<Good> {
    let mut times = Vec::new();
    let mut failed = 0;
    runtime()?.block_on(async {
        let until = Instant::now() + span;
        let mut client = None;
        while Instant::now() < until {
            let begin = Instant::now();
            // What takes longer than this has failed.
            match tokio::time::timeout(PATIENCE, call(server, &mut client)).await {
                Ok(Ok(())) => times.push(begin.elapsed()),
                _ => {
                    failed += 1;
                    client = None;
                }
            }
            if connects {
                client = None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    times.sort_unstable();
    let quantile = |of: usize| times.get(times.len() * of / 100).copied().unwrap_or(PATIENCE);
    Ok(Good { calls: times.len() as u64, failed, p50: quantile(50), p99: quantile(99) })
}

async fn call(server: SocketAddr, client: &mut Option<Client>) -> Result<()> {
    if client.is_none() {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let (connected, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        // It ends with the client, or with the runtime.
        tokio::spawn(connection);
        *client = Some(connected);
    }
    let client = client.as_mut().ok_or("a client")?;
    client.ready().await?;
    let request = Request::get(format!("http://{server}/good")).body(Empty::new())?;
    let response = client.send_request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    if body.as_ref() == b"ok" { Ok(()) } else { Err("another body".into()) }
}

const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);
