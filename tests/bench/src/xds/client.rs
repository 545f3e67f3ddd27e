//! The client children that are Rust: ours and tonic-xds'. grpcio's is `grpcio_client.py`, and obeys the same orders.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use mesh_tower::{Mesh, MeshChannel};
use mesh_xds::bootstrap::{Bootstrap, ServerConfig};
use mesh_xds::{Protocol as MeshProtocol, XdsSource};
use serde_json::json;
use tokio::runtime::{Handle, Runtime};
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic_prost::ProstCodec;
use tonic_xds::{BootstrapConfig, XdsChannelBuilder, XdsChannelConfig, XdsChannelGrpc, XdsUri};

use super::{Client, ClientOrder, Loaded, PATIENCE, Protocol, Started, TARGET, nanos, path};
use crate::Result;
use crate::alloc::live_bytes;
use crate::echo::EchoMessage;
use crate::mark::cpu_ns;
use crate::resources::NODE;
use crate::role::{runtime, say};

/// Between two attempts to start.
const RETRY: Duration = Duration::from_millis(1);

/// The role: obeys until the driver closes the standard input.
pub(crate) fn role(kind: Client, protocol: Protocol, xds: SocketAddr, clusters: usize) -> Result<()> {
    let runtime = runtime()?;
    match kind {
        Client::Mesh => obey(&runtime, clusters, || mesh(protocol, xds)),
        Client::TonicXds => obey(&runtime, clusters, || tonic_xds(xds).map(|channel| (channel, ()))),
        Client::Grpcio => Err("grpcio is not a role of this binary".into()),
    }
}

/// Makes the channel, and what has to live as long.
fn obey<T, K>(runtime: &Runtime, clusters: usize, connect: impl FnOnce() -> Result<(T, K)>) -> Result<()>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let _entered = runtime.enter();
    let mut connect = Some(connect);
    let mut started = None;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            ClientOrder::Start => {
                let Some(connect) = connect.take() else { return Err("started twice".into()) };
                let (before, began) = (live_bytes(), Instant::now());
                let (channel, keep) = connect()?;
                let mut caller = Caller { grpc: tonic::client::Grpc::new(channel) };
                runtime.block_on(caller.until_ok(clusters - 1))?;
                let ready_ns = nanos(began.elapsed());
                // What is only needed on the way there is not what stays.
                runtime.block_on(tokio::time::sleep(Duration::from_millis(200)));
                say(&Started { ready_ns, live_bytes: live_bytes() - before })?;
                started = Some((caller, keep));
            }
            ClientOrder::Load { ms, clusters } => {
                let Some((caller, _)) = &mut started else { return Err("not started".into()) };
                say(&runtime.block_on(caller.load(Duration::from_millis(ms), clusters)))?;
            }
            ClientOrder::Idle { ms } => {
                runtime.block_on(tokio::time::sleep(Duration::from_millis(ms)));
                say(&cpu_ns()?)?;
            }
        }
    }
    Ok(())
}

fn mesh(protocol: Protocol, xds: SocketAddr) -> Result<(MeshChannel, Mesh)> {
    let protocol = match protocol {
        Protocol::StateOfTheWorld => MeshProtocol::StateOfTheWorld,
        Protocol::Incremental => MeshProtocol::Incremental,
    };
    let server = ServerConfig::insecure(&xds.to_string())?.with_protocol(protocol);
    let bootstrap = Bootstrap::builder(NODE).server(server).build()?;
    let mesh = Mesh::builder(XdsSource::new(bootstrap, &Handle::current())).build()?;
    Ok((mesh.channel(TARGET)?, mesh))
}

fn tonic_xds(xds: SocketAddr) -> Result<XdsChannelGrpc> {
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": format!("http://{xds}"),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": NODE},
    });
    let bootstrap = BootstrapConfig::from_json(&bootstrap.to_string())?;
    let config = XdsChannelConfig::new(XdsUri::parse(TARGET)?).with_bootstrap(bootstrap);
    Ok(XdsChannelBuilder::new(config).build_grpc_channel()?)
}

/// Calls clusters by their paths.
struct Caller<T> {
    grpc: tonic::client::Grpc<T>,
}

impl<T> Caller<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    async fn call(&mut self, cluster: usize) -> Result<()> {
        self.grpc.ready().await.map_err(|error| -> StdError { error.into() })?;
        let path = PathAndQuery::try_from(path(cluster))?;
        let codec = ProstCodec::<EchoMessage, EchoMessage>::default();
        self.grpc.unary(tonic::Request::new(EchoMessage::default()), path, codec).await?;
        Ok(())
    }

    /// Some peers fail calls until they have what they need.
    async fn until_ok(&mut self, cluster: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.call(cluster).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn load(&mut self, span: Duration, clusters: usize) -> Loaded {
        let until = Instant::now() + span;
        let mut loaded = Loaded { calls: 0, failed: 0, error: None };
        for cluster in (0..clusters.max(1)).cycle() {
            if Instant::now() >= until {
                break;
            }
            loaded.calls += 1;
            if let Err(error) = self.call(cluster).await {
                loaded.failed += 1;
                loaded.error.get_or_insert_with(|| error.to_string());
            }
        }
        loaded
    }
}
