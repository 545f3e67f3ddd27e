//! One test's mesh: control plane, CA, backends, and the meshes that use them.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_tower::{Mesh, MeshBuilder, MeshChannel};

use mesh_xds::bootstrap::{
    Bootstrap, BootstrapBuilder, CertificateProvider, FileWatcher, IdentityFiles, ServerConfig,
};
use mesh_xds::server::{ControlPlane, Endpoints, Listener, Resources};
use tokio::task::JoinSet;

use crate::backend::{App, Backend};
use crate::ca::{Ca, Identity};
use crate::net::Port;
use crate::wait::soon;

/// Everything around the mesh under test. Dropping it ends all of it.
#[derive(Debug)]
pub struct Fleet {
    /// The control plane: set resources, look at what clients say to them.
    pub control: ControlPlane,
    /// The authority of the trust domain `cluster.local`.
    pub ca: Ca,
    port: Port,
    running: JoinSet<()>,
}

/// An application behind `Mesh::serve`. Dropping it cuts it off; [`Mesh::shutdown`] drains it.
#[derive(Debug)]
pub struct Served {
    /// The application.
    pub app: App,
    /// The mesh that serves it.
    pub mesh: Mesh,
    port: Port,
    running: JoinSet<Result<(), mesh_tower::Error>>,
}

// === impl Served ===

impl Served {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits until serving has ended, as it does after a shutdown.
    ///
    /// # Panics
    /// If serving failed, or does not end.
    pub async fn ended(&mut self) {
        let ended = soon(self.running.join_next()).await;
        ended.expect("it was served").expect("no panic").expect("served to the end");
    }
}

// === impl Fleet ===

impl Fleet {
    /// A control plane that listens, without resources.
    #[must_use]
    pub fn start() -> Self {
        let mut fleet = Self::start_without_control_plane();
        fleet.start_control_plane();
        fleet
    }

    /// The same, with a control plane that is down.
    #[must_use]
    pub fn start_without_control_plane() -> Self {
        Self {
            control: ControlPlane::new(),
            ca: Ca::new("cluster.local"),
            port: Port::reserve(),
            running: JoinSet::new(),
        }
    }

    /// Where the control plane is, or would be.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Starts the control plane, again if it was stopped; its resources are those that it had.
    pub fn start_control_plane(&mut self) {
        let (control, listener) = (self.control.clone(), self.port.listen());
        self.running.spawn(async move {
            control.serve(listener, std::future::pending()).await.expect("a listener that works");
        });
    }

    /// Kills the control plane: connections are cut, new ones refused.
    pub async fn kill_control_plane(&mut self) {
        self.running.shutdown().await;
        soon(self.control.wait_for(<[_]>::is_empty)).await;
    }

    /// Sets resources, and waits until at least one client has answered everything.
    pub async fn apply(&self, resources: impl Resources) {
        self.control.set(resources);
        self.settled(1).await;
    }

    /// Waits until at least so many clients are connected and have answered everything there is for them.
    pub async fn settled(&self, clients: usize) {
        soon(self.control.settled(clients)).await;
    }

    /// Waits for a refusal, and returns its text.
    pub async fn nack(&self) -> String {
        let mut text = None;
        soon(self.control.wait_for(|clients| {
            text =
                clients.iter().flat_map(|client| client.nacks()).map(|(_, nack)| nack.message.clone()).next();
            text.is_some()
        }))
        .await;
        text.expect("a refusal was seen")
    }

    /// A bootstrap for a node without identity.
    #[must_use]
    pub fn bootstrap(&self, node: &str) -> Bootstrap {
        self.bootstrap_builder(node).build().expect("a valid bootstrap")
    }

    /// A bootstrap for a node with an identity, as the provider instance `default`, read again twenty times a second.
    #[must_use]
    pub fn bootstrap_with(&self, node: &str, identity: &Identity) -> Bootstrap {
        let files = IdentityFiles::new(identity.certificate_file(), identity.key_file());
        let watcher = FileWatcher::identity_only(files)
            .with_ca_file(identity.ca_file())
            .with_refresh_interval(Duration::from_millis(50));
        self.bootstrap_builder(node)
            .certificate_provider("default", CertificateProvider::FileWatcher(watcher))
            .build()
            .expect("a valid bootstrap")
    }

    /// A mesh without identity.
    ///
    /// # Panics
    /// If it cannot be built.
    #[must_use]
    pub fn mesh(&self, node: &str) -> Mesh {
        self.mesh_builder(node).build().expect("a mesh")
    }

    /// The same, to be completed.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn mesh_builder(&self, node: &str) -> MeshBuilder {
        MeshBuilder::from_bootstrap(self.bootstrap(node)).expect("within a runtime")
    }

    /// A mesh with an identity.
    ///
    /// # Panics
    /// If it cannot be built.
    #[must_use]
    pub fn mesh_with(&self, node: &str, identity: &Identity) -> Mesh {
        let builder = MeshBuilder::from_bootstrap(self.bootstrap_with(node, identity));
        builder.and_then(MeshBuilder::build).expect("a mesh")
    }

    /// Serves an application through a mesh; `listener` completes what the control plane says about its address.
    pub fn serve(&self, mesh: &Mesh, app: App, listener: impl FnOnce(Listener) -> Listener) -> Served {
        self.serve_with(mesh, app, |address| {
            self.control.set(listener(Listener::server(address)));
        })
    }

    /// The same, where the control plane is told about the address in another way.
    ///
    /// # Panics
    /// If the system has no port.
    pub fn serve_with(&self, mesh: &Mesh, app: App, announce: impl FnOnce(SocketAddr)) -> Served {
        let port = Port::reserve();
        announce(port.address());
        let mut running = JoinSet::new();
        let (serving, router, tcp) = (mesh.clone(), app.router(), port.listen());
        running.spawn(async move { serving.serve(tcp, router).await });
        Served { app, mesh: mesh.clone(), port, running }
    }

    /// A plaintext backend.
    #[must_use]
    pub fn backend(&self, id: &str) -> Backend {
        Backend::start(id)
    }

    /// A backend with TLS that shows an identity and, if `mutual`, wants one.
    #[must_use]
    pub fn tls_backend(&self, id: &str, identity: &Identity, mutual: bool) -> Backend {
        Backend::start_tls(id, self.ca.server_config(identity, mutual))
    }

    fn bootstrap_builder(&self, node: &str) -> BootstrapBuilder {
        builder_at(self.control_address(), node)
    }
}

/// A bootstrap for a node without identity, with the control plane at an address.
///
/// # Panics
/// Never: an address is a valid server.
#[must_use]
pub fn bootstrap_at(control_plane: SocketAddr, node: &str) -> Bootstrap {
    builder_at(control_plane, node).build().expect("a valid bootstrap")
}

fn builder_at(control_plane: SocketAddr, node: &str) -> BootstrapBuilder {
    let server = ServerConfig::insecure(&control_plane.to_string()).expect("an address");
    Bootstrap::builder(node)
        .server(server)
        .server_listener_template("grpc/server?xds.resource.listening_address=%s")
}

/// A channel of a mesh to the target `shop`, which most tests call.
///
/// # Panics
/// Outside a runtime.
#[must_use]
pub fn shop(mesh: &Mesh) -> MeshChannel {
    mesh.channel("xds:///shop").expect("a target")
}

/// Endpoints of these addresses, at priority 0.
#[must_use]
pub fn at<const N: usize>(addresses: [SocketAddr; N]) -> Endpoints {
    Endpoints::of(addresses)
}
