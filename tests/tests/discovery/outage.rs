//! The bad day of a control plane: discovery fails static.

use mesh_core::snapshot::{ConfigSource as _, Resolution};
use mesh_tests::fleet::Fleet;
use mesh_tests::wait::{until_snapshot, until_tasks_at_most};
use mesh_xds::XdsSource;
use tokio::runtime::Handle;

use crate::{ports, shop};

#[tokio::test]
async fn a_control_plane_that_is_down_at_the_start_is_waited_for_in_the_background() {
    let mut fleet = Fleet::start_without_control_plane();
    fleet.control.set(shop(1));
    let source = XdsSource::new(fleet.bootstrap("n"), &Handle::current());
    let target = source.client("shop");
    assert!(matches!(&*target.cell().load(), Resolution::Pending(_)));
    fleet.start_control_plane();
    until_snapshot(&target, |snapshot| ports(snapshot) == [1]).await;
}

#[tokio::test]
async fn fifty_sources_leave_no_stream_and_no_task_behind() {
    let fleet = Fleet::start();
    fleet.control.set(shop(1));
    let baseline = Handle::current().metrics().num_alive_tasks();
    for _ in 0..50 {
        let source = XdsSource::new(fleet.bootstrap("n"), &Handle::current());
        let target = source.client("shop");
        until_snapshot(&target, |_| true).await;
    }
    mesh_tests::wait::soon(fleet.control.wait_for(<[_]>::is_empty)).await;
    until_tasks_at_most(baseline).await;
}

#[tokio::test]
async fn many_targets_share_one_stream() {
    let fleet = Fleet::start();
    fleet.control.set(shop(1));
    let source = XdsSource::new(fleet.bootstrap("n"), &Handle::current());
    let client = source.client("shop");
    let again = source.client("shop");
    let server = source.server(&std::net::SocketAddr::from(([127, 0, 0, 1], 9999)).into());
    fleet.control.set(mesh_xds::server::Listener::server(std::net::SocketAddr::from(([127, 0, 0, 1], 9999))));
    until_snapshot(&client, |_| true).await;
    until_snapshot(&again, |_| true).await;
    until_snapshot(&server, |_| true).await;
    assert_eq!(fleet.control.status().len(), 1);
}
