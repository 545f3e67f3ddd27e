//! Child processes: this binary again, in one role, perhaps under callgrind or pinned to a core.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::peers::Evidence;
use crate::role::{Listening, Order, Ran};

/// How long a child may be silent; a phase under callgrind is the longest, and the machine may be busy.
const SILENCE: Duration = Duration::from_secs(600);

/// How a child runs.
#[derive(Debug, Clone)]
pub(crate) enum Wrap {
    /// As it is.
    Native,
    /// On this core alone.
    Pinned(usize),
    /// Under callgrind, with a dump at each mark, named after this path.
    Callgrind(PathBuf),
}

impl Wrap {
    fn command(&self, exe: &Path) -> Command {
        match self {
            Self::Native => Command::new(exe),
            Self::Pinned(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(exe);
                command
            }
            Self::Callgrind(out) => {
                let mut command = Command::new("valgrind");
                command
                    .args(["--quiet", "--tool=callgrind", "--dump-before=*phase_mark*"])
                    .arg(format!("--callgrind-out-file={}", out.display()))
                    .arg(exe);
                command
            }
        }
    }
}

/// A running child; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    what: String,
}

impl Child {
    /// Starts this binary in the role given by `args`.
    pub(crate) fn spawn(wrap: &Wrap, args: &[String]) -> Result<Self> {
        let mut command = wrap.command(&std::env::current_exe()?);
        command.args(args);
        Self::start(command, args.join(" "))
    }

    /// Starts any command that speaks in lines of JSON.
    pub(crate) fn start(mut command: Command, what: String) -> Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().ok_or("the child has no stdin")?;
        let output = process.stdout.take().ok_or("the child has no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, orders, lines, what })
    }

    /// Its process id, where it is not wrapped.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line of the child.
    pub(crate) fn hear<T: DeserializeOwned>(&self) -> Result<T> {
        self.hear_within(SILENCE)
    }

    /// The next line of the child, if it says something in time.
    pub(crate) fn hear_within<T: DeserializeOwned>(&self, patience: Duration) -> Result<T> {
        let line =
            self.lines.recv_timeout(patience).map_err(|e| format!("`{}` says nothing: {e}", self.what))?;
        serde_json::from_str(&line).map_err(|e| format!("`{}` says `{line}`: {e}", self.what).into())
    }

    /// One line to the child.
    pub(crate) fn tell<T: Serialize>(&mut self, line: &T) -> Result<()> {
        serde_json::to_writer(&mut self.orders, line)?;
        self.orders.write_all(b"\n")?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill and only the exit status is collected.
        if self.process.kill().is_ok() {
            self.process.wait().ok();
        }
    }
}

/// A server child and its address.
#[derive(Debug)]
pub(crate) struct ServerChild {
    /// The process.
    pub(crate) child: Child,
    /// Where it accepts.
    pub(crate) address: SocketAddr,
}

impl ServerChild {
    /// Starts a role that announces a port.
    pub(crate) fn spawn(wrap: &Wrap, args: &[String]) -> Result<Self> {
        let child = Child::spawn(wrap, args)?;
        let Listening { port } = child.hear()?;
        Ok(Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }
}

/// A client child that is connected.
#[derive(Debug)]
pub(crate) struct ClientChild(Child);

impl ClientChild {
    /// Starts a client and waits for its first answered call.
    pub(crate) fn spawn(wrap: &Wrap, args: &[String]) -> Result<Self> {
        let child = Child::spawn(wrap, args)?;
        child.hear::<String>()?;
        Ok(Self(child))
    }

    /// Lets it make calls.
    pub(crate) fn run(&mut self, calls: u64, outstanding: u64) -> Result<Ran> {
        self.0.tell(&Order::Run { calls, outstanding })?;
        self.0.hear()
    }

    /// Lets it prove that its features are on.
    pub(crate) fn prove(&mut self) -> Result<Evidence> {
        self.0.tell(&Order::Prove)?;
        self.0.hear()
    }
}
