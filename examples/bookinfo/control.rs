//! The control plane process: serves ADS, and is told the wanted [`Plan`] on standard input, whole, one line each.

use std::time::Duration;

use mesh_xds::server::{
    Cluster, ControlPlane, DownstreamTls, Endpoints, Lb, Listener, Policy, Principal, Rbac, Resource,
    Resources, Retry, Route, RouteConfig, UpstreamTls, VirtualHost,
};
use tokio::net::TcpListener;

use crate::Failure;
use crate::plan::{Plan, Replica, Service};
use crate::process;

/// Requests that the capped cluster admits at once.
pub(crate) const CAP: u32 = 16;

/// How long a change is waited for.
const SETTLE: Duration = Duration::from_secs(5);

/// The certificate-provider instance of every process.
const IDENTITY: &str = "mesh";

/// Serves at `at` until standard input ends.
pub(crate) async fn run(at: &str) -> Result<(), Failure> {
    let tcp = TcpListener::bind(at).await?;
    let control = ControlPlane::new();
    process::ready(tcp.local_addr()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = control.serve(tcp, async { drop(stopped.await) });
    let commands = process::commands(async |line| {
        let plan: Plan = serde_json::from_str(line)?;
        let version = control.replace(resources(&plan));
        // Answered once every process has taken the change, so that what is measured later has no old traffic in it.
        let settled = tokio::time::timeout(SETTLE, control.settled(plan.replicas.len())).await.is_ok();
        Ok(serde_json::json!({ "version": version, "settled": settled }))
    });
    tokio::select! {
        served = serving => served?,
        told = commands => told?,
    }
    drop(stop);
    Ok(())
}

/// The whole configuration of the mesh.
fn resources(plan: &Plan) -> impl Resources {
    let mut all: Vec<Resource> = Vec::new();
    for replica in &plan.replicas {
        all.extend(server(replica).into_resources());
    }
    for service in [Service::Details, Service::Reviews, Service::Ratings] {
        let target = format!("{}:9080", service.name());
        all.extend(Listener::client(target).rds(service.name()).into_resources());
    }
    let version = |n: usize| format!("reviews-v{}", n + 1);
    let weights = plan.reviews.iter().enumerate().filter(|(_, weight)| **weight > 0);
    let reviews =
        Route::prefix("/").weighted(weights.map(|(n, weight)| (version(n), *weight))).retry(retry());
    all.extend(routes(Service::Reviews, vec![reviews]).into_resources());
    all.extend(
        routes(Service::Ratings, vec![Route::prefix("/").cluster("ratings").retry(retry())]).into_resources(),
    );
    let details = vec![
        Route::prefix("/capped/").cluster("details-capped"),
        Route::prefix("/").cluster("details").retry(retry()),
    ];
    all.extend(routes(Service::Details, details).into_resources());
    for n in 0..3 {
        let of = |r: &Replica| r.service == Service::Reviews && r.version as usize == n + 1;
        all.extend(cluster(&version(n), Service::Reviews, plan, of).into_resources());
    }
    for (name, service) in [("ratings", Service::Ratings), ("details", Service::Details)] {
        all.extend(cluster(name, service, plan, |r| r.service == service).into_resources());
    }
    let capped = cluster("details-capped", Service::Details, plan, |r| r.service == Service::Details);
    all.extend(capped.max_requests(CAP).into_resources());
    all
}

/// What one process listens with: mTLS, and the callers that policy names. The page is open to browsers.
fn server(replica: &Replica) -> Listener {
    let name = format!("bookinfo/{}", replica.at);
    let listener = Listener::server(replica.at).named(name).routes(RouteConfig::non_forwarding("inbound"));
    if replica.service == Service::Productpage {
        return listener;
    }
    let callers = replica.service.callers().into_iter().map(Principal::spiffe);
    let policy = Policy::new().principal(Principal::one(callers));
    listener.tls(DownstreamTls::mutual(IDENTITY)).rbac(Rbac::allow().policy("callers", policy))
}

fn routes(service: Service, routes: Vec<Route>) -> RouteConfig {
    let host = routes.into_iter().fold(VirtualHost::any(), VirtualHost::route);
    RouteConfig::new(service.name()).host(host)
}

/// What may be tried again: gRPC's UNAVAILABLE, and for HTTP what never reached the application.
fn retry() -> Retry {
    Retry::on("unavailable,connect-failure,refused-stream,reset")
        .times(4)
        .back_off(Duration::from_millis(2), Duration::from_millis(20))
}

fn cluster(name: &str, service: Service, plan: &Plan, of: impl Fn(&Replica) -> bool) -> Cluster {
    let endpoints = plan.replicas.iter().filter(|replica| of(replica)).map(|replica| replica.at);
    let tls = UpstreamTls::mutual(IDENTITY).san(service.spiffe());
    let cluster = Cluster::eds(name).endpoints(Endpoints::of(endpoints)).lb(Lb::LeastRequest(5)).tls(tls);
    let cluster = cluster.max_retries(1_024);
    // Details speaks HTTP/1.1; gRPC is HTTP/2 whatever the cluster says.
    if service == Service::Details { cluster.http1() } else { cluster.http2() }
}
