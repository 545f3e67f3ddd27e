//! A control plane in a process of its own: serves the resource files of a directory to any xDS client.
//!
//! `mesh-control --help` says how.

use std::io::{self, Write as _};
use std::process::ExitCode;

use mesh_xds::server::command::{Command, Output};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(problem) => return fail(&format!("{problem}\nTry --help.")),
    };
    if command.is_verbose() {
        // Of this library: its dependencies speak of every frame.
        let log = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::new(LOG));
        log.init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let run = async {
        let mut stop = Stop::new().map_err(|error| error.to_string())?;
        let ran = command.run(Output::new(say), stop.wait()).await;
        ran.map_err(|error| error.to_string())
    };
    match runtime.block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(&problem),
    }
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

fn say(line: &str) {
    // Nobody listens any more: serving goes on.
    drop(writeln!(io::stdout(), "{line}"));
}

fn fail(problem: &str) -> ExitCode {
    drop(writeln!(io::stderr(), "mesh-control: {problem}"));
    ExitCode::FAILURE
}

const LOG: &str = "mesh_xds=debug,info";
