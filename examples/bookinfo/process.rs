//! Processes of the demo: this same program under another subcommand, told what to do by lines on standard input.
//!
//! A child ends when its standard input does, so none outlives the parent, however the parent ends.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Failure;

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) at: SocketAddr,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

// === impl Process ===

impl Process {
    /// Starts a child and waits until it says where it listens.
    pub(crate) async fn start(
        name: String,
        args: &[&str],
        bootstrap: Option<String>,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(bootstrap) = bootstrap {
            command.env_remove("GRPC_XDS_BOOTSTRAP").env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap);
        }
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        let mut stdout = BufReader::new(stdout).lines();
        let first = stdout.next_line().await?.ok_or_else(|| format!("{name} ended before it was ready"))?;
        let at = first.strip_prefix("ready ").ok_or_else(|| format!("{name} said {first:?}"))?.parse()?;
        Ok(Self { name, at, child, stdin, stdout })
    }

    /// Sends one line and waits for the one that answers it.
    pub(crate) async fn ask(&mut self, line: &str) -> Result<Value, Failure> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        let answer = self.stdout.next_line().await?.ok_or_else(|| format!("{} ended", self.name))?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Ends the child at once (SIGKILL), and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Lets the child finish what it has begun, and waits until it is gone.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        child.wait().await?;
        Ok(())
    }
}

// === the child's side ===

/// Tells the parent where this process listens.
#[expect(clippy::print_stdout, reason = "standard output is the protocol between parent and child")]
pub(crate) fn ready(at: SocketAddr) {
    println!("ready {at}");
}

/// Answers each line of standard input with one line, until there are no more.
#[expect(clippy::print_stdout, reason = "standard output is the protocol between parent and child")]
pub(crate) async fn commands(answer: impl AsyncFn(&str) -> Result<Value, Failure>) -> Result<(), Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{}", answer(&line).await?);
    }
    Ok(())
}
