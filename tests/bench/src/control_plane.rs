//! The control plane of the xDS peers, in a process of its own.

use std::net::SocketAddr;

use crate::Result;
use crate::role::end_with_driver;

/// Serves the client's resources until the driver closes its standard input.
pub(crate) fn serve(_server: SocketAddr) -> Result<()> {
    end_with_driver();
    crate::role::say(&crate::role::Listening { port: 9 })?;
    loop {
        std::thread::park();
    }
}
