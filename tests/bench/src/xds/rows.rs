//! The rows: every client does the same against the same servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Client, ClientOrder, Counted, Listening, Loaded, PATIENCE, Protocol, Pushed, Pushes, Server, ServerOrder,
    Started, TARGET, picker, python,
};
use crate::Result;
use crate::child::{Child, Wrap};
use crate::report::{Check, Measure, Report, median, number, quantile};
use crate::resources::NODE;

/// Every client with each of its protocols.
const CLIENTS: [(Client, Protocol); 4] = [
    (Client::Mesh, Protocol::StateOfTheWorld),
    (Client::Mesh, Protocol::Incremental),
    (Client::TonicXds, Protocol::StateOfTheWorld),
    (Client::Grpcio, Protocol::StateOfTheWorld),
];
const ENDPOINTS: usize = 10;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/xds/grpcio_client.py");
/// A control plane may take its time to say something while the machine is busy.
const SLACK: Duration = Duration::from_secs(10);

/// What the rows share.
struct Bench {
    quick: bool,
    /// Without the peers.
    alone: bool,
    /// None where grpcio cannot be had.
    python: Option<PathBuf>,
}

/// A server child.
struct Site {
    child: Child,
    at: Listening,
    clusters: usize,
}

/// Measures everything.
pub(crate) fn measure(report: &mut Report, quick: bool, alone: bool) -> Result<()> {
    let python = if alone { None } else { grpcio(report)? };
    let bench = Bench { quick, alone, python };
    bench.scale(report)?;
    bench.propagation(report)?;
    bench.cpu(report)?;
    bench.resume(report)?;
    bench.churn(report)?;
    picker(report)
}

/// A Python that has grpcio; a machine without it measures the others.
fn grpcio(report: &mut Report) -> Result<Option<PathBuf>> {
    match python::with_grpcio() {
        Ok(python) => Ok(Some(python)),
        Err(error) => {
            report.note(&format!("without grpcio: {error}"))?;
            Ok(None)
        }
    }
}

impl Bench {
    fn large(&self) -> usize {
        if self.quick { 2_000 } else { 10_000 }
    }

    fn clients(&self) -> impl Iterator<Item = (Client, Protocol)> {
        CLIENTS.into_iter().filter(|(client, _)| !self.alone || *client == Client::Mesh)
    }

    /// Each client with the best protocol that it has.
    fn one_each(&self) -> impl Iterator<Item = (Client, Protocol)> {
        self.clients().skip(1)
    }

    fn scale(&self, report: &mut Report) -> Result<()> {
        let (mut rows, mut data) = (Vec::new(), Vec::new());
        for clusters in [1_000, self.large()] {
            let servers: &[Server] =
                if self.quick { &[Server::Ours] } else { &[Server::Ours, Server::Slow, Server::WritesFirst] };
            for server in servers {
                let mut site = Site::start(*server, clusters, ENDPOINTS)?;
                for (client, protocol) in self.clients() {
                    let before = site.count()?;
                    let started = self.start(&site, site.at.wire, client, protocol);
                    let requests = site.count()?.requests - before.requests;
                    let finished = started.as_ref().ok().map(|(_, started)| *started);
                    let ready_ms = finished.map(|s| millis(s.ready_ns));
                    let live = finished.map(|s| s.live_bytes);
                    if client == Client::Mesh {
                        check_scale(report, (clusters, *server, protocol), finished, requests)?;
                    }
                    rows.push(vec![
                        number(clusters as f64),
                        client.key().to_owned(),
                        protocol.key().to_owned(),
                        server.key().to_owned(),
                        shown(ready_ms),
                        number(requests as f64),
                        shown(live.map(|bytes| bytes as f64 / 1e6)),
                    ]);
                    data.push(json!({
                        "clusters": clusters, "endpoints": clusters * ENDPOINTS, "client": client.key(),
                        "protocol": protocol.key(), "server": server.key(), "ready_ms": ready_ms,
                        "ads_requests": requests, "live_bytes": live, "finished": finished.is_some(),
                    }));
                    self.note_failure(report, client, started.err())?;
                }
            }
        }
        let head = ["clusters", "client", "protocol", "server", "ready ms", "ADS requests", "live MB"];
        report.table(
            "cold start: 10 endpoints a cluster, until a call on the last is answered",
            &head,
            &rows,
        )?;
        report.put("xds_scale", Value::Array(data));
        Ok(())
    }

    fn propagation(&self, report: &mut Report) -> Result<()> {
        let (mut rows, mut data) = (Vec::new(), Vec::new());
        let times = if self.quick { 50 } else { 200 };
        let pushes = Pushes {
            times,
            clusters: 1,
            watched: 1,
            each: true,
            every_ms: 20,
            within_ms: u64::from(times) * 40,
        };
        let clusters = self.large();
        let mut site = Site::start(Server::Ours, clusters, ENDPOINTS)?;
        for (client, protocol) in self.one_each() {
            let found = self.under_load(&mut site, (client, protocol), pushes);
            let (pushed, loaded) = found.as_ref().ok().map(|(pushed, loaded)| (pushed, loaded)).unzip();
            let mut after: Vec<f64> =
                pushed.into_iter().flat_map(|p| &p.after_ns).map(|ns| millis(*ns)).collect();
            let p50 = (!after.is_empty()).then(|| median(&mut after));
            let p99 = (!after.is_empty()).then(|| quantile(&mut after, 0.99));
            let failed = loaded.map(|loaded| loaded.failed);
            let lost_calls = failed.map(|calls| calls as f64);
            if client == Client::Mesh {
                report.check(at_most("first request after a push, median", p50, 1.0, "ms"))?;
                report.check(at_most("calls that failed meanwhile", lost_calls, 0.0, "calls"))?;
            }
            rows.push(vec![
                number(clusters as f64),
                client.key().to_owned(),
                shown(p50),
                shown(p99),
                shown(lost_calls),
            ]);
            data.push(json!({
                "clusters": clusters, "client": client.key(), "p50_ms": p50, "p99_ms": p99, "failed": failed,
                "finished": found.is_ok(),
            }));
            self.note_lost(report, client, pushed, loaded)?;
            self.note_failure(report, client, found.err())?;
        }
        let head = ["clusters", "client", "p50 ms", "p99 ms", "failed"];
        report.table("one endpoint replaced, until the first request on the new one", &head, &rows)?;
        report.put("propagation", Value::Array(data));
        Ok(())
    }

    /// Our CPU time for a change that no call follows.
    fn cpu(&self, report: &mut Report) -> Result<()> {
        let times = 100;
        let mut site = Site::start(Server::Ours, self.large(), ENDPOINTS)?;
        let (mut child, _) = self.start(&site, site.at.direct, Client::Mesh, Protocol::Incremental)?;
        let idle = |ms: u64, child: &mut Child| -> Result<u64> {
            child.tell(&ClientOrder::Idle { ms })?;
            child.hear_within(PATIENCE)
        };
        idle(500, &mut child)?;
        let before = idle(500, &mut child)?;
        let at_rest = idle(1_500, &mut child)?;
        let pushes = Pushes { times, clusters: 1, watched: 0, each: false, every_ms: 10, within_ms: 60_000 };
        child.tell(&ClientOrder::Idle { ms: 1_500 })?;
        site.push(pushes)?;
        let after: u64 = child.hear_within(PATIENCE)?;
        let rest = at_rest.saturating_sub(before);
        let each = after.saturating_sub(at_rest).saturating_sub(rest) as f64 / f64::from(times) / 1e6;
        report.check(at_most("CPU of the client for one endpoint changed", Some(each), 1.0, "ms"))
    }

    fn resume(&self, report: &mut Report) -> Result<()> {
        let clusters = self.large();
        let mut site = Site::start(Server::Ours, clusters, ENDPOINTS)?;
        let (mut child, _) = self.start(&site, site.at.wire, Client::Mesh, Protocol::Incremental)?;
        child.tell(&ClientOrder::Idle { ms: 500 })?;
        child.hear_within::<u64>(PATIENCE)?;
        let before = site.count()?;
        site.child.tell(&ServerOrder::Cut)?;
        // The first back-off is about a second; what follows the reconnect is over long before the end.
        child.tell(&ClientOrder::Idle { ms: 5_000 })?;
        child.hear_within::<u64>(PATIENCE)?;
        let after = site.count()?;
        let again = after.connections - before.connections;
        let bytes = (again > 0).then(|| after.bytes_down - before.bytes_down);
        let kilobytes = bytes.map(|bytes| bytes as f64 / 1e3);
        report.check(at_most("received on a reconnect without changes", kilobytes, 50.0, "kB"))?;
        report.put("resume", json!([{"clusters": clusters, "bytes": bytes}]));
        Ok(())
    }

    fn churn(&self, report: &mut Report) -> Result<()> {
        let (mut rows, mut data) = (Vec::new(), Vec::new());
        let times = if self.quick { 20 } else { 50 };
        let pushes = Pushes {
            times,
            clusters: 500,
            watched: 8,
            each: false,
            every_ms: 100,
            within_ms: u64::from(times) * 200,
        };
        let mut site = Site::start(Server::Ours, 500, ENDPOINTS)?;
        for (client, protocol) in self.one_each() {
            let found = self.under_load(&mut site, (client, protocol), pushes);
            let (pushed, loaded) = found.as_ref().ok().map(|(pushed, loaded)| (pushed, loaded)).unzip();
            let settle = pushed.and_then(|pushed| pushed.after_ns.last()).map(|ns| millis(*ns));
            let failed = loaded.map(|loaded| loaded.failed);
            let lost_calls = failed.map(|calls| calls as f64);
            if client == Client::Mesh {
                report.check(at_most("settled after the last of the pushes", settle, 100.0, "ms"))?;
                report.check(at_most("calls that failed meanwhile", lost_calls, 0.0, "calls"))?;
            }
            rows.push(vec![client.key().to_owned(), shown(settle), shown(lost_calls)]);
            data.push(json!({
                "client": client.key(), "settle_ms": settle, "failed": failed, "finished": found.is_ok(),
            }));
            self.note_lost(report, client, pushed, loaded)?;
            self.note_failure(report, client, found.err())?;
        }
        let head = ["client", "settle ms", "failed"];
        report.table("all 500 EDS resources replaced in every push, 10 pushes a second", &head, &rows)?;
        report.put("churn", Value::Array(data));
        Ok(())
    }

    /// Pushes while a client calls the clusters that are watched.
    fn under_load(
        &self,
        site: &mut Site,
        (client, protocol): (Client, Protocol),
        pushes: Pushes,
    ) -> Result<(Pushed, Loaded)> {
        let (mut child, _) = self.start(site, site.at.direct, client, protocol)?;
        let load = |ms| ClientOrder::Load { ms, clusters: pushes.watched };
        child.tell(&load(200))?;
        child.hear_within::<Loaded>(PATIENCE)?;
        child.tell(&load(pushes.within_ms + 2_000))?;
        let pushed = site.push(pushes)?;
        Ok((pushed, child.hear_within(PATIENCE)?))
    }

    fn start(
        &self,
        site: &Site,
        at: SocketAddr,
        client: Client,
        protocol: Protocol,
    ) -> Result<(Child, Started)> {
        let clusters = site.clusters.to_string();
        let mut child = match client {
            Client::Mesh | Client::TonicXds => {
                let args = ["xds-client", client.key(), protocol.key(), &at.to_string(), &clusters];
                Child::spawn(&Wrap::Native, &args.map(ToOwned::to_owned))?
            }
            Client::Grpcio => {
                let python = self.python.as_ref().ok_or("grpcio is not there")?;
                let mut command = Command::new(python);
                command.args([SCRIPT, TARGET, &clusters]).env("GRPC_VERBOSITY", "NONE");
                command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap(at).to_string());
                Child::start(command, "grpcio".to_owned())?
            }
        };
        child.tell(&ClientOrder::Start)?;
        let started = child.hear_within(PATIENCE)?;
        Ok((child, started))
    }

    fn note_failure(
        &self,
        report: &Report,
        client: Client,
        error: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<()> {
        match error {
            Some(error) => report.note(&format!("{} did not finish in 60 s: {error}", client.key())),
            None => Ok(()),
        }
    }

    fn note_lost(
        &self,
        report: &Report,
        client: Client,
        pushed: Option<&Pushed>,
        loaded: Option<&Loaded>,
    ) -> Result<()> {
        if let Some(lost) = pushed.map(|pushed| pushed.lost).filter(|lost| *lost > 0) {
            report
                .note(&format!("{}: {lost} pushes were not followed by a request in time", client.key()))?;
        }
        match loaded.and_then(|loaded| loaded.error.as_ref()) {
            Some(error) => report.note(&format!("{}: the first call that failed: {error}", client.key())),
            None => Ok(()),
        }
    }
}

impl Site {
    fn start(server: Server, clusters: usize, endpoints: usize) -> Result<Self> {
        let args = ["xds-server", server.key(), &clusters.to_string(), &endpoints.to_string()];
        let child = Child::spawn(&Wrap::Native, &args.map(ToOwned::to_owned))?;
        let at = child.hear()?;
        Ok(Self { child, at, clusters })
    }

    fn count(&mut self) -> Result<Counted> {
        self.child.tell(&ServerOrder::Count)?;
        self.child.hear()
    }

    fn push(&mut self, pushes: Pushes) -> Result<Pushed> {
        self.child.tell(&ServerOrder::Push(pushes))?;
        self.child.hear_within(PATIENCE + SLACK)
    }
}

/// From a snapshot in which one of 100,000 endpoints of a cluster is another to the picker that has it.
fn picker(report: &mut Report) -> Result<()> {
    let mut spans = picker::spans()?;
    report.check(at_most("picker with one of 100,000 endpoints changed", Some(median(&mut spans)), 5.0, "ms"))
}

fn check_scale(
    report: &mut Report,
    (clusters, server, protocol): (usize, Server, Protocol),
    started: Option<Started>,
    requests: u64,
) -> Result<()> {
    let what = |what: &str| format!("{clusters} clusters, {}, {}: {what}", server.key(), protocol.key());
    let bound = if clusters > 1_000 { 3_000.0 } else { 300.0 };
    let ready = started.map(|started| millis(started.ready_ns));
    report.check(at_most(&what("ready"), ready, bound, "ms"))?;
    if clusters == 1_000 {
        report.check(at_most(&what("ADS requests"), Some(requests as f64), 10.0, "requests"))?;
    }
    let live = started.map(|started| started.live_bytes as f64 / 1e6);
    report.check(at_most(&what("live heap"), live, 4.0 * clusters as f64 / 1e3, "MB"))
}

fn at_most(what: &str, value: Option<f64>, at_most: f64, unit: &'static str) -> Check {
    let measure = if unit == "ms" { Measure::Time } else { Measure::Exact };
    Check { what: what.to_owned(), value: value.unwrap_or(f64::INFINITY), at_most, unit, measure }
}

fn bootstrap(at: SocketAddr) -> Value {
    json!({
        "xds_servers": [{
            "server_uri": at.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": NODE},
    })
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}
