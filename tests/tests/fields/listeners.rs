//! A server's listener: which chain a connection meets, and what its connection manager allows.

use std::net::SocketAddr;

use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::access::{answer, raw};
use crate::{OPEN, Server, listening, manager, mesh};

/// A connection manager that lets nobody in.
fn closed() -> String {
    let rules = "action: DENY, policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}";
    manager(
        OPEN,
        &format!(
            "{{name: rbac, typed_config: {{@envoy.extensions.filters.http.rbac.v3.RBAC, rules: {{{rules}}}}}}}, "
        ),
    )
}

fn open(fields: &str) -> String {
    manager(&format!("{fields}{OPEN}"), "")
}

/// The listener whose one chain with a match is open, and whose default chain is not.
fn matching(at: SocketAddr, matches: &str) -> Vec<String> {
    let chains = format!(
        "filter_chains: [{{filter_chain_match: {{{matches}}}, filters: [{}]}}], default_filter_chain: {{filters: [{}]}}",
        open(""),
        closed()
    );
    vec![listening(at, &chains)]
}

#[tokio::test]
async fn chains_by_what_is_known_of_a_connection() {
    for (matches, expected) in [
        ("prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}]", 200),
        ("prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]", 403),
        ("prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 8}]", 200),
        ("source_prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}]", 200),
        ("source_prefix_ranges: [{address_prefix: 127.0.0.2, prefix_len: 32}]", 403),
        ("source_type: SAME_IP_OR_LOOPBACK", 200),
        ("source_type: EXTERNAL", 403),
        ("transport_protocol: raw_buffer", 200),
        ("transport_protocol: tls", 403),
    ] {
        let server = Server::start(|at| matching(at, matches));
        assert_eq!(raw(server.address, "GET /").await, Some(expected), "{matches}");
    }
}

#[tokio::test]
async fn chains_by_the_port_of_the_caller() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = Server::start(|at| matching(at, &format!("source_ports: [{port}]")));
    assert_eq!(raw(server.address, "GET /").await, Some(403));
    let tcp = soon(socket.connect(server.address)).await.unwrap();
    assert_eq!(answer(tcp, "GET /").await, Some(200));
}

/// Two listeners that differ in their address alone.
#[tokio::test]
async fn a_listener_is_that_of_its_address() {
    // The same port of another address may be taken.
    let (here, second, on_second) = loop {
        let here = Port::reserve();
        let second = SocketAddr::from(([127, 0, 0, 2], here.address().port()));
        if let Ok(tcp) = TcpListener::bind(second).await {
            break (here, second, tcp);
        }
    };
    let there = Port::reserve();
    let of = |at: SocketAddr, manager: &str, name: &str| {
        listening(at, &format!("filter_chains: [{{filters: [{manager}]}}]"))
            .replace("name: server", &format!("name: {name}"))
    };
    let mesh = mesh(&[
        of(here.address(), &open(""), "a"),
        of(there.address(), &closed(), "b"),
        of(second, &closed(), "c"),
    ]);
    let app = mesh_tests::backend::App::new("served");
    for (tcp, expected) in [(here.listen(), 200), (there.listen(), 403), (on_second, 403)] {
        let at = tcp.local_addr().unwrap();
        let (serving, router) = (mesh.clone(), app.router());
        let running = beside(async move { serving.serve(tcp, router).await });
        assert_eq!(raw(at, "GET /").await, Some(expected), "{at}");
        running.abort();
    }
}

/// Two listeners that differ in their path alone.
#[tokio::test]
async fn a_listener_is_that_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let of = |name: &str, manager: &str| {
        let address = format!("pipe: {{path: '{}'}}", path(name));
        format!(
            "@envoy.config.listener.v3.Listener, name: {name}, address: {{{address}}}, \
             filter_chains: [{{filters: [{manager}]}}]"
        )
    };
    let mesh = mesh(&[of("a", &open("")), of("b", &closed())]);
    let app = mesh_tests::backend::App::new("served");
    for (name, expected) in [("a", Some(200)), ("b", Some(403)), ("c", None)] {
        let socket = tokio::net::UnixListener::bind(path(name)).unwrap();
        let (serving, router) = (mesh.clone(), app.router());
        let running = beside(async move { serving.serve(socket, router).await });
        let client = tokio::net::UnixStream::connect(path(name)).await.unwrap();
        assert_eq!(answer(client, "GET /").await, expected, "{name}");
        running.abort();
    }
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_many() {
    let large = format!("GET / a:{}", "x".repeat(2000));
    let many = format!("GET /{}", " a:b".repeat(20));
    for (fields, request, expected) in [
        ("", &*large, 200),
        ("max_request_headers_kb: 1, ", &*large, 431),
        ("", &*many, 200),
        ("common_http_protocol_options: {max_headers_count: 10}, ", &*many, 431),
    ] {
        let server = serving(fields);
        assert_eq!(raw(server.address, request).await, Some(expected), "{fields}");
    }
}

fn serving(fields: &str) -> Server {
    Server::start(|at| vec![listening(at, &format!("filter_chains: [{{filters: [{}]}}]", open(fields)))])
}

const HEAD: &str = "GET /?hold HTTP/1.1\r\nhost: server\r\n\r\n";
const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: server\r\ncontent-length: 10\r\n\r\n";

/// What is sent, and what then comes back before the connection ends, where nothing more is sent.
async fn comes_back(server: &Server, sent: &str) -> String {
    let mut tcp = soon(TcpStream::connect(server.address)).await.expect("a connection");
    tcp.write_all(sent.as_bytes()).await.expect("what is sent");
    let mut answer = Vec::new();
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

/// Without the limit, each of these connections would stay for longer than the test waits.
#[tokio::test]
async fn what_takes_too_long_ends() {
    for (fields, sent, expected) in [
        ("request_timeout: 0.1s, ", UPLOAD, "HTTP/1.1 408"),
        ("stream_idle_timeout: 0.1s, ", UPLOAD, "HTTP/1.1 408"),
        ("common_http_protocol_options: {max_stream_duration: 0.1s}, ", HEAD, "HTTP/1.1 504"),
    ] {
        let server = serving(fields);
        let mut tcp = soon(TcpStream::connect(server.address)).await.unwrap();
        tcp.write_all(sent.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        soon(tcp.read_exact(&mut first)).await.unwrap_or_else(|e| panic!("{fields}: {e}"));
        assert_eq!(String::from_utf8_lossy(&first), expected, "{fields}");
    }
    // A head that never ends has no answer.
    let server = serving("request_headers_timeout: 0.1s, ");
    assert_eq!(comes_back(&server, "GET / HTTP/1.1\r\nhost: ").await, "");
    let get = "GET / HTTP/1.1\r\nhost: server\r\n\r\n";
    for fields in [
        "common_http_protocol_options: {idle_timeout: 0.1s}, ",
        "common_http_protocol_options: {max_connection_duration: 0.1s}, ",
    ] {
        let server = serving(fields);
        assert_eq!(comes_back(&server, get).await, "HTTP/1.1 200 OK", "{fields}");
    }
}

#[tokio::test]
async fn streams_at_a_time() {
    let server = serving("http2_protocol_options: {max_concurrent_streams: 7}, ");
    let tcp = soon(TcpStream::connect(server.address)).await.unwrap();
    let (send, connection) = soon(h2::client::handshake(tcp)).await.unwrap();
    let driving = beside(connection);
    let mut send = soon(send.ready()).await.unwrap();
    let request = http::Request::get("http://server/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(send.current_max_send_streams(), 7);
    driving.abort();
}

#[tokio::test]
async fn routes_by_name() {
    for source in ["ads", "self"] {
        let server = Server::start(|at| {
            let rds = format!("rds: {{route_config_name: second, config_source: {{{source}: {{}}}}}}");
            let routes = |name: &str, path: &str| {
                format!(
                    "@envoy.config.route.v3.RouteConfiguration, name: {name}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{path: {path}}}, non_forwarding_action: {{}}}}]}}]"
                )
            };
            let listener = listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(&rds, "")));
            vec![listener, routes("first", "/first"), routes("second", "/second")]
        });
        assert_eq!(raw(server.address, "GET /second").await, Some(200), "{source}");
        assert_ne!(raw(server.address, "GET /first").await, Some(200), "{source}");
    }
}

/// Only what is for the application is served; a route to a cluster is of no use to a server.
#[tokio::test]
async fn actions_on_a_server() {
    let server = Server::start(|at| {
        let routes = "route_config: {virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {path: /app}, non_forwarding_action: {}}, {match: {prefix: /}, direct_response: {status: 200}}]}]}";
        vec![listening(at, &format!("filter_chains: [{{filters: [{}]}}]", manager(routes, "")))]
    });
    assert_eq!(raw(server.address, "GET /app").await, Some(200));
    assert_ne!(raw(server.address, "GET /else").await, Some(200));
    assert_eq!(server.app.stats().requests, 1);
}
