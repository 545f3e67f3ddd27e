//! A control plane in a process of its own: serves the resource files of a directory to any xDS client.
//!
//! `mesh-control --help` says how.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mesh_xds::server::{Checks, ClientStatus, ControlPlane, Directory, FileError, Kind, Tls};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const HELP: &str = "\
Serves a directory of xDS resources over ADS (state of the world and incremental).

Usage: mesh-control [OPTIONS] DIR

  DIR/*.yaml, *.yml, *.json        resources for every client: one with @type, a list of them (under `resources`), or
                                   `static_resources` as in Envoy's own file
  DIR/NAME/*.yaml, *.yml, *.json   resources for clients whose node.cluster is NAME, above those for every client

Files are watched. A file with an error is refused as a whole, with its line and field; what it last said stays in force.

Options:
  --listen ADDR       where to listen [default: 127.0.0.1:18000]; port 0 takes a free one
  --interval MS       how often files are looked at [default: 500]
  --syntax-only       accept resources that this mesh's clients would refuse (for Envoy, or gRPC of other languages)
  --cert FILE         certificate chain (PEM): serve over TLS; needs --key
  --key FILE          its private key (PEM)
  --client-ca FILE    CA (PEM): only clients with a certificate of it may connect
  -h, --help          this text
";

/// What the command line says.
#[derive(Debug)]
struct Options {
    directory: PathBuf,
    listen: SocketAddr,
    interval: Duration,
    checks: Checks,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(problem) => return fail(&format!("{problem}\nTry --help.")),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
}

async fn run(options: Options) -> Result<(), String> {
    let Options { directory: path, listen, interval, checks, certificate, key, client_ca } = options;
    if !path.is_dir() {
        return Err(format!("{} is not a directory", path.display()));
    }
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(
            Tls::from_files(&certificate, &key, client_ca.as_deref()).map_err(|error| error.to_string())?,
        ),
        (None, None) if client_ca.is_none() => None,
        _ => return Err("--cert and --key belong together, and --client-ca needs them".to_owned()),
    };
    let mut stop = Stop::new().map_err(|error| error.to_string())?;
    let control = ControlPlane::new();
    let mut directory = Directory::new(&path, control.clone()).checks(checks);
    directory.scan();
    let counts = Kind::ALL.map(|kind| format!("{} {kind}", control.resources(kind).len())).join(", ");
    say(&format!("loaded {}: {counts} for everybody", path.display()));
    let mut refused = Refused::default();
    refused.report(&directory.errors().borrow());

    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    say(&format!("serving xDS on {address}{}", if tls.is_some() { " (TLS)" } else { "" }));
    if tls.is_none() {
        say(&format!("a client finds it by GRPC_XDS_BOOTSTRAP_CONFIG='{}'", bootstrap(address)));
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(directory, interval, refused));
    tasks.spawn(watch_clients(control.clone()));
    let served = match tls {
        None => control.serve(listener, stop.wait()).await,
        Some(tls) => control.serve_tls(listener, tls, stop.wait()).await,
    };
    say("stopped");
    served.map_err(|error| error.to_string())
}

fn bootstrap(address: SocketAddr) -> String {
    let server = format!(
        r#"{{"server_uri": "{address}", "channel_creds": [{{"type": "insecure"}}], "server_features": ["xds_v3"]}}"#
    );
    format!(r#"{{"xds_servers": [{server}], "node": {{"id": "laptop", "cluster": "web"}}}}"#)
}

/// Prints what changes in the directory.
async fn watch(mut directory: Directory, interval: Duration, mut refused: Refused) {
    loop {
        tokio::time::sleep(interval).await;
        let scanned = tokio::task::spawn_blocking(move || {
            let changes = directory.scan();
            (directory, changes)
        });
        // A scan that panicked has said so itself.
        let Ok((back, changes)) = scanned.await else { return };
        directory = back;
        for change in changes {
            say(&change.to_string());
        }
        refused.report(&directory.errors().borrow());
    }
}

/// The refusals that were printed.
#[derive(Debug, Default)]
struct Refused(BTreeSet<String>);

impl Refused {
    fn report(&mut self, errors: &[Arc<FileError>]) {
        let now: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
        for error in now.difference(&self.0) {
            say(&format!("refused {error}"));
        }
        if now.is_empty() && !self.0.is_empty() {
            say("every file is in force again");
        }
        self.0 = now;
    }
}

/// Prints which clients come and go, and what they refuse.
async fn watch_clients(control: ControlPlane) {
    let mut printed = BTreeSet::new();
    loop {
        let mut now = BTreeSet::new();
        control
            .wait_for(|clients| {
                now = clients.iter().flat_map(lines).collect();
                now != printed
            })
            .await;
        for line in now.difference(&printed) {
            say(line);
        }
        for line in printed.difference(&now).filter(|line| line.contains(CONNECTED)) {
            say(&line.replace(CONNECTED, " left"));
        }
        printed = now;
    }
}

fn lines(client: &ClientStatus) -> Vec<String> {
    if client.node_id.is_empty() {
        return Vec::new();
    }
    let peer = client.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    let who = format!("client {:?} (stream {}{peer}, {})", client.node_id, client.stream, client.protocol);
    let refusals = client.nacks().map(|(kind, nack)| {
        format!("{who} refused version {} of its {kind} resources: {}", nack.version, nack.message)
    });
    let refusals: Vec<String> = refusals.collect();
    [format!("{who}{CONNECTED}")].into_iter().chain(refusals).collect()
}

/// Ends by the usual signals.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        let terminated = self.terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

// === impl Options ===

impl Options {
    /// None where help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut directory = None;
        let mut options = Self {
            directory: PathBuf::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 18_000)),
            interval: Duration::from_millis(500),
            checks: Checks::AsClient,
            certificate: None,
            key: None,
            client_ca: None,
        };
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "-h" | "--help" => return Ok(None),
                "--syntax-only" => options.checks = Checks::Syntax,
                "--listen" => options.listen = parsed(&name, &value()?)?,
                "--interval" => {
                    options.interval = Duration::from_millis(parsed::<u64>(&name, &value()?)?.max(10))
                }
                "--cert" => options.certificate = Some(value()?.into()),
                "--key" => options.key = Some(value()?.into()),
                "--client-ca" => options.client_ca = Some(value()?.into()),
                flag if flag.starts_with('-') => return Err(format!("{flag} is not an option")),
                _ if directory.is_some() => return Err("more than one directory".to_owned()),
                _ => directory = Some(PathBuf::from(arg)),
            }
        }
        options.directory = directory.ok_or("which directory?")?;
        Ok(Some(options))
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: &OsString) -> Result<T, String> {
    let text = value.to_string_lossy();
    text.parse().map_err(|_| format!("{name}: {text:?} cannot be used"))
}

fn say(line: &str) {
    // Nobody listens any more: serving goes on.
    drop(writeln!(io::stdout(), "{line}"));
}

fn fail(problem: &str) -> ExitCode {
    drop(writeln!(io::stderr(), "mesh-control: {problem}"));
    ExitCode::FAILURE
}

const CONNECTED: &str = " connected";
