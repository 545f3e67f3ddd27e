//! A request on a connection of its own, byte by byte, and the status of its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_tests::frames::frame;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::requests::Asked;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Status(u16),
    /// The stream or the connection ended without an answer.
    Ended,
    /// Nothing came.
    Silence,
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn is_admission(self) -> bool {
        self == Self::Status(200)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) async fn ask(address: SocketAddr, config: Option<Arc<ClientConfig>>, asked: &Asked) -> Verdict {
    let Ok(tcp) = TcpStream::connect(address).await else { return Verdict::Silence };
    let mut io: Box<dyn Stream> = match config {
        None => Box::new(tcp),
        Some(config) => {
            let mut config = ClientConfig::clone(&config);
            let protocol: &[u8] = if asked.http2 { b"h2" } else { b"http/1.1" };
            config.alpn_protocols = vec![protocol.to_vec()];
            let name = ServerName::try_from("server.test").expect("a name");
            match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
                Ok(tls) => Box::new(tls),
                Err(error) => panic!("no handshake: {error}"),
            }
        }
    };
    let request = if asked.http2 { http2(asked) } else { http1(asked) };
    if io.write_all(&request).await.is_err() || io.flush().await.is_err() {
        return Verdict::Ended;
    }
    let status = if asked.http2 { status_of_http2(&mut io).await } else { status_of_http1(&mut io).await };
    status.map_or(Verdict::Ended, Verdict::Status)
}

fn http1(asked: &Asked) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    for host in &asked.hosts {
        out.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in &asked.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if asked.method == "POST" {
        out.push_str("content-length: 0\r\n");
    }
    out.push_str("\r\n");
    out.into_bytes()
}

fn http2(asked: &Asked) -> Vec<u8> {
    let mut block = Vec::new();
    let mut field = |name: &str, value: &str| {
        // Literal, without indexing, a name that is new.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend_from_slice(text.as_bytes());
        }
    };
    field(":method", asked.method);
    field(":scheme", if asked.tls { "https" } else { "http" });
    for host in &asked.hosts {
        field(":authority", host);
    }
    field(":path", asked.target);
    for (name, value) in &asked.headers {
        field(name, value);
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend_from_slice(&frame(SETTINGS, 0, 0, &[]));
    out.extend_from_slice(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    out
}

async fn status_of_http1(io: &mut Box<dyn Stream>) -> Option<u16> {
    let mut line = [0; 12];
    io.read_exact(&mut line).await.ok()?;
    std::str::from_utf8(line.strip_prefix(b"HTTP/1.1 ")?).ok()?.parse().ok()
}

async fn status_of_http2(io: &mut Box<dyn Stream>) -> Option<u16> {
    loop {
        let mut header = [0; 9];
        io.read_exact(&mut header).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        io.read_exact(&mut payload).await.ok()?;
        match kind {
            SETTINGS if flags & ACK == 0 => io.write_all(&frame(SETTINGS, ACK, 0, &[])).await.ok()?,
            HEADERS if u32::from_be_bytes(stream) == 1 => return status_of_block(&payload),
            RST_STREAM | GOAWAY => return None,
            _ => {}
        }
    }
}

/// `:status`, which comes first in the block of a response.
fn status_of_block(block: &[u8]) -> Option<u16> {
    // Changes of the size of the table may come before.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match block.get(at..)? {
        [indexed, ..] if indexed & 0x80 != 0 => {
            const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
            STATIC.get(usize::from((indexed & 0x7f).checked_sub(8)?)).copied()
        }
        // A literal whose name is one of the static table's `:status`.
        [_, length, text @ ..] => {
            let text = text.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 { std::str::from_utf8(text).ok()?.parse().ok() } else { digits(text) }
        }
        _ => None,
    }
}

/// Three digits in Huffman's code (RFC 7541, appendix B): 0, 1 and 2 have five bits, the others six.
fn digits(text: &[u8]) -> Option<u16> {
    let bits: u32 = text.iter().take(4).enumerate().map(|(at, byte)| u32::from(*byte) << (24 - 8 * at)).sum();
    let (mut status, mut at) = (0, 0);
    for _ in 0..3 {
        let five = (bits << at) >> 27;
        let digit = if five < 3 {
            at += 5;
            five
        } else {
            let six = (bits << at) >> 26;
            at += 6;
            six.checked_sub(0x19)? + 3
        };
        status = status * 10 + u16::try_from(digit).ok()?;
    }
    Some(status)
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
