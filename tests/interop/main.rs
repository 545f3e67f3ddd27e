//! gRPC's C core (PyPI `grpcio`) as xDS client and as xDS server, with this mesh at the other end and this control plane
//! in between.
//!
//! usage: `interop PYTHON`, with `grpcio` installed for that interpreter; `tests/interop/run` does both.

#![expect(clippy::print_stdout, reason = "a command that reports to whoever started it")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use mesh_tests::backend::App;
use mesh_tests::ca::Identity;
use mesh_tests::echo::{EchoClient, EchoReply, EchoRequest};
use mesh_tests::fleet::{Fleet, at, shop};
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_xds::server::{
    Cluster, DownstreamTls, Kind, Listener, Policy, Principal, Rbac, Resource, Resources as _,
};
use mesh_xds::server::{Route, RouteConfig, UpstreamTls, VirtualHost};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

type Outcome = Result<(), String>;
type Scenario = (&'static str, fn(Python) -> Pin<Box<dyn Future<Output = Outcome>>>);

/// The interpreter that has grpcio.
#[derive(Clone)]
struct Python(PathBuf);

/// What became of one call of the Python client.
struct Call {
    code: String,
    details: String,
    reply: EchoReply,
}

fn main() -> ExitCode {
    let Some(python) = std::env::args_os().nth(1) else {
        println!("usage: interop PYTHON   (or run tests/interop/run)");
        return ExitCode::FAILURE;
    };
    let python = Python(python.into());
    let scenarios: [Scenario; 6] = [
        ("grpcio client, mesh server, plaintext", |p| Box::pin(client_plaintext(p))),
        ("grpcio client, mesh server, mTLS", |p| Box::pin(client_mtls(p))),
        ("grpcio client, mesh server, RBAC", |p| Box::pin(client_rbac(p))),
        ("grpcio client, weighted split", |p| Box::pin(client_split(p))),
        ("mesh client, grpcio server, plaintext", |p| Box::pin(server_plaintext(p))),
        ("mesh client, grpcio server, mTLS", |p| Box::pin(server_mtls(p))),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut failed = 0;
    for (name, scenario) in scenarios {
        let limited = async { tokio::time::timeout(LIMIT, scenario(python.clone())).await };
        let outcome = runtime.block_on(limited).unwrap_or_else(|_| Err(format!("no end within {LIMIT:?}")));
        match outcome {
            Ok(()) => println!("{name:<42} ok"),
            Err(why) => {
                failed += 1;
                println!("{name:<42} FAILED: {why}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn client_plaintext(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let serving = fleet.mesh("mesh-server");
    let served = fleet.serve(&serving, App::new("mesh"), |listener| listener);
    fleet.control.set(to_shop(Cluster::eds("main").endpoints(at([served.address()]))));
    let calls = python.call(&fleet, None, 20).await?;
    expect_all(&calls, |call| call.code == "OK" && call.reply.server == "mesh" && call.reply.peer.is_empty())
}

async fn client_mtls(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("python"));
    let serving = fleet.mesh_with("mesh-server", &server);
    let served = fleet.serve(&serving, App::new("mesh"), |l| l.tls(DownstreamTls::mutual("default")));
    let tls = UpstreamTls::mutual("default").san(server.spiffe()).legacy_fields();
    fleet.control.set(to_shop(Cluster::eds("main").tls(tls).endpoints(at([served.address()]))));
    let calls = python.call(&fleet, Some(&caller), 20).await?;
    expect_all(&calls, |call| call.code == "OK" && call.reply.peer == caller.spiffe())
}

async fn client_rbac(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("reviews"), fleet.ca.identity("python"));
    let serving = fleet.mesh_with("mesh-server", &server);
    let others = Policy::new().principal(Principal::spiffe(fleet.ca.spiffe("somebody-else")));
    let served = fleet.serve(&serving, App::new("mesh"), |listener| {
        listener.tls(DownstreamTls::mutual("default")).rbac(Rbac::allow().policy("others", others))
    });
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    fleet.control.set(to_shop(Cluster::eds("main").tls(tls).endpoints(at([served.address()]))));
    let calls = python.call(&fleet, Some(&caller), 5).await?;
    expect_all(&calls, |call| call.code == "PERMISSION_DENIED")
}

async fn client_split(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let (v1, v2) = (fleet.backend("v1"), fleet.backend("v2"));
    let route = Route::prefix("/").weighted([("v1", 80), ("v2", 20)]);
    fleet.control.set((
        Listener::client("shop").rds("shop"),
        RouteConfig::new("shop").host(VirtualHost::any().route(route)),
        Cluster::eds("v1").endpoints(at([v1.address()])),
        Cluster::eds("v2").endpoints(at([v2.address()])),
    ));
    let calls = python.call(&fleet, None, 500).await?;
    expect_all(&calls, |call| call.code == "OK")?;
    let canary = calls.iter().filter(|call| call.reply.server == "v2").count();
    if (60..=140).contains(&canary) { Ok(()) } else { Err(format!("{canary} of 500 to v2, wanted 100")) }
}

async fn server_plaintext(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let port = Port::reserve();
    fleet.control.set(Listener::server(port.address()));
    fleet.control.set(to_shop(Cluster::eds("main").endpoints(at([port.address()]))));
    let _server = python.serve(&fleet, None, &port).await?;
    let mesh = fleet.mesh("mesh-client");
    call_python(&mut EchoClient::new(shop(&mesh)), "").await
}

async fn server_mtls(python: Python) -> Outcome {
    let fleet = Fleet::start();
    let (server, caller) = (fleet.ca.identity("python"), fleet.ca.identity("productpage"));
    let port = Port::reserve();
    fleet.control.set(Listener::server(port.address()).tls(DownstreamTls::mutual("default")));
    let tls = UpstreamTls::mutual("default").san(server.spiffe());
    fleet.control.set(to_shop(Cluster::eds("main").tls(tls).endpoints(at([port.address()]))));
    let _server = python.serve(&fleet, Some(&server), &port).await?;
    let mesh = fleet.mesh_with("mesh-client", &caller);
    call_python(&mut EchoClient::new(shop(&mesh)), caller.spiffe()).await
}

async fn call_python(client: &mut EchoClient<mesh_tower::MeshChannel>, peer: &str) -> Outcome {
    // The server begins to serve when it has its listener; until then connections fail.
    let mut last = None;
    let first = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match client.unary(EchoRequest::say("first")).await {
                Ok(reply) => return reply.into_inner(),
                Err(status) => last = Some(status),
            }
            tokio::task::yield_now().await;
        }
    });
    let first = first.await.map_err(|_| format!("no call succeeded; the last: {last:?}"))?;
    if first.server != "grpcio" || first.peer != peer {
        return Err(format!("answered by {:?}, which saw {:?}, not {peer:?}", first.server, first.peer));
    }
    for i in 0..50 {
        let text = format!("call {i}");
        let reply =
            client.unary(EchoRequest::say(&text)).await.map_err(|status| format!("{text}: {status:?}"))?;
        if reply.get_ref().text != text {
            return Err(format!("{text}: answered with {:?}", reply.get_ref().text));
        }
    }
    Ok(())
}

fn to_shop(cluster: Cluster) -> Vec<Resource> {
    (Listener::client("shop").rds("shop"), RouteConfig::to("shop", "main"), cluster).into_resources()
}

fn expect_all(calls: &[Call], good: impl Fn(&Call) -> bool) -> Outcome {
    match calls.iter().find(|call| !good(call)) {
        Some(call) => Err(format!("{} {:?} {:?}", call.code, call.details, call.reply)),
        None => Ok(()),
    }
}

// === impl Python ===

impl Python {
    /// Calls `shop` so many times.
    async fn call(
        &self,
        fleet: &Fleet,
        identity: Option<&Identity>,
        calls: usize,
    ) -> Result<Vec<Call>, String> {
        let mut child = self.command(fleet, "client.py", "python-client", identity);
        child.args(["xds:///shop", security(identity), &calls.to_string()]);
        let output = child.output().await.map_err(|error| format!("python: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let outcomes: Vec<Call> = text.lines().filter_map(Call::parse).collect();
        if outcomes.len() != calls || !output.status.success() {
            return Err(format!(
                "{} of {calls} calls\n{}",
                outcomes.len(),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Ok(outcomes)
    }

    /// A server on a port; it has acknowledged its listener when this returns.
    async fn serve(&self, fleet: &Fleet, identity: Option<&Identity>, port: &Port) -> Result<Child, String> {
        let mut command = self.command(fleet, "server.py", "python-server", identity);
        command.args([&port.address().to_string(), security(identity)]);
        let mut child = command.spawn().map_err(|error| format!("python: {error}"))?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let started = soon(lines.next_line()).await.map_err(|error| error.to_string())?;
        if started.as_deref() != Some("started") {
            return Err(format!("the server said {started:?}"));
        }
        soon(fleet.control.wait_for(|clients| {
            clients.iter().any(|client| {
                let listener = client.kind(Kind::Listener);
                client.node_id == "python-server"
                    && listener.is_some_and(|l| l.acked.is_some() || l.nack.is_some())
            })
        }))
        .await;
        match fleet.control.status().iter().flat_map(|client| client.nacks()).next() {
            Some((kind, nack)) => Err(format!("refused the {kind}: {}", nack.message)),
            None => Ok(child),
        }
    }

    fn command(&self, fleet: &Fleet, script: &str, node: &str, identity: Option<&Identity>) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
        let mut command = Command::new(&self.0);
        command
            .arg(scripts.join(script))
            .env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap(fleet, node, identity).to_string())
            .env_remove("GRPC_XDS_BOOTSTRAP")
            .env("no_proxy", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

// === impl Call ===

impl Call {
    fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let bytes: Option<Vec<u8>> = text("reply")
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let reply = EchoReply::decode(bytes?.as_slice()).ok()?;
        Some(Self { code: text("code"), details: text("details"), reply })
    }
}

fn security(identity: Option<&Identity>) -> &'static str {
    if identity.is_some() { "mtls" } else { "plaintext" }
}

fn bootstrap(fleet: &Fleet, node: &str, identity: Option<&Identity>) -> Value {
    let mut bootstrap = json!({
        "xds_servers": [{
            "server_uri": fleet.control_address().to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": node},
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    });
    if let Some(identity) = identity {
        bootstrap["certificate_providers"] = json!({"default": {
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": identity.certificate_file(),
                "private_key_file": identity.key_file(),
                "ca_certificate_file": identity.ca_file(),
                "refresh_interval": "1s",
            },
        }});
    }
    bootstrap
}

const LIMIT: Duration = Duration::from_secs(60);
