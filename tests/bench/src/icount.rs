//! Instructions between two marks, by callgrind.
//!
//! Every mark makes callgrind write a dump and start from zero, so a dump holds the phase that the mark ends: start-up
//! and handshake are in the dumps before, and the difference of two run lengths is taken inside one process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// True when `valgrind` can be run.
pub(crate) fn available() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What to tell a user without valgrind.
pub(crate) const MISSING: &str = "valgrind is not installed: instruction counts are left out (Debian and Ubuntu: apt-get install valgrind)";

/// The file of the `number`-th dump (from 1) of a process that ran with `--callgrind-out-file=out`.
pub(crate) fn dump_file(out: &Path, number: usize) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Instructions in the `number`-th dump.
pub(crate) fn instructions(out: &Path, number: usize) -> Result<u64> {
    let file = dump_file(out, number);
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    total(&text).ok_or_else(|| format!("{}: no totals line", file.display()).into())
}

fn total(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")))
        .find_map(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_read_from_a_dump() {
        let text = "version: 1\nevents: Ir\nsummary: 123456\n\nfn=(1) main\n0 5\n\ntotals: 123456\n";
        assert_eq!(total(text), Some(123_456));
        assert_eq!(total("fn=(1) main"), None);
    }
}
