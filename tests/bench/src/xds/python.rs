//! grpcio from its registry, in an environment that the interop scenarios share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// The newest release, as in `tests/interop/run`.
const GRPCIO: &str = "grpcio==1.85.1";

/// A Python that has grpcio; made once for a target directory.
pub(super) fn with_grpcio() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).ok_or("the executable is in no target directory")?;
    let venv = target.join("ci/interop-venv");
    let python = venv.join("bin/python");
    if !has_grpcio(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let flags = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"];
        run(Command::new(&python).args(flags).arg(GRPCIO))?;
    }
    Ok(python)
}

fn has_grpcio(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import grpc"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
