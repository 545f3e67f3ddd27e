//! The configuration of the xDS peers, one for all of them: several virtual hosts and routes, a retry policy, circuit
//! breakers, mTLS with a SAN match, one endpoint (one connection, as every other peer has); and the server's listener.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_xds::server::{
    Cluster, ControlPlane, DownstreamTls, Endpoints, Lb, Listener, Permission, Policy, Principal, Rbac,
    Resources, Retry, Route, RouteConfig, UpstreamTls, VirtualHost,
};

use crate::Result;
use crate::certs::{CLIENT_ID, SERVER_ID, SERVER_NAME};
use crate::echo::SERVICE;
use crate::role::{Listening, end_with_driver, listen, runtime, say};

/// Node id in bootstraps.
pub(crate) const NODE: &str = "bench";
/// Certificate-provider instance name in bootstraps and contexts.
pub(crate) const PROVIDER: &str = "bench";
/// What the channel asks for.
pub(crate) const TARGET: &str = "xds:///echo.bench.svc:443";
/// A target whose cluster admits no request.
pub(crate) const CLOSED_TARGET: &str = "xds:///closed.bench.svc:443";
/// How a server asks for its listener.
pub(crate) const SERVER_TEMPLATE: &str = "grpc/server?xds.resource.listening_address=%s";

const NAME: &str = "echo.bench.svc:443";
const ROUTES: &str = "echo-routes";
const CLUSTER: &str = "echo";
/// Retries that the policy of every route allows.
pub(crate) const RETRIES: u32 = 3;
/// Virtual hosts and routes that the calls do not match.
const DECOYS: usize = 8;

/// The role: serves the configuration of one echo server until the driver closes the standard input.
pub(crate) fn control_plane(echo: SocketAddr) -> Result<()> {
    end_with_driver();
    let control = ControlPlane::new();
    control.set(client(echo));
    control.set(server(echo));
    control.set((
        Listener::client("closed.bench.svc:443").routes(RouteConfig::to("closed", "closed")),
        Cluster::eds("closed").http2().max_requests(0).endpoints(Endpoints::of([echo])),
    ));
    runtime()?.block_on(async {
        let (listener, port) = listen().await?;
        say(&Listening { port })?;
        control.serve(listener, std::future::pending()).await?;
        Ok(())
    })
}

fn client(echo: SocketAddr) -> impl Resources {
    let cluster = Cluster::eds(CLUSTER)
        .http2()
        .lb(Lb::RoundRobin)
        // A handshake under callgrind takes seconds.
        .connect_timeout(Duration::from_secs(60))
        .max_connections(64)
        .max_pending_requests(1024)
        .max_requests(1024)
        .max_retries(16)
        .tls(UpstreamTls::mutual(PROVIDER).sni(SERVER_NAME).san(SERVER_ID))
        .endpoints(Endpoints::of([echo]));
    (Listener::client(NAME).rds(ROUTES), routes(), cluster)
}

fn routes() -> RouteConfig {
    let mut config = RouteConfig::new(ROUTES);
    for n in 0..DECOYS {
        let name = format!("other-{n}.bench.svc");
        let host = VirtualHost::new([name.clone(), format!("{name}:443")]);
        config = config.host(host.route(route(format!("/other.v{n}.Service/"))));
    }
    let mut host = VirtualHost::new([NAME, "echo.bench.svc", "*"]);
    for n in 0..DECOYS {
        host = host.route(route(format!("/bench.v1.Other{n}/")));
    }
    config.host(host.route(route(format!("/{SERVICE}/"))).route(route("/".to_owned())))
}

fn route(prefix: String) -> Route {
    let retry = Retry::on("unavailable,resource-exhausted,cancelled")
        .times(RETRIES)
        .back_off(Duration::from_millis(25), Duration::from_millis(250));
    Route::prefix(prefix).cluster(CLUSTER).retry(retry)
}

fn server(echo: SocketAddr) -> impl Resources {
    let policy = Policy::new()
        .principal(Principal::spiffe(CLIENT_ID))
        .permission(Permission::path_prefix(format!("/{SERVICE}/")));
    Listener::server(echo)
        .tls(DownstreamTls::mutual(PROVIDER))
        .rbac(Rbac::allow().policy("clients", policy))
        .routes(RouteConfig::non_forwarding("inbound"))
}
