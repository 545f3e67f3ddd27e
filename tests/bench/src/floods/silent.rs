//! Connections that withhold the handshake at a port with TLS, and what a good client's handshake takes meanwhile: ours,
//! and tonic on rustls beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, sleep_until};

use super::frames::{PREFACE, SETTINGS};
use crate::Result;
use crate::child::{Child, Wrap};
use crate::peers::{ServerKind, Site, connect_tls};
use crate::role::{runtime, say};
use crate::rows::Context;

/// One attack.
#[derive(Debug, Clone, Copy)]
struct Attack {
    /// Said first, and last.
    says: &'static str,
    from: Ipv4Addr,
    /// All at once, or so many new ones a second, each of them for a while.
    rate: Option<u64>,
}

/// Handshakes of the good client.
#[derive(Debug)]
struct Handshakes {
    count: usize,
    p50: Duration,
    p99: Duration,
    slowest: Duration,
}

/// Runs every attack; adds the bounds that do not hold.
pub(super) fn measure(missed: &mut Vec<String>) -> Result<()> {
    let attackers = connections() / ATTACKERS;
    println!(
        "\n## Silence in TLS\n\n{ATTACKERS} attackers with {attackers} connections each; a good client makes one handshake after the other.\n"
    );
    println!("| server | attack | from | handshakes | p50 ms | p99 ms | slowest ms |");
    println!("|---|---|---|---|---|---|---|");
    let context = Context::new(true, None)?;
    for kind in ServerKind::ALL {
        let site = context.site(kind, &Wrap::Native, &[])?;
        let server = site.echo.address;
        let peer = Site { server, certs: PathBuf::from(site.certs()), xds: server };
        runtime()?.block_on(until_served(&peer))?;
        let quiet = runtime()?.block_on(handshakes(&peer, || false))?;
        quiet.print(kind, "none", "");
        for attack in ATTACKS {
            let during = attack.run(&peer, attackers)?;
            let how = format!("{} {}", attack.says, attack.rate.map_or("at once", |_| "in a stream"));
            during.print(kind, &how, &attack.from.to_string());
            let most = quiet.p99 + MOST;
            if kind == ServerKind::Mesh && during.p99 > most {
                let from = attack.from;
                missed.push(format!(
                    "{how} from {from}: the good client's p99 is {:?}, {most:?} may be",
                    during.p99
                ));
            }
        }
    }
    Ok(())
}

/// The role: opens connections, says that they are open, and holds them until it is killed.
pub(crate) fn role(
    says: &str,
    from: Ipv4Addr,
    server: SocketAddr,
    connections: usize,
    rate: u64,
) -> Result<()> {
    let says: &[u8] = if says == ONE_BYTE { &[0x16] } else { &[] };
    runtime()?.block_on(async {
        let mut open = std::collections::VecDeque::new();
        let begin = Instant::now();
        for n in 0..connections {
            if rate > 0 {
                sleep_until(begin + Duration::from_secs(1) * u32::try_from(n)? / u32::try_from(rate)?).await;
            }
            let socket = TcpSocket::new_v4()?;
            // Its port is free for the next attacker when it is gone.
            socket.set_zero_linger()?;
            socket.bind((from, 0).into())?;
            let mut socket = socket.connect(server).await?;
            // The server may have closed it meanwhile.
            drop(socket.write_all(says).await);
            open.push_back(socket);
        }
        say(&open.len())?;
        std::future::pending().await
    })
}

// === impl Attack ===

impl Attack {
    fn run(&self, peer: &Site, connections: usize) -> Result<Handshakes> {
        let rate = self.rate.map_or(0, |rate| rate / ATTACKERS as u64);
        let count = if rate == 0 { connections } else { rate as usize * STREAM_SECONDS };
        let args = [
            "silent-attacker".to_owned(),
            self.says.to_owned(),
            self.from.to_string(),
            peer.server.to_string(),
            count.to_string(),
            rate.to_string(),
        ];
        let attackers = (0..ATTACKERS).map(|_| Child::spawn(&Wrap::Native, &args));
        let attackers = attackers.collect::<Result<Vec<_>>>()?;
        let opening = std::thread::spawn(move || {
            let all = attackers.iter().try_for_each(|attacker| attacker.hear::<usize>().map(drop));
            // They hold what they have until they are dropped.
            all.map(|()| attackers).map_err(|error| error.to_string())
        });
        let handshakes = runtime()?.block_on(handshakes(peer, || !opening.is_finished()))?;
        drop(opening.join().map_err(|_| "a thread panicked")??);
        Ok(handshakes)
    }
}

// === impl Handshakes ===

impl Handshakes {
    fn print(&self, kind: ServerKind, attack: &str, from: &str) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {} | {attack} | {from} | {} | {:.2} | {:.2} | {:.2} |",
            kind.key(),
            self.count,
            ms(self.p50),
            ms(self.p99),
            ms(self.slowest)
        );
    }
}

/// Waits for a first handshake: the server may still be waiting for its configuration.
async fn until_served(peer: &Site) -> Result<()> {
    let begin = Instant::now();
    while let Err(error) = handshake(peer).await {
        if begin.elapsed() > PATIENCE {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// One handshake after the other: while connections are being opened, and for a while after.
async fn handshakes(peer: &Site, are_opening: impl Fn() -> bool) -> Result<Handshakes> {
    let mut times = Vec::new();
    let mut until = Instant::now() + HELD;
    while Instant::now() < until {
        if are_opening() {
            until = Instant::now() + HELD;
        }
        let begin = Instant::now();
        tokio::time::timeout(PATIENCE, handshake(peer)).await.map_err(|_| "a handshake does not end")??;
        times.push(begin.elapsed());
        sleep(PAUSE).await;
    }
    times.sort_unstable();
    let quantile = |of: usize| times.get(times.len() * of / 100).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    Ok(Handshakes { count: times.len(), p50: quantile(50), p99: quantile(99), slowest })
}

/// A handshake to its end on both sides: the server speaks when it has accepted the client's certificate.
async fn handshake(peer: &Site) -> Result<()> {
    let mut tls = connect_tls(peer).await?;
    tls.write_all(PREFACE).await?;
    tls.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
    tls.read_exact(&mut [0; 9]).await?;
    tls.get_ref().0.set_zero_linger()?;
    Ok(())
}

/// How many connections the attackers have together: as many as the server may open beside its own.
fn connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let limit =
        open_files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1_024_usize);
    limit.saturating_sub(200).min(10_000)
}

const ATTACKERS: usize = 2;
const NOTHING: &str = "nothing";
const ONE_BYTE: &str = "one-byte";
/// The good client's own address, and another one.
const OWN: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// New connections a second, of both attackers.
const RATE: Option<u64> = Some(206);
const ATTACKS: [Attack; 6] = [
    Attack { says: NOTHING, from: OWN, rate: None },
    Attack { says: NOTHING, from: OTHER, rate: None },
    Attack { says: ONE_BYTE, from: OWN, rate: None },
    Attack { says: ONE_BYTE, from: OTHER, rate: None },
    Attack { says: NOTHING, from: OWN, rate: RATE },
    Attack { says: ONE_BYTE, from: OTHER, rate: RATE },
];
const STREAM_SECONDS: usize = 2;
/// How long handshakes are made without an attack, and after the last connection of one was opened.
const HELD: Duration = Duration::from_secs(2);
/// What an attack may add to the good client's p99.
const MOST: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(1);
