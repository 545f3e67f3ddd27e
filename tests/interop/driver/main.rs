//! Other people's programs against this mesh: gRPC's C core (Python's grpcio) and Envoy, in both directions, fed by our
//! control plane; and go-control-plane, which feeds us.
//!
//! Run by `tests/interop/run`, which installs them. Each scenario has its own control plane, CA and processes, and sees
//! what the control plane was told: grpcio and Envoy have accepted every resource, and we have. What is asked of C-core's
//! deadlines is their status code: its timers for xDS are known to fire early on some virtual machines.

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

mod calls;
mod envoy;
mod fed;
mod gocp;
mod lab;
mod load;
mod proxied;
mod python;
mod serves;
mod verdicts;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use mesh_xds::Protocol::{Incremental, StateOfTheWorld};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::lab::Lab;

type Run = fn(Lab) -> Pin<Box<dyn Future<Output = String> + Send>>;

macro_rules! scenarios {
    ($($name:literal => $run:path $(, $protocol:ident)?;)+) => {
        &[$(($name, |lab| Box::pin($run(lab $(, $protocol)?)))),+]
    };
}

const SCENARIOS: &[(&str, Run)] = scenarios! {
    "grpcio calls mesh, plaintext: headers, status and message arrive" => calls::unary;
    "grpcio calls mesh, plaintext: streams and large messages, both ways" => calls::streams;
    "grpcio calls mesh, plaintext: routed by header and by weight" => calls::routing;
    "grpcio calls mesh, plaintext: its deadline ends the call on our side" => calls::deadline;
    "grpcio calls mesh, plaintext: RBAC denies by path and by header" => calls::denied;
    "grpcio calls mesh, plaintext: routes move, no call fails" => calls::moved;
    "grpcio calls mesh, plaintext: 500 clusters, all usable" => calls::many;
    "grpcio calls mesh, plaintext: our server drains, no call fails" => calls::drained;
    "grpcio calls mesh, mTLS: our server sees its SPIFFE id" => calls::identified;
    "grpcio calls mesh, mTLS: the same by the provider fields that came first" => calls::identified_by_legacy_fields;
    "grpcio calls mesh, mTLS: RBAC denies by principal" => calls::wrong_principal;
    "grpcio calls mesh, mTLS: our server with another SAN is refused" => calls::wrong_san;
    "grpcio calls mesh, mTLS: our server refuses plaintext" => calls::plaintext_refused;
    "mesh calls grpcio, plaintext: headers, status and message arrive" => serves::unary;
    "mesh calls grpcio, plaintext: streams and large messages, both ways" => serves::streams;
    "mesh calls grpcio, plaintext: our deadline ends the call on its side" => serves::deadline;
    "mesh calls grpcio, plaintext: a hundred calls at once" => serves::concurrent;
    "mesh calls grpcio, plaintext: RBAC denies by path" => serves::denied;
    "mesh calls grpcio, plaintext: it drains, no call is lost" => serves::drained;
    "mesh calls grpcio, mTLS: it sees our SPIFFE id, also after a rotation" => serves::identified;
    "mesh calls grpcio, mTLS: another SAN is refused" => serves::wrong_san;
    "mesh calls grpcio, mTLS: it refuses us without a certificate" => serves::no_certificate;
    "go-control-plane feeds mesh, state of the world: client and server, mTLS and RBAC" => fed::configured, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: client and server, mTLS and RBAC" => fed::configured, Incremental;
    "go-control-plane feeds mesh, state of the world: routes move, no call fails" => fed::routes_move, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: routes move, no call fails" => fed::routes_move, Incremental;
    "go-control-plane feeds mesh, state of the world: endpoints move, no call fails" => fed::endpoints_move, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: endpoints move, no call fails" => fed::endpoints_move, Incremental;
    "go-control-plane feeds mesh, state of the world: a cluster is replaced, no call fails" => fed::cluster_removed, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: a cluster is replaced, no call fails" => fed::cluster_removed, Incremental;
    "go-control-plane feeds mesh, state of the world: routes move to clusters that come later, no call fails" => fed::cluster_comes_later, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: routes move to clusters that come later, no call fails" => fed::cluster_comes_later, Incremental;
    "go-control-plane feeds mesh, state of the world: a bad resource is refused, the last good serves" => fed::refused, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: a bad resource is refused, the last good serves" => fed::refused, Incremental;
    "go-control-plane feeds mesh, state of the world: it restarts, no call fails" => fed::restarted, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: it restarts, no call fails" => fed::restarted, Incremental;
    "go-control-plane feeds mesh, state of the world: 200 clusters, all usable" => fed::many, StateOfTheWorld;
    "go-control-plane feeds mesh, incremental: 200 clusters, all usable" => fed::many, Incremental;
    "Envoy calls mesh, mTLS, state of the world: RBAC; routes and endpoints move, no call fails" => proxied::calls_us, StateOfTheWorld;
    "Envoy calls mesh, mTLS, incremental: RBAC; routes and endpoints move, no call fails" => proxied::calls_us, Incremental;
    "mesh calls Envoy, mTLS, state of the world: it sees our SPIFFE id; routes and endpoints move, no call fails" => proxied::called_by_us, StateOfTheWorld;
    "mesh calls Envoy, mTLS, incremental: it sees our SPIFFE id; routes and endpoints move, no call fails" => proxied::called_by_us, Incremental;
    "mesh feeds Envoy, state of the world: a bad resource is refused, the last good serves" => proxied::refuses, StateOfTheWorld;
    "mesh feeds Envoy, incremental: a bad resource is refused, the last good serves" => proxied::refuses, Incremental;
    "mesh feeds Envoy, state of the world: our control plane restarts, no call fails" => proxied::resumes, StateOfTheWorld;
    "mesh feeds Envoy, incremental: our control plane restarts, no call fails" => proxied::resumes, Incremental;
    "Envoy and mesh admit the same, of generated policies, certificates and requests" => verdicts::agree;
};

#[tokio::main]
async fn main() -> ExitCode {
    let Some((lab, words)) = arguments() else {
        println!(
            "usage: interop --python PROGRAM --scripts DIRECTORY --envoy PROGRAM --gocp PROGRAM [WORD…]"
        );
        return ExitCode::from(2);
    };
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let (mut passed, mut failed) = (0, 0);
    for (name, run) in SCENARIOS.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let result = bounded(run(lab.clone())).await;
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(detail) => {
                passed += 1;
                println!("ok     {name} ({detail}; {seconds:.1} s)");
            }
            Err(why) => {
                failed += 1;
                println!("FAILED {name}: {why}\n       repeat with: tests/interop/run '{name}'");
            }
        }
    }
    println!("interop: {passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one scenario to its end, its panic, or its limit.
async fn bounded(scenario: impl Future<Output = String> + Send + 'static) -> Result<String, String> {
    let mut task = JoinSet::new();
    task.spawn(scenario);
    let limit = LIMIT + verdicts::allowance();
    match tokio::time::timeout(limit, task.join_next()).await {
        Ok(Some(Ok(detail))) => Ok(detail),
        Ok(Some(Err(error))) => Err(match error.try_into_panic() {
            Ok(panic) => message(&*panic),
            Err(error) => error.to_string(),
        }),
        Ok(None) => unreachable!("one task was spawned"),
        Err(_) => Err(format!("not done after {limit:?}")),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn arguments() -> Option<(Lab, Vec<String>)> {
    let mut words = std::env::args().skip(1);
    let mut path = |name: &str| {
        let given = words.next()? == name;
        words.next().filter(|_| given).map(PathBuf::from)
    };
    let lab = Lab {
        python: path("--python")?,
        scripts: path("--scripts")?,
        envoy: path("--envoy")?,
        gocp: path("--gocp")?,
    };
    Some((lab, words.collect()))
}

/// How long a scenario may take. Each takes a second or two.
const LIMIT: Duration = Duration::from_secs(90);
