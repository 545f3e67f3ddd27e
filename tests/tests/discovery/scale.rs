//! Many clusters: a few requests per type, whatever the control plane's manners.

use mesh_core::snapshot::ConfigSource as _;
use mesh_tests::fleet::bootstrap_at;
use mesh_tests::naive::NaiveControlPlane;
use mesh_tests::wait::until_snapshot;
use mesh_xds::XdsSource;
use mesh_xds::server::{
    Cluster, Endpoints, Listener, Resource, Resources as _, Route, RouteConfig, VirtualHost,
};
use tokio::runtime::Handle;

pub(crate) fn many(clusters: u16) -> Vec<Resource> {
    let mut host = VirtualHost::any();
    let mut resources = Listener::client("shop").rds("shop").into_resources();
    for i in 0..clusters {
        let name = format!("cluster-{i}");
        host = host.route(Route::prefix(format!("/{i}/")).cluster(&name));
        let endpoints = Endpoints::of([([127, 0, 0, 1], 1 + i).into()]);
        resources.extend(Cluster::eds(name).endpoints(endpoints).into_resources());
    }
    resources.extend(RouteConfig::new("shop").host(host).into_resources());
    resources
}

#[tokio::test]
async fn two_thousand_clusters_take_a_handful_of_requests_from_a_naive_control_plane() {
    let control = NaiveControlPlane::start(many(2000));
    let source = XdsSource::new(bootstrap_at(control.address(), "n"), &Handle::current());
    let target = source.client("shop");
    until_snapshot(&target, |snapshot| {
        let complete = snapshot.clusters.iter().filter(|entry| {
            entry.cluster.as_ref().is_ok_and(|cluster| cluster.endpoints.iter().next().is_some())
        });
        complete.count() == 2000
    })
    .await;
    let traffic = control.traffic();
    assert!(traffic.requests <= 16, "{} requests", traffic.requests);
    assert!(traffic.bytes < 1 << 20, "{} bytes", traffic.bytes);
}
