//! Instructions and allocations of one unary call over mTLS, client process and server process, exactly (tier T0).
//!
//! Two phases of one process are measured after a warm-up, and must agree within two percent; a process whose phases
//! do not is measured once more and its spread is printed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Context, proof};
use crate::Result;
use crate::child::{ClientChild, Wrap};
use crate::icount;
use crate::peers::{ClientKind, ServerKind};
use crate::report::{Check, Measure, Report, number};
use crate::role::Served;

/// The most that two measurements of the same thing may differ.
const AGREE: f64 = 0.02;

/// What listener, peer, policy and metrics may add to tonic's server.
const SERVER_INSTRUCTIONS: f64 = 6_000.0;
const SERVER_ALLOCATIONS: f64 = 4.0;

/// Cost of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// User-space instructions; not a number without valgrind.
    pub(crate) instructions: f64,
    /// Relative difference of the phases' instructions.
    pub(crate) spread: f64,
    /// Heap allocations.
    pub(crate) allocations: f64,
    /// Bytes allocated.
    pub(crate) bytes: f64,
}

impl Cost {
    fn json(&self) -> Value {
        json!({
            "instructions": self.instructions.is_finite().then(|| self.instructions.round()),
            "allocations": self.allocations,
            "bytes": self.bytes.round(),
            "spread": self.spread,
        })
    }
}

/// Measures all clients, then all servers.
pub(crate) fn measure(cx: &Context, report: &mut Report) -> Result<()> {
    if !icount::available() {
        report.note(icount::MISSING)?;
    }
    let mut clients = BTreeMap::new();
    for kind in ClientKind::ALL {
        clients.insert(kind, client(cx, kind)?);
    }
    show(
        report,
        "client process, per unary call of 1 KiB over mTLS",
        "client_mtls_unary",
        ClientKind::key,
        &clients,
    )?;
    if let (Some(mesh), Some(tonic)) = (clients.get(&ClientKind::Mesh), clients.get(&ClientKind::Tonic)) {
        let bounds = [tonic.instructions, tonic.allocations];
        check(report, "client", mesh, "tonic's", bounds)?;
    }
    let mut servers = BTreeMap::new();
    for kind in ServerKind::ALL {
        servers.insert(kind, server(cx, kind)?);
    }
    show(
        report,
        "server process, per unary call of 1 KiB over mTLS",
        "server_mtls_unary",
        ServerKind::key,
        &servers,
    )?;
    if let (Some(mesh), Some(tonic)) = (servers.get(&ServerKind::Mesh), servers.get(&ServerKind::Tonic)) {
        let bounds = [tonic.instructions + SERVER_INSTRUCTIONS, tonic.allocations + SERVER_ALLOCATIONS];
        check(report, "server", mesh, "tonic's and a little", bounds)?;
    }
    Ok(())
}

fn check(report: &mut Report, side: &str, mesh: &Cost, than: &str, at_most: [f64; 2]) -> Result<()> {
    let [instructions, allocations] = at_most;
    report.check(Check {
        what: format!("{side} instructions of mesh, not more than {than}"),
        value: mesh.instructions,
        at_most: instructions,
        unit: "",
        measure: Measure::Exact,
    })?;
    report.check(Check {
        what: format!("{side} allocations of mesh, not more than {than}"),
        value: mesh.allocations,
        at_most: allocations,
        unit: "",
        measure: Measure::Exact,
    })
}

fn show<K: Ord + Copy>(
    report: &mut Report,
    title: &str,
    key: &str,
    name: fn(K) -> &'static str,
    costs: &BTreeMap<K, Cost>,
) -> Result<()> {
    let rows: Vec<_> = costs
        .iter()
        .map(|(kind, cost)| {
            vec![
                name(*kind).to_owned(),
                number(cost.instructions.round()),
                format!("{:.2} %", cost.spread * 100.0),
                format!("{:.2}", cost.allocations),
                number(cost.bytes.round()),
            ]
        })
        .collect();
    report.table(title, &["peer", "instructions", "spread", "allocations", "bytes"], &rows)?;
    for (kind, cost) in costs {
        if cost.spread > AGREE {
            report.note(&format!("{}: two measurements differ by more than 2 %", name(*kind)))?;
        }
    }
    let data = costs.iter().map(|(kind, cost)| (name(*kind).to_owned(), cost.json())).collect();
    report.put(key, Value::Object(data));
    Ok(())
}

fn client(cx: &Context, kind: ClientKind) -> Result<Cost> {
    let site = cx.site(ServerKind::Tonic, &Wrap::Native, &[])?;
    let mut child = ClientChild::spawn(&Wrap::Native, &site.client(kind))?;
    child.run(cx.warm_up(), 1)?;
    let ran = child.run(cx.calls(), 1)?;
    if kind == ClientKind::Mesh {
        proof::client(&child.prove()?, 1 + cx.warm_up() + cx.calls())?;
    }
    drop(child);
    let mut cost = Cost {
        instructions: f64::NAN,
        spread: 0.0,
        allocations: ran.allocated.count as f64 / ran.calls as f64,
        bytes: ran.allocated.bytes as f64 / ran.calls as f64,
    };
    if !icount::available() {
        return Ok(cost);
    }
    let out = cx.scratch(&format!("client-{}", kind.key()));
    let once = |out: &Path| -> Result<Vec<f64>> {
        let mut child = ClientChild::spawn(&Wrap::Callgrind(out.to_owned()), &site.client(kind))?;
        child.run(cx.warm_up(), 1)?;
        // Each phase has a mark before and a mark behind it: its dump is the second of the pair.
        for _ in 0..2 {
            child.run(cx.calls(), 1)?;
        }
        drop(child);
        [4, 6].iter().map(|number| per_call(out, *number, cx.calls())).collect()
    };
    (cost.instructions, cost.spread) = agree(cx, &out, once)?;
    cx.keep_profile(&icount::dump_file(&out, 6), &format!("client-{}", kind.key()))?;
    Ok(cost)
}

fn server(cx: &Context, kind: ServerKind) -> Result<Cost> {
    let marks = [cx.warm_up(), cx.warm_up() + cx.calls(), cx.warm_up() + 2 * cx.calls()];
    let serve = |wrap: &Wrap| -> Result<Served> {
        let site = cx.site(kind, wrap, &marks)?;
        let mut client = ClientChild::spawn(&Wrap::Native, &site.client(ClientKind::H2))?;
        // The first call was made while connecting.
        client.run(cx.warm_up() + 2 * cx.calls() - 1, 1)?;
        let served: Served = site.echo.child.hear()?;
        if kind == ServerKind::Mesh {
            proof::server(&served.evidence, &client.prove()?, marks[2])?;
        }
        Ok(served)
    };
    let at = serve(&Wrap::Native)?.at;
    let [warm, first, second] = at[..] else {
        return Err("the server passed another number of marks".into());
    };
    let calls = cx.calls() as f64;
    let spent = second.since(first);
    let mut cost = Cost {
        instructions: f64::NAN,
        spread: 0.0,
        allocations: spent.count.min(first.since(warm).count) as f64 / calls,
        bytes: spent.bytes as f64 / calls,
    };
    if !icount::available() {
        return Ok(cost);
    }
    let out = cx.scratch(&format!("server-{}", kind.key()));
    let once = |out: &Path| -> Result<Vec<f64>> {
        serve(&Wrap::Callgrind(out.to_owned()))?;
        [2, 3].iter().map(|number| per_call(out, *number, cx.calls())).collect()
    };
    (cost.instructions, cost.spread) = agree(cx, &out, once)?;
    cx.keep_profile(&icount::dump_file(&out, 3), &format!("server-{}", kind.key()))?;
    Ok(cost)
}

fn per_call(out: &Path, dump: usize, calls: u64) -> Result<f64> {
    Ok(icount::instructions(out, dump)? as f64 / calls as f64)
}

/// Mean and spread of one run, or of two where one is not enough.
fn agree(cx: &Context, out: &Path, once: impl Fn(&Path) -> Result<Vec<f64>>) -> Result<(f64, f64)> {
    let mut found = once(out)?;
    if !cx.quick || spread(&found) > AGREE {
        found.extend(once(out)?);
    }
    Ok((found.iter().sum::<f64>() / found.len() as f64, spread(&found)))
}

fn spread(found: &[f64]) -> f64 {
    let least = found.iter().copied().fold(f64::INFINITY, f64::min);
    let most = found.iter().copied().fold(0.0, f64::max);
    (most - least) / least
}
