//! Macro benchmarks of the mesh beside its peers, in one run and with one command:
//! `cargo run --release -p mesh-bench -- [--xds [--alone] | --floods [NAME]] [--quick] [--check] [--check-times] [--json FILE] [--profiles DIR]`.
//!
//! The binary executes itself for every child role. Instructions come from callgrind and allocations from a counting
//! allocator, both exact; times are shown as ratios of neighbours in one run, pinned to one core.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock, and its processes own their tasks")]

mod alloc;
mod certs;
mod child;
mod echo;
mod floods;
mod icount;
mod mark;
mod micro;
mod peers;
mod report;
mod resources;
mod role;
mod rows;
mod xds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::peers::Site;
use crate::report::Report;
use crate::rows::{Context, decisions, ratio, stack, unary};

/// Failures end the run with their text.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str =
    "usage: mesh-bench [--xds [--alone] | --floods [NAME]] [--quick] [--check] [--check-times] [--json FILE] [--profiles DIR]
  --xds           the configuration's path at scale, instead of the request's
  --floods        instead, hostile clients, all or those of a name; a minute
  --alone         of that, this mesh without its peers, of which some take a minute for each row
  --quick         fewer samples, about a minute
  --check         exit with failure when a bound of instructions or allocations is missed
  --check-times   the same for times, which need a quiet machine
  --json FILE     write everything that was measured
  --profiles DIR  leave the callgrind files of the measured phases for callgrind_annotate";

#[derive(Debug, Default)]
struct Options {
    xds: bool,
    floods: bool,
    flood: Option<String>,
    alone: bool,
    quick: bool,
    check: bool,
    check_times: bool,
    json: Option<PathBuf>,
    profiles: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut path = || args.next().map(PathBuf::from).ok_or(USAGE);
            match arg.as_str() {
                "--xds" => options.xds = true,
                "--floods" => options.floods = true,
                name if options.floods && !name.starts_with('-') => options.flood = Some(name.to_owned()),
                "--alone" => options.alone = true,
                "--quick" => options.quick = true,
                "--check" => options.check = true,
                "--check-times" => options.check_times = true,
                "--json" => options.json = Some(path()?),
                "--profiles" => options.profiles = Some(path()?),
                other => return Err(format!("unknown argument `{other}`\n{USAGE}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mesh-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Child roles come first; everything else is the driver.
fn dispatch(args: &[String]) -> Result<bool> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["server", kind, certs, marks] => {
            let marks = marks.split_terminator(',').map(str::parse);
            let marks = marks.collect::<Result<_, _>>()?;
            role::server(kind.parse()?, Path::new(certs), marks)?;
        }
        ["client", kind, server, certs, xds] => {
            let site = Site { server: server.parse()?, certs: PathBuf::from(certs), xds: xds.parse()? };
            role::client(kind.parse()?, &site)?;
        }
        ["micro", family, how] => micro::role(family.parse()?, how.parse()?)?,
        ["xds-server", kind, clusters, endpoints] => {
            xds::server_role(kind.parse()?, clusters.parse()?, endpoints.parse()?)?;
        }
        ["xds-client", kind, protocol, xds, clusters] => {
            xds::client_role(kind.parse()?, protocol.parse()?, xds.parse()?, clusters.parse()?)?;
        }
        ["flood-server", kind] => floods::server_role(kind.parse()?)?,
        ["flood-attacker", flood, server, seconds] => {
            floods::attacker_role(flood.parse()?, server.parse()?, seconds.parse()?)?;
        }
        ["silent-attacker", says, from, server, connections, rate] => {
            let (from, server) = (from.parse()?, server.parse()?);
            floods::silent_role(says, from, server, connections.parse()?, rate.parse()?)?;
        }
        ["control-plane", server] => resources::control_plane(server.parse()?)?,
        _ => return drive(&args.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }
    Ok(true)
}

fn drive(args: &[String]) -> Result<bool> {
    let options = Options::parse(args)?;
    if options.floods {
        return Ok(floods::measure(options.flood.as_deref())? || !options.check);
    }
    let mut report = Report::new(options.quick)?;
    if options.xds {
        xds::measure(&mut report, options.quick, options.alone)?;
    } else {
        let cx = Context::new(options.quick, options.profiles)?;
        unary::measure(&cx, &mut report)?;
        stack::measure(&cx, &mut report)?;
        decisions::routes(&cx, &mut report)?;
        decisions::picks(&mut report)?;
        ratio::measure(&cx, &mut report)?;
    }
    let holds = report.finish(options.json.as_deref())?;
    Ok((holds.exact || !options.check) && (holds.times || !options.check_times))
}
