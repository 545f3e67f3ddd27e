//! CPU time of the client process per call, as a ratio to tonic's, everything pinned to one core (tier T1).
//!
//! All clients stay connected; each round runs them in one order and then in the reverse (A B B A), so that drift of
//! the machine falls on all alike. The ratio is taken within a round, and its median over the rounds is shown.

use serde_json::{Map, Value, json};

use super::Context;
use crate::Result;
use crate::child::{ClientChild, Wrap};
use crate::peers::{ClientKind, ServerKind};
use crate::report::{Report, median, number};

/// The last core: the first one usually serves interrupts.
fn core() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get() - 1)
}

struct Mode {
    key: &'static str,
    title: &'static str,
    outstanding: u64,
    calls: u64,
}

/// Measures one caller at a time, and 64.
pub(crate) fn measure(cx: &Context, report: &mut Report) -> Result<()> {
    let scale = if cx.quick { 1 } else { 4 };
    let modes = [
        Mode { key: "pp", title: "one call at a time", outstanding: 1, calls: 1000 * scale },
        Mode { key: "sat", title: "64 calls outstanding", outstanding: 64, calls: 4096 * scale },
    ];
    let rounds = if cx.quick { 5 } else { 9 };
    let wrap = Wrap::Pinned(core());
    let site = cx.site(ServerKind::Tonic, &wrap, &[])?;
    let mut clients = Vec::new();
    for kind in ClientKind::ALL {
        let mut child = ClientChild::spawn(&wrap, &site.client(kind))?;
        child.run(1000, 64)?;
        clients.push((kind, child));
    }
    let mut data = Map::new();
    for mode in &modes {
        let samples = sample(&mut clients, mode, rounds)?;
        data.insert(mode.key.to_owned(), show(report, mode, &samples)?);
    }
    report.put("client_cpu", Value::Object(data));
    Ok(())
}

/// CPU and wall time per call of one client, a value a round.
struct Samples {
    kind: ClientKind,
    cpu_us: Vec<f64>,
    wall_us: Vec<f64>,
}

fn sample(clients: &mut [(ClientKind, ClientChild)], mode: &Mode, rounds: usize) -> Result<Vec<Samples>> {
    let empty = |(kind, _): &(ClientKind, ClientChild)| Samples {
        kind: *kind,
        cpu_us: Vec::new(),
        wall_us: Vec::new(),
    };
    let mut samples: Vec<_> = clients.iter().map(empty).collect();
    for _ in 0..rounds {
        let there = 0..clients.len();
        let mut sums = vec![(0.0, 0.0); clients.len()];
        for at in there.clone().chain(there.rev()) {
            let ran = clients[at].1.run(mode.calls, mode.outstanding)?;
            let calls = 2.0 * ran.calls as f64 * 1000.0;
            sums[at].0 += ran.cpu_ns as f64 / calls;
            sums[at].1 += ran.wall_ns as f64 / calls;
        }
        for (samples, (cpu, wall)) in samples.iter_mut().zip(sums) {
            samples.cpu_us.push(cpu);
            samples.wall_us.push(wall);
        }
    }
    Ok(samples)
}

fn show(report: &mut Report, mode: &Mode, samples: &[Samples]) -> Result<Value> {
    let base = samples.iter().find(|s| s.kind == ClientKind::Tonic).ok_or("tonic was not measured")?;
    let mut data = Map::new();
    let mut rows = Vec::new();
    for each in samples {
        let mut ratios: Vec<_> = each.cpu_us.iter().zip(&base.cpu_us).map(|(a, b)| a / b).collect();
        let ratio = median(&mut ratios);
        let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
        let cpu = median(&mut each.cpu_us.clone());
        let wall = median(&mut each.wall_us.clone());
        rows.push(vec![
            each.kind.key().to_owned(),
            format!("{ratio:.3}"),
            format!("{low:.2}..{high:.2}"),
            number(cpu),
            number(wall),
        ]);
        data.insert(
            each.kind.key().to_owned(),
            json!({"ratio": ratio, "low": low, "high": high, "cpu_us": cpu, "wall_us": wall}),
        );
    }
    let title = format!("client CPU per call against tonic, one core, {}", mode.title);
    report.table(&title, &["peer", "ratio", "range", "CPU us", "wall us"], &rows)?;
    Ok(Value::Object(data))
}
