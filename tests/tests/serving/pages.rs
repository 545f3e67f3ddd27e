//! The admin endpoint of a mesh, and its pages.

use std::sync::Arc;

use mesh_core::config::telemetry::WorkloadLabels;
use mesh_tests::net::Port;
use mesh_tower::telemetry::Metrics;
use mesh_tower::{Admin, Mesh};
use tokio::task::JoinSet;

use crate::admin_page;

pub(crate) struct Pages {
    pub(crate) mesh: Mesh,
    port: Port,
    _running: JoinSet<()>,
}

impl Pages {
    pub(crate) fn of(mesh: &Mesh) -> Self {
        let port = Port::reserve();
        let mut running = JoinSet::new();
        let metrics = Metrics::new(Arc::new(WorkloadLabels::unknown()));
        let (admin, tcp) = (Admin::new(mesh.clone()).metrics(metrics), port.listen());
        running.spawn(async move { admin.serve(tcp).await.expect("on loopback") });
        Self { mesh: mesh.clone(), port, _running: running }
    }

    /// A page, its head and its body.
    pub(crate) async fn whole(&self, path: &str) -> String {
        admin_page(&self.port, path).await
    }

    /// The status line of a page, and its body.
    pub(crate) async fn page(&self, path: &str) -> (String, String) {
        let answer = self.whole(path).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }
}
