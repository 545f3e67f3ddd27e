//! `mesh-control`, the command, as a function: the binary adds a runtime, signals and a log.

mod check;
mod options;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use self::check::check;
pub use self::options::{Command, InvalidCommand};
use self::options::{HELP, Serve, Task, TlsFiles};
use self::watch::{Refused, watch_clients, watch_files};
use super::{Checks, ControlPlane, Directory, InvalidTls, Tls};
use crate::ads::Kind;

/// Where a command writes its lines.
#[derive(Clone)]
pub struct Output(Arc<dyn Fn(&str) + Send + Sync>);

/// Why a command did not do what it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The directory is none.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The files of the control plane's identity cannot be used.
    #[error(transparent)]
    Tls(#[from] InvalidTls),
    /// The address cannot be listened on.
    #[error("{address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Serving failed.
    #[error("serving: {0}")]
    Serve(io::Error),
    /// A check had something to say, and has said it.
    #[error("{0} found")]
    Found(usize),
}

// === impl Command ===

impl Command {
    /// Does it; a control plane serves until `stop` completes.
    ///
    /// Cancel safe: dropping the future ends everything at once, as if the process were killed.
    ///
    /// # Errors
    /// If it cannot be done, or a check found something.
    pub async fn run(self, output: Output, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
        match self.task {
            Task::Help => output.say(HELP.trim_end()),
            Task::Version => output.say(concat!("mesh-control ", env!("CARGO_PKG_VERSION"))),
            Task::Check { path, checks } => return check(&path, checks, &output),
            Task::Serve(serve) => return serve.run(output, stop).await,
        }
        Ok(())
    }
}

fn load(path: &Path, checks: Checks) -> Result<(ControlPlane, Directory), CommandError> {
    if !path.is_dir() {
        return Err(CommandError::NotADirectory(path.into()));
    }
    let control = ControlPlane::new();
    let mut directory = Directory::new(path, control.clone()).checks(checks);
    directory.scan();
    Ok((control, directory))
}

fn counts(control: &ControlPlane) -> String {
    Kind::ALL.map(|kind| format!("{} {kind}", control.resources(kind).len())).join(", ")
}

// === impl Serve ===

impl Serve {
    async fn run(self, output: Output, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
        let Self { directory: path, checks, listen, interval, tls } = self;
        let tls = tls.as_ref().map(TlsFiles::read).transpose()?;
        let (control, directory) = load(&path, checks)?;
        output.say(&format!("loaded {}: {} for everybody", path.display(), counts(&control)));
        let mut refused = Refused::default();
        refused.report(&directory.errors().borrow(), &output);

        let failed = |source| CommandError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        announce(address, tls.is_some(), &output);

        let mut tasks = JoinSet::new();
        let span = tracing::info_span!("watch_files", directory = %path.display());
        tasks.spawn(watch_files(directory, interval, refused, output.clone()).instrument(span));
        tasks.spawn(
            watch_clients(control.clone(), output.clone()).instrument(tracing::info_span!("watch_clients")),
        );
        let served = match tls {
            None => control.serve(listener, stop).await,
            Some(tls) => control.serve_tls(listener, tls, stop).await,
        };
        output.say("stopped");
        served.map_err(CommandError::Serve)
    }
}

fn announce(address: SocketAddr, is_tls: bool, output: &Output) {
    let here = reachable(address);
    let elsewhere = if here == address { None } else { outward(address) };
    let elsewhere =
        elsewhere.map(|address| format!("; from other machines at {address}")).unwrap_or_default();
    let tls = if is_tls { " (TLS)" } else { "" };
    output.say(&format!("serving xDS on {address}{tls}{elsewhere}"));
    if !is_tls {
        output
            .say(&format!("a client or server finds it by GRPC_XDS_BOOTSTRAP_CONFIG='{}'", bootstrap(here)));
    }
}

/// What a client on this machine connects to. An unspecified address is one to listen on, not one to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The address from which this machine would speak to the world: a connected datagram socket knows it, and sends nothing.
fn outward(address: SocketAddr) -> Option<SocketAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): nobody is there.
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let world: IpAddr = if address.is_ipv4() {
        Ipv4Addr::new(192, 0, 2, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((world, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| SocketAddr::new(ip, address.port()))
}

/// What a client and a server of the mesh need to know. A server's listener is named as gRPC's servers name theirs.
fn bootstrap(address: SocketAddr) -> String {
    let server = format!(
        r#"{{"server_uri": "{address}", "channel_creds": [{{"type": "insecure"}}], "server_features": ["xds_v3"]}}"#
    );
    format!(
        r#"{{"xds_servers": [{server}], "node": {{"id": "laptop", "cluster": "web"}}, "server_listener_resource_name_template": "{SERVER_LISTENER}"}}"#
    )
}

// === impl TlsFiles ===

impl TlsFiles {
    fn read(&self) -> Result<Tls, InvalidTls> {
        Tls::from_files(&self.certificate, &self.key, self.client_ca.as_deref())
    }
}

// === impl Output ===

impl Output {
    /// Each line goes to a function.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(say))
    }

    fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

const SERVER_LISTENER: &str = "grpc/server?xds.resource.listening_address=%s";
