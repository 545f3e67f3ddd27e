//! How an HTTP/1.1 connection ends after its codec: the last response arrives, or another protocol goes on.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::io::ServerIo;
use super::supervisor::{Command, Supervisor};
use super::upgrade::{Upgrade, UpgradeGuard};
use crate::server::AcceptedPeer;
use crate::transport::io::{LINGER, LINGER_BYTES};

/// Closes our half, and takes what the client still sends until it closes its own: a socket that is closed with bytes
/// unread is reset, and the client may lose the response that it has not read yet (RFC 9112 §9.6).
pub(super) async fn linger(mut io: ServerIo) {
    let farewell = async {
        let mut scratch = vec![0; SCRATCH];
        let mut left = LINGER_BYTES;
        // It may be shut down already.
        let _ = io.shutdown().await;
        while left > 0 {
            match io.read(&mut scratch).await {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    };
    // Whoever keeps sending is cut off.
    let _ = timeout(LINGER, farewell).await;
}

/// Watches over a connection that speaks another protocol now, until the application lets go of it, or it must end.
pub(super) async fn watch_upgraded(upgrade: Arc<Upgrade>, peer: &AcceptedPeer, mut supervisor: Supervisor) {
    // Dropped with this future, so with the server.
    let guard = UpgradeGuard(upgrade);
    let activity = &peer.connection().activity;
    activity.request_began();
    supervisor.watch_other();
    let must_close = async { while poll_fn(|cx| supervisor.poll(cx)).await != Command::Close {} };
    tokio::select! {
        () = guard.0.ended() => {}
        () = must_close => {}
    }
    activity.request_ended(Instant::now());
}

const SCRATCH: usize = 8 * 1024;
