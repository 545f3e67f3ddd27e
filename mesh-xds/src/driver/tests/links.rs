//! Several control planes over in-memory connections: which of them are connected to, and when no longer. Time is paused.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::snapshot::ConfigSource as _;
use tokio::runtime::Handle;

use super::script::{ControlPlane, Pipes};
use super::stream::{ports, ready, serve_until_quiet, service};
use crate::XdsSource;
use crate::ads::Kind;
use crate::bootstrap::{Bootstrap, ServerAddress, ServerConfig};
use crate::transport::connect::{Connect, Connecting};

/// Leads each host name to a control plane.
#[derive(Debug)]
struct Hosts(BTreeMap<&'static str, Pipes>);

impl Connect for Hosts {
    fn connect<'a>(&'a self, address: &'a ServerAddress) -> Connecting<'a> {
        match address {
            ServerAddress::Tcp { host, .. } => self.0[host.as_str()].connect(address),
            ServerAddress::Unix(path) => panic!("{}", path.display()),
        }
    }
}

fn source(first: &ControlPlane, second: &ControlPlane) -> XdsSource {
    let server = |host: &str| ServerConfig::insecure(&format!("{host}:1")).unwrap();
    let bootstrap = Bootstrap::builder("n").server(server("first")).server(server("second"));
    let hosts = [("first", first.pipes.clone()), ("second", second.pipes.clone())];
    XdsSource::builder(bootstrap.build().unwrap()).connector(Hosts(hosts.into())).start(&Handle::current())
}

#[tokio::test(start_paused = true)]
async fn the_second_is_not_connected_to_while_the_first_answers() {
    let (mut first, second) = (ControlPlane::new(), ControlPlane::new());
    let source = source(&first, &second);
    let target = source.client("shop");
    let mut stream = first.stream().await;
    serve_until_quiet(&mut stream, "1", &service("shop", &["a"], 1)).await;
    ready(&target).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(second.attempts(), []);
}

#[tokio::test(start_paused = true)]
async fn the_second_serves_while_the_first_is_tried_again_and_is_left_when_it_answers() {
    let metrics = Handle::current().metrics();
    let (mut first, mut second) = (ControlPlane::new(), ControlPlane::new());
    let before = metrics.num_alive_tasks();
    first.refuse(true);
    let source = source(&first, &second);
    let target = source.client("shop");
    let mut spare = second.stream().await;
    serve_until_quiet(&mut spare, "1", &service("shop", &["a"], 2)).await;
    assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:2"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(first.attempts().len() > 5, "{:?}", first.attempts());
    assert_eq!(second.attempts().len(), 1);

    first.refuse(false);
    let mut stream = first.stream().await;
    for kind in Kind::ALL {
        assert_eq!(stream.expect(kind).await.version_info, "");
    }
    assert_eq!(second.open_streams(), 1, "the first is connected, and has not answered");
    stream.send(Kind::Endpoints, "1", service("shop", &["a"], 1)).await;
    assert_eq!(spare.next().await, None, "its stream is closed");
    stream.expect(Kind::Endpoints).await;
    assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:1"]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(second.attempts().len(), 1, "and it is not tried any more");

    drop((source, target));
    assert_eq!(stream.next().await, None);
    drop((stream, spare));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(metrics.num_alive_tasks(), before, "nothing outlives the source");
}

#[tokio::test(start_paused = true)]
async fn a_first_that_takes_connections_and_never_answers_is_replaced() {
    let (first, mut second) = (ControlPlane::deaf(), ControlPlane::new());
    let source = source(&first, &second);
    let target = source.client("shop");
    let mut spare = second.stream().await;
    serve_until_quiet(&mut spare, "1", &service("shop", &["a"], 2)).await;
    assert_eq!(ports(&*ready(&target).await), ["127.0.0.1:2"]);
}
