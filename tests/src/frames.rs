//! HTTP/2 by hand: a server that answers every request with the same frames.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::Port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One frame of an answer: its kind, flags and payload. Kind 7 (GOAWAY) goes to the connection.
pub type Scripted = (u8, u8, Vec<u8>);

/// The server.
#[derive(Debug)]
pub struct FrameServer {
    port: Port,
    _running: JoinSet<()>,
}

// === impl FrameServer ===

impl FrameServer {
    /// Starts it; `closes` ends the connection after the first answer.
    #[must_use]
    pub fn start(answer: Vec<Scripted>, closes: bool) -> Self {
        let port = Port::reserve();
        let listener = port.listen();
        let answer = Arc::new(answer);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                connections.spawn(async move { drop(serve(socket, &answer, closes).await) });
            }
        });
        Self { port, _running: running }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

async fn serve(mut socket: TcpStream, answer: &[Scripted], closes: bool) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.read_exact(&mut [0; 24]).await?;
    socket.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut payload).await?;
        if kind == SETTINGS && flags & 1 == 0 {
            socket.write_all(&frame(SETTINGS, 1, 0, &[])).await?;
        }
        if kind != HEADERS {
            continue;
        }
        for (kind, flags, payload) in answer {
            let stream = if *kind == GOAWAY { 0 } else { u32::from_be_bytes(stream) };
            socket.write_all(&frame(*kind, *flags, stream, payload)).await?;
        }
        if closes {
            return socket.shutdown().await;
        }
    }
}

/// Makes a frame.
///
/// # Panics
/// If its payload is longer than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Makes the head of a response, `200`, perhaps with a length, perhaps of gRPC.
///
/// # Panics
/// If the length is longer than a number.
#[must_use]
pub fn head(length: Option<&str>, grpc: bool) -> Scripted {
    let mut block = vec![0x88];
    let mut literal = |name: u8, value: &str| {
        // A literal without indexing, its name from the static table.
        block.extend_from_slice(&[0x0f, name - 15, u8::try_from(value.len()).expect("short")]);
        block.extend_from_slice(value.as_bytes());
    };
    if let Some(length) = length {
        literal(28, length);
    }
    if grpc {
        literal(31, "application/grpc");
    }
    (HEADERS, END_HEADERS, block)
}

/// Makes a frame of so many bytes.
#[must_use]
pub fn data(length: usize, ends: bool) -> Scripted {
    (DATA, u8::from(ends), vec![b'x'; length])
}

/// Makes the end of a stream by a code.
#[must_use]
pub fn reset(code: u32) -> Scripted {
    (RST_STREAM, 0, code.to_be_bytes().to_vec())
}

/// Makes the end of a connection whose last stream is this high.
#[must_use]
pub fn go_away(last: u32) -> Scripted {
    (GOAWAY, 0, [last.to_be_bytes(), [0; 4]].concat())
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
