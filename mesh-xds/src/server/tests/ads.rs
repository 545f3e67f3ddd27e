//! Raw ADS clients of both variants over a loopback socket. Each wait ends by an event; the limit is only there to fail.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::ads::{Kind, Protocol};
use crate::server::subscriber::MAX_NAMES;
use crate::server::{Cluster, ControlPlane, Endpoints, Listener, Resource, ResourceState, RouteConfig, Tls};

struct Running {
    control: ControlPlane,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinSet<std::io::Result<()>>,
}

struct Client {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Running {
    async fn start(control: ControlPlane) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        let serving = control.clone();
        server.spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
        Self { control, address, stop: Some(stop), server }
    }
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (requests, queue) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses =
            client.stream_aggregated_resources(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, kind: Kind, names: &[&str]) {
        self.send(kind, names, None, None).await;
    }

    async fn send(
        &self,
        kind: Kind,
        names: &[&str],
        answers: Option<&DiscoveryResponse>,
        error: Option<&str>,
    ) {
        let request = DiscoveryRequest {
            node: Some(Node { id: "client-1".into(), ..Default::default() }),
            type_url: kind.type_url().into(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            version_info: answers.map(|r| r.version_info.clone()).unwrap_or_default(),
            response_nonce: answers.map(|r| r.nonce.clone()).unwrap_or_default(),
            error_detail: error.map(|message| rpc::Status { message: message.into(), ..Default::default() }),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        soon(self.responses.message()).await
    }
}

/// A client of the incremental variant.
struct DeltaClient {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    async fn connect(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (requests, queue) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses =
            client.delta_aggregated_resources(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, kind: Kind, names: Vec<String>) {
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "client-d".into(), cluster: "web".into(), ..Default::default() }),
            type_url: kind.type_url().into(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }

    /// The next response, acknowledged.
    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = soon(self.responses.message()).await.unwrap().unwrap();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(ack).await.unwrap();
        response
    }
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("an event within ten seconds")
}

fn spine() -> ControlPlane {
    let control = ControlPlane::new();
    control.set((
        Listener::client("reviews").rds("reviews"),
        RouteConfig::to("reviews", "v1"),
        Cluster::eds("v1").endpoints(Endpoints::of(["127.0.0.1:1".parse().unwrap()])),
    ));
    control
}

#[tokio::test]
async fn a_client_gets_what_it_asks_for_and_its_answers_are_seen() {
    let running = Running::start(spine()).await;
    let mut client = Client::connect(running.address).await;
    client.ask(Kind::Listener, &["reviews"]).await;
    let listener = client.next().await.unwrap().unwrap();
    assert_eq!((listener.type_url.as_str(), listener.resources.len()), (Kind::Listener.type_url(), 1));
    client.send(Kind::Listener, &["reviews"], Some(&listener), None).await;
    client.ask(Kind::Route, &["reviews"]).await;
    let route = client.next().await.unwrap().unwrap();
    client.send(Kind::Route, &["reviews"], Some(&route), Some("bad route")).await;

    soon(running.control.wait_for(|clients| {
        clients.iter().any(|client| {
            client.node_id == "client-1"
                && client.kind(Kind::Listener).is_some_and(|kind| kind.acked == Some(1))
                && client.nacks().any(|(kind, nack)| kind == Kind::Route && nack.message == "bad route")
        })
    }))
    .await;
    assert_eq!(running.control.status()[0].peer.map(|peer| peer.ip()), Some(running.address.ip()));
}

#[tokio::test]
async fn a_change_reaches_a_client_that_waits() {
    let running = Running::start(spine()).await;
    let mut client = Client::connect(running.address).await;
    client.ask(Kind::Cluster, &[]).await;
    let first = client.next().await.unwrap().unwrap();
    client.send(Kind::Cluster, &[], Some(&first), None).await;
    soon(running.control.settled(1)).await;
    running.control.set(Cluster::eds("v2"));
    assert_eq!(client.next().await.unwrap().unwrap().resources.len(), 2);
}

#[tokio::test]
async fn requests_are_read_from_a_client_that_never_reads() {
    // Far more than any window: a server that answers each request before it reads the next one stalls here.
    let control = ControlPlane::new();
    control.set(
        (0..400)
            .map(|i| Resource::opaque(Kind::Endpoints, format!("e{i}"), vec![0; 4096]))
            .collect::<Vec<_>>(),
    );
    let running = Running::start(control).await;
    let client = Client::connect(running.address).await;
    let mut names: Vec<String> = Vec::new();
    for i in 0..400 {
        names.push(format!("e{i}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        soon(client.ask(Kind::Endpoints, &names)).await;
    }
    soon(running.control.wait_for(|clients| {
        clients.iter().any(|client| client.kind(Kind::Endpoints).is_some_and(|kind| kind.names.len() == 400))
    }))
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let running = Running::start(spine()).await;
    let client = Client::connect(running.address).await;
    client.ask(Kind::Cluster, &[]).await;
    soon(running.control.wait_for(|clients| clients.len() == 1)).await;
    drop(client);
    soon(running.control.wait_for(<[_]>::is_empty)).await;
}

#[tokio::test]
async fn a_half_closed_stream_is_ended() {
    let running = Running::start(spine()).await;
    let Client { requests, mut responses } = Client::connect(running.address).await;
    drop(requests);
    assert!(soon(responses.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn shutdown_ends_streams_and_returns() {
    let mut running = Running::start(spine()).await;
    let mut client = Client::connect(running.address).await;
    client.ask(Kind::Cluster, &[]).await;
    client.next().await.unwrap();
    drop(running.stop.take());
    assert_eq!(client.next().await.unwrap_err().code(), Code::Unavailable);
    soon(running.server.join_next()).await.unwrap().unwrap().unwrap();
    soon(running.control.wait_for(<[_]>::is_empty)).await;
}

#[tokio::test]
async fn dropping_the_server_cuts_its_clients() {
    let mut running = Running::start(spine()).await;
    let mut client = Client::connect(running.address).await;
    client.ask(Kind::Cluster, &[]).await;
    client.next().await.unwrap();
    running.server.abort_all();
    assert!(client.next().await.is_err());
    soon(running.control.wait_for(<[_]>::is_empty)).await;
}

#[tokio::test]
async fn one_control_plane_is_served_on_several_listeners() {
    let first = Running::start(spine()).await;
    let second = Running::start(first.control.clone()).await;
    let mut one = Client::connect(first.address).await;
    let mut two = Client::connect(second.address).await;
    for client in [&mut one, &mut two] {
        client.ask(Kind::Listener, &["reviews"]).await;
        assert_eq!(client.next().await.unwrap().unwrap().resources.len(), 1);
    }
    assert_eq!(first.control.status().len(), 2);
}

#[tokio::test]
async fn an_incremental_client_gets_changes_and_removals_and_is_seen() {
    let running = Running::start(spine()).await;
    let mut client = DeltaClient::connect(running.address).await;
    client.ask(Kind::Cluster, Vec::new()).await;
    client.ask(Kind::Route, vec!["reviews".into(), "unknown".into()]).await;
    assert_eq!(client.next().await.resources[0].name, "v1");
    let route = client.next().await;
    assert_eq!((route.resources.len(), route.removed_resources), (1, vec!["unknown".to_owned()]));
    soon(running.control.settled(1)).await;
    running.control.edit(|edit| {
        edit.set(Cluster::eds("v2"));
        edit.remove(Kind::Cluster, "v1");
    });
    assert_eq!(client.next().await.resources[0].name, "v2");
    assert_eq!(client.next().await.removed_resources, ["v1"]);
    soon(running.control.settled(1)).await;

    let status = running.control.status().remove(0);
    assert_eq!((status.protocol, status.node_id.as_str()), (Protocol::Incremental, "client-d"));
    assert_eq!(status.view.as_deref(), Some("web"));
    let clusters = running.control.resource_status(status.stream, Kind::Cluster);
    assert_eq!(clusters.len(), 1);
    assert_eq!((&*clusters[0].name, clusters[0].state), ("v2", ResourceState::Acked));
}

#[tokio::test]
async fn clients_that_never_read_are_sent_one_response_of_each_kind() {
    let running = Running::start(spine()).await;
    let delta = DeltaClient::connect(running.address).await;
    let sotw = Client::connect(running.address).await;
    for kind in [Kind::Cluster, Kind::Listener] {
        delta.ask(kind, Vec::new()).await;
        sotw.ask(kind, &[]).await;
    }
    for kind in [Kind::Endpoints, Kind::Route] {
        delta.ask(kind, vec!["x".into()]).await;
        sotw.ask(kind, &["x"]).await;
    }
    soon(running.control.wait_for(|clients| clients.iter().filter(|c| c.kinds.len() == 4).count() == 2))
        .await;
    for i in 0..1_000_u32 {
        let mut body = vec![0; 256 << 10];
        body[..4].copy_from_slice(&i.to_le_bytes());
        running.control.set(Kind::ALL.map(|kind| Resource::opaque(kind, "x", body.clone())).to_vec());
        tokio::task::yield_now().await;
    }
    let status = running.control.status();
    assert_eq!(status.len(), 2);
    for client in status {
        assert!(client.responses <= 4, "{client:?}");
    }
}

#[tokio::test]
async fn a_client_that_wants_too_many_names_is_told_so_and_cut_off() {
    let running = Running::start(spine()).await;
    let mut client = DeltaClient::connect(running.address).await;
    client.ask(Kind::Endpoints, (0..=MAX_NAMES).map(|i| i.to_string()).collect()).await;
    let status = soon(client.responses.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("names"), "{status}");
    soon(running.control.wait_for(<[_]>::is_empty)).await;
}

#[tokio::test]
async fn a_method_that_is_not_served_is_unimplemented() {
    use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
    let running = Running::start(spine()).await;
    let channel =
        Endpoint::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
    let mut client = ClusterDiscoveryServiceClient::new(channel);
    let status = soon(client.stream_clusters(tokio_stream::empty())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn over_tls_only_clients_with_a_certificate_of_the_ca_are_served() {
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certified = rcgen::generate_simple_self_signed(vec!["xds.test".to_owned()]).unwrap();
    let certificate = write("cert.pem", certified.cert.pem());
    let key = write("key.pem", certified.signing_key.serialize_pem());
    let tls = Tls::from_files(&certificate, &key, Some(&certificate)).unwrap();
    assert!(Tls::from_files(&key, &key, None).is_err_and(|error| error.to_string().contains("key.pem")));

    let control = spine();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move { control.serve_tls(listener, tls, std::future::pending()).await });

    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let config = || {
        rustls::ClientConfig::builder_with_provider(std::sync::Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let private = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let with = config().with_client_auth_cert(vec![certified.cert.der().clone()], private).unwrap();
    let without = config().with_no_client_auth();
    for (mut config, served) in [(with, true), (without, false)] {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("xds.test").unwrap();
        let mut secured = soon(connector.connect(name, socket)).await.unwrap();
        // The first frame of the server's HTTP/2, or the end of the connection.
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        secured.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.ok();
        let mut byte = [0; 1];
        let read = soon(secured.read(&mut byte)).await;
        assert_eq!(matches!(read, Ok(1)), served, "{read:?}");
    }
}

/// What was logged, as text.
#[derive(Debug, Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_logged_for_a_client_says_in_which_task() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::new("mesh_xds=trace"))
        .with_writer(move || sink.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let running = Running::start(ControlPlane::new()).await;
    running.control.set(RouteConfig::to("r", "c"));
    let mut client = Client::connect(running.address).await;
    client.ask(Kind::Route, &["r"]).await;
    let response = client.next().await.unwrap().unwrap();
    client.send(Kind::Route, &["r"], Some(&response), Some("bad route")).await;
    soon(running.control.wait_for(|clients| clients.iter().any(|client| client.nacks().next().is_some())))
        .await;

    let directory = tempfile::tempdir().unwrap();
    let identity = rcgen::generate_simple_self_signed(vec!["xds.test".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, identity.cert.pem()).unwrap();
    std::fs::write(&key, identity.signing_key.serialize_pem()).unwrap();
    let tls = Tls::from_files(&certificate, &key, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let control = running.control.clone();
    let mut server = JoinSet::new();
    server.spawn(async move { control.serve_tls(listener, tls, std::future::pending()).await });
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let peer = plain.local_addr().unwrap();
    // The end of the connection comes after the line.
    drop(soon(plain.read_to_end(&mut Vec::new())).await);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = |what: &str| {
        text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {text}"))
    };
    assert!(line("client refused resources").contains("ads_reader{stream="), "{text}");
    assert!(line("TLS handshake failed").contains(&format!("xds_client{{peer={peer}}}")), "{text}");
}
