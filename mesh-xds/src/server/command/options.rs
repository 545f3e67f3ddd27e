//! The command line of `mesh-control`.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::server::Checks;

/// What `mesh-control` is to do.
#[derive(Debug)]
pub struct Command {
    pub(super) task: Task,
    verbose: bool,
}

#[derive(Debug)]
pub(super) enum Task {
    Help,
    Version,
    Check { path: PathBuf, checks: Checks },
    Serve(Serve),
}

/// How to serve a directory.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) directory: PathBuf,
    pub(super) checks: Checks,
    pub(super) listen: SocketAddr,
    pub(super) interval: Duration,
    pub(super) tls: Option<TlsFiles>,
}

/// Where the identity of the control plane is.
#[derive(Debug)]
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

/// A command line that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// An option that there is not.
    #[error("{0} is not an option")]
    Unknown(String),
    /// An option without its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value that the option cannot take.
    #[error("{option}: {value:?} cannot be used")]
    Value {
        /// The option.
        option: String,
        /// What was given.
        value: String,
    },
    /// More than one directory.
    #[error("more than one directory")]
    Directories,
    /// No directory.
    #[error("which directory?")]
    NoDirectory,
    /// A part of what TLS needs.
    #[error("--cert and --key belong together, and --client-ca needs them")]
    Tls,
}

/// What was read so far.
struct Arguments {
    directory: Option<PathBuf>,
    check: bool,
    verbose: bool,
    checks: Checks,
    listen: SocketAddr,
    interval: Duration,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
}

// === impl Command ===

impl Command {
    /// Reads the arguments that follow the name of the program.
    ///
    /// # Errors
    /// If an argument is not understood, or one is missing.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, InvalidCommand> {
        let mut args = args.into_iter();
        let mut arguments = Arguments::default();
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut value = || args.next().ok_or_else(|| InvalidCommand::NoValue(name.clone()));
            match name.as_str() {
                "-h" | "--help" => return Ok(Self { task: Task::Help, verbose: false }),
                "-V" | "--version" => return Ok(Self { task: Task::Version, verbose: false }),
                "-v" | "--verbose" => arguments.verbose = true,
                "--check" => arguments.check = true,
                "--syntax-only" => arguments.checks = Checks::Syntax,
                "--listen" => arguments.listen = parsed(&name, &value()?)?,
                "--interval" => {
                    arguments.interval = Duration::from_millis(parsed::<u64>(&name, &value()?)?.max(10));
                }
                "--cert" => arguments.certificate = Some(value()?.into()),
                "--key" => arguments.key = Some(value()?.into()),
                "--client-ca" => arguments.client_ca = Some(value()?.into()),
                flag if flag.starts_with('-') => return Err(InvalidCommand::Unknown(name)),
                _ if arguments.directory.is_some() => return Err(InvalidCommand::Directories),
                _ => arguments.directory = Some(PathBuf::from(arg)),
            }
        }
        arguments.command()
    }

    /// Whether the log is wanted as well.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }
}

// === impl Arguments ===

impl Arguments {
    fn command(self) -> Result<Command, InvalidCommand> {
        let Self { directory, check, verbose, checks, listen, interval, certificate, key, client_ca } = self;
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca }),
            (None, None) if client_ca.is_none() => None,
            _ => return Err(InvalidCommand::Tls),
        };
        let task = match directory {
            Some(path) if check => Task::Check { path, checks },
            Some(directory) => Task::Serve(Serve { directory, checks, listen, interval, tls }),
            // As compilers have it: what there is to say, where there is nothing to do.
            None if verbose && !check => Task::Version,
            None => return Err(InvalidCommand::NoDirectory),
        };
        Ok(Command { task, verbose })
    }
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            directory: None,
            check: false,
            verbose: false,
            checks: Checks::AsClient,
            listen: SocketAddr::from(([127, 0, 0, 1], 18_000)),
            interval: Duration::from_millis(500),
            certificate: None,
            key: None,
            client_ca: None,
        }
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: &OsStr) -> Result<T, InvalidCommand> {
    let text = value.to_string_lossy();
    text.parse()
        .map_err(|_| InvalidCommand::Value { option: name.to_owned(), value: text.clone().into_owned() })
}

pub(super) const HELP: &str = "\
Serves a directory of xDS resources over ADS (state of the world and incremental).

Usage: mesh-control [OPTIONS] DIR
       mesh-control --check [--syntax-only] DIR
       mesh-control --check FILE

  DIR/*.yaml, *.yml, *.json        resources for every client: one with @type, a list of them (under `resources`), or
                                   `static_resources` as in Envoy's own file
  DIR/NAME/*.yaml, *.yml, *.json   resources for clients whose node.cluster is NAME, above those for every client

Files are watched. A file with an error is refused as a whole, with its line and field; what it last said stays in force.
Where two files have the same resource, the one that is in force keeps it and the other is refused. At a start nothing is
in force: then it is the one whose name sorts first.

Options:
  --check             serve nothing; say which files would be refused at a start, which resources name what is not there,
                      and which fields have no effect. Exit status 0: there was nothing to say; 1: there was.
                      Of a FILE, say the same as an application that is configured by it (Mesh::from_static_file)
  --listen ADDR       where to listen [default: 127.0.0.1:18000]; port 0 takes a free one
  --interval MS       how often files are looked at [default: 500]
  --syntax-only       accept resources that this mesh's clients would refuse (for Envoy, or gRPC of other languages)
  --cert FILE         certificate chain (PEM): serve over TLS; needs --key
  --key FILE          its private key (PEM)
  --client-ca FILE    CA (PEM): only clients with a certificate of it may connect
  -v, --verbose       the log on standard error, at level debug; without DIR, the version
  -V, --version       the version
  -h, --help          this text
";
