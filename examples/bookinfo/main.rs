//! Bookinfo: four services on a mesh without sidecars, on this machine, each replica a process of its own.
//!
//! ```text
//!  browser ──► productpage (axum) ──► details (axum)
//!                         └────────► reviews v1 | v2 | v3 (tonic) ──► ratings (tonic)
//! ```
//!
//! `bookinfo` starts everything, a control plane and a CA included, and prints the page's address. `bookinfo --tour`
//! plays a story under steady load and ends with a table of what was promised and what was measured;
//! `--json FILE` writes that table as data. The other subcommands are what the processes of the demo run.

mod api;
mod ca;
mod control;
mod details;
mod fleet;
mod load;
mod page;
mod plan;
mod process;
mod productpage;
mod ratings;
mod reviews;
mod service;
mod tour;

use std::process::ExitCode;

/// Any error ends the process with its message.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: bookinfo [--tour] [--json FILE]";

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => fleet::run().await,
        ["--tour"] => tour::run(None).await,
        ["--tour", "--json", file] | ["--json", file, "--tour"] => tour::run(Some(file)).await,
        ["control-plane", at] => control::run(at).await,
        ["productpage"] => productpage::run().await,
        ["details"] => details::run().await,
        ["reviews", version] => reviews::run(version).await,
        ["ratings"] => ratings::run().await,
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bookinfo: {failure}");
            ExitCode::FAILURE
        }
    }
}
