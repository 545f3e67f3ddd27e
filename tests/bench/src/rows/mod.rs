//! The scenarios, one file each. Each prints its section, puts its data and checks its bounds.

pub(crate) mod decisions;
mod proof;
pub(crate) mod ratio;
pub(crate) mod stack;
pub(crate) mod unary;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::certs;
use crate::child::{ServerChild, Wrap};
use crate::peers::{ClientKind, ServerKind};

/// What all scenarios of one run share.
#[derive(Debug)]
pub(crate) struct Context {
    /// Fewer samples.
    pub(crate) quick: bool,
    /// Where the steady phase's callgrind files are left for reading, if anywhere.
    profiles: Option<PathBuf>,
    dir: TempDir,
}

impl Context {
    /// Issues the run's certificates.
    pub(crate) fn new(quick: bool, profiles: Option<PathBuf>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        certs::issue(dir.path())?;
        if let Some(profiles) = &profiles {
            fs::create_dir_all(profiles)?;
        }
        Ok(Self { quick, profiles, dir })
    }

    /// Calls before anything is measured.
    pub(crate) fn warm_up(&self) -> u64 {
        500
    }

    /// Calls in one measured phase.
    pub(crate) fn calls(&self) -> u64 {
        if self.quick { 500 } else { 2000 }
    }

    /// A path for a callgrind file.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.callgrind"))
    }

    /// Leaves a dump for `callgrind_annotate`, where the user asked for it.
    pub(crate) fn keep_profile(&self, dump: &Path, name: &str) -> Result<()> {
        if let Some(profiles) = &self.profiles {
            fs::copy(dump, profiles.join(format!("{name}.callgrind")))?;
        }
        Ok(())
    }

    /// Starts a server (and the control plane that names it) for clients to call.
    pub(crate) fn site(&self, kind: ServerKind, wrap: &Wrap, marks: &[u64]) -> Result<Site> {
        let certs = self.dir.path().display().to_string();
        let marks: Vec<_> = marks.iter().map(u64::to_string).collect();
        let args = ["server".to_owned(), kind.key().to_owned(), certs.clone(), marks.join(",")];
        let mut echo = ServerChild::spawn(wrap, &args)?;
        let control_plane =
            ServerChild::spawn(&Wrap::Native, &["control-plane".to_owned(), echo.address.to_string()])?;
        echo.child.tell(&control_plane.address)?;
        if kind == ServerKind::Mesh {
            until_serving(echo.address)?;
        }
        Ok(Site { echo, control_plane, certs })
    }
}

/// Waits until a server has its configuration: before that it closes each connection at once.
fn until_serving(address: SocketAddr) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let mut probe = TcpStream::connect(address)?;
        probe.set_read_timeout(Some(Duration::from_millis(200)))?;
        // Nobody speaks before we do, so that a connection that stays is silent.
        match probe.read(&mut [0; 1]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Ok(_) | Err(_) => std::thread::yield_now(),
        }
    }
    Err("the server got no configuration".into())
}

/// One server under call.
#[derive(Debug)]
pub(crate) struct Site {
    /// The echo server.
    pub(crate) echo: ServerChild,
    control_plane: ServerChild,
    certs: String,
}

impl Site {
    /// The directory with the certificates of servers and clients.
    pub(crate) fn certs(&self) -> &str {
        &self.certs
    }

    /// The arguments of a client role that calls here.
    pub(crate) fn client(&self, kind: ClientKind) -> Vec<String> {
        vec![
            "client".to_owned(),
            kind.key().to_owned(),
            self.echo.address.to_string(),
            self.certs.clone(),
            self.control_plane.address.to_string(),
        ]
    }
}
