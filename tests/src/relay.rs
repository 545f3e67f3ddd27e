//! A wire between a client and a server that both speak plaintext HTTP/2: it counts what passes, and has manners of its
//! own. Put before a control plane, it makes a slow one of it, or one that does not read while it writes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a wire does to the bytes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Passes them on.
    Plain,
    /// Passes them on this much later, piece by piece, in both directions.
    Slow(Duration),
    /// Does not take a byte from the client while the server has something to say that the client has not taken.
    WritesFirst,
}

/// A wire. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    passed: Arc<Mutex<Passed>>,
    cut: watch::Sender<u64>,
    _running: JoinSet<()>,
}

/// Where a [`Cutter`] cuts, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes to the client are counted, rather than those to the server.
    pub down: bool,
    /// After so many of them.
    pub after: usize,
    /// By a reset, rather than by a close.
    pub reset: bool,
}

/// A wire that cuts its first connection at a byte, in both directions. Later connections are whole.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    /// What has passed on the first connection: down, up.
    passed: Arc<Mutex<[usize; 2]>>,
    _running: JoinSet<()>,
}

/// What has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Connections.
    pub connections: u64,
    /// gRPC messages from clients.
    pub requests: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
}

/// Counts the gRPC messages in one direction of an HTTP/2 connection.
#[derive(Debug, Default)]
struct Messages {
    /// Bytes of the connection preface that have passed.
    preface: usize,
    header: Vec<u8>,
    /// Bytes that are left of the frame, and whether they are data.
    frame: (usize, bool),
    prefix: Vec<u8>,
    /// Bytes that are left of the message.
    message: usize,
}

// === impl Relay ===

impl Relay {
    /// Listens on a port of its own, and connects to `server` for each connection.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(server: SocketAddr, wire: Wire) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passed = Arc::new(Mutex::new(Passed::default()));
        let (cut, cuts) = watch::channel(0);
        let mut running = JoinSet::new();
        let counts = Arc::clone(&passed);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                count(&counts, |passed| passed.connections += 1);
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                let counts = Arc::clone(&counts);
                connections.spawn(async move {
                    tokio::select! {
                        // How a connection ends is the peers' business.
                        _ = pass(client, server, wire, &counts) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, passed, cut, _running: running })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every connection there is; new ones are welcome.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

// === impl Cutter ===

impl Cutter {
    /// Listens on a port of its own, and connects to `server` for each connection.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(server: SocketAddr, cut: Cut) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let passed = Arc::new(Mutex::new([0; 2]));
        let mut running = JoinSet::new();
        let counts = Arc::clone(&passed);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            let mut cut = Some(cut);
            while let Ok((client, _)) = listener.accept().await {
                let (cut, counts) = (cut.take(), Arc::clone(&counts));
                // How a connection ends is the peers' business.
                connections.spawn(async move { drop(pass_until(client, server, cut, &counts).await) });
            }
        });
        Ok(Self { address, passed, _running: running })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have passed on the first connection: to the client, and to the server.
    #[must_use]
    pub fn passed(&self) -> [usize; 2] {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass_until(
    mut client: TcpStream,
    server: SocketAddr,
    cut: Option<Cut>,
    passed: &Mutex<[usize; 2]>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let Some(cut) = cut else {
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    };
    let (mut up, mut down) = (vec![0; PIECE], vec![0; PIECE]);
    let mut left = cut.after;
    while left > 0 {
        let (read, is_down) = tokio::select! {
            biased;
            read = server.read(&mut down) => (read?, true),
            read = client.read(&mut up) => (read?, false),
        };
        let (bytes, to) = if is_down { (&down, &mut client) } else { (&up, &mut server) };
        let now = if is_down == cut.down { read.min(left) } else { read };
        {
            // Before they are written: who has seen them may ask at once.
            let [to_client, to_server] = &mut *passed.lock().unwrap_or_else(PoisonError::into_inner);
            *(if is_down { to_client } else { to_server }) += now;
        }
        to.write_all(bytes.get(..now).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(());
        }
        if is_down == cut.down {
            left -= now;
        }
    }
    if cut.reset {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
        return Ok(());
    }
    // Both see an end, and neither a reset: what they still say is taken.
    client.shutdown().await?;
    server.shutdown().await?;
    while client.read(&mut up).await? > 0 {}
    while server.read(&mut down).await? > 0 {}
    Ok(())
}

fn count(passed: &Mutex<Passed>, change: impl FnOnce(&mut Passed)) {
    change(&mut passed.lock().unwrap_or_else(PoisonError::into_inner));
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    wire: Wire,
    passed: &Mutex<Passed>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut messages = Messages::default();
    let (mut up, mut down) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let writes_first = wire == Wire::WritesFirst;
        tokio::select! {
            biased;
            read = server.read(&mut down) => {
                let piece = down.get(..read?).unwrap_or_default();
                if piece.is_empty() {
                    return Ok(());
                }
                wait(wire).await;
                count(passed, |passed| passed.bytes_down += piece.len() as u64);
                if writes_first {
                    client.write_all(piece).await?;
                } else {
                    both(&mut client, piece, &mut server, &mut up, |piece| {
                        let seen = messages.count(piece);
                        count(passed, |passed| passed.requests += seen);
                    }).await?;
                }
            }
            read = client.read(&mut up) => {
                let piece = up.get(..read?).unwrap_or_default();
                if piece.is_empty() {
                    return Ok(());
                }
                wait(wire).await;
                let seen = messages.count(piece);
                count(passed, |passed| passed.requests += seen);
                server.write_all(piece).await?;
            }
        }
    }
}

/// Writes a piece to the client, and takes what the client says meanwhile.
async fn both(
    client: &mut TcpStream,
    mut piece: &[u8],
    server: &mut TcpStream,
    up: &mut [u8],
    mut seen: impl FnMut(&[u8]),
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    while !piece.is_empty() {
        tokio::select! {
            biased;
            written = to_client.write(piece) => piece = piece.get(written?..).unwrap_or_default(),
            read = from_client.read(up) => {
                let said = up.get(..read?).unwrap_or_default();
                if said.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                seen(said);
                server.write_all(said).await?;
            }
        }
    }
    Ok(())
}

async fn wait(wire: Wire) {
    if let Wire::Slow(by) = wire {
        tokio::time::sleep(by).await;
    }
}

// === impl Messages ===

impl Messages {
    /// How many messages begin in this piece.
    fn count(&mut self, mut piece: &[u8]) -> u64 {
        let mut begun = 0;
        let skipped = (PREFACE - self.preface).min(piece.len());
        self.preface += skipped;
        piece = piece.get(skipped..).unwrap_or_default();
        while !piece.is_empty() {
            let (left, is_data) = self.frame;
            if left > 0 {
                let (now, rest) = piece.split_at(left.min(piece.len()));
                self.frame.0 -= now.len();
                piece = rest;
                if is_data {
                    begun += self.data(now);
                }
                continue;
            }
            let (now, rest) = piece.split_at((FRAME_HEADER - self.header.len()).min(piece.len()));
            self.header.extend_from_slice(now);
            piece = rest;
            if let [a, b, c, kind, ..] = *self.header.as_slice()
                && self.header.len() == FRAME_HEADER
            {
                self.frame = (u32::from_be_bytes([0, a, b, c]) as usize, kind == DATA);
                self.header.clear();
            }
        }
        begun
    }

    fn data(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.message > 0 {
                let skipped = self.message.min(data.len());
                self.message -= skipped;
                data = data.get(skipped..).unwrap_or_default();
                continue;
            }
            let (now, rest) = data.split_at((GRPC_PREFIX - self.prefix.len()).min(data.len()));
            self.prefix.extend_from_slice(now);
            data = rest;
            if let [_, a, b, c, d] = *self.prefix.as_slice() {
                self.message = u32::from_be_bytes([a, b, c, d]) as usize;
                self.prefix.clear();
                begun += 1;
            }
        }
        begun
    }
}

/// The most that is passed on at once.
const PIECE: usize = 64 * 1024;
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
/// Flag byte and length of a gRPC message.
const GRPC_PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut wire = vec![b'P'; PREFACE];
        let frame = |kind: u8, payload: &[u8]| {
            let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
            [&[a, b, c, kind, 0, 0, 0, 0, 1], payload].concat()
        };
        wire.extend(frame(1, b"headers"));
        wire.extend(frame(DATA, &[0, 0, 0, 0, 3, 7]));
        wire.extend(frame(DATA, &[7, 7, 0, 0, 0]));
        wire.extend(frame(DATA, &[0, 0, 0, 0, 0, 0, 1, 9]));
        for size in 1..wire.len() {
            let mut messages = Messages::default();
            let counted: u64 = wire.chunks(size).map(|piece| messages.count(piece)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }
}
