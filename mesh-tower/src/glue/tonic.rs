//! tonic's own server over our listener: `serve_with_incoming(mesh.listen(tcp))`.

use tonic::transport::server::Connected;

use crate::server::Peer;
use crate::transport::listen::MeshIo;

impl Connected for MeshIo {
    /// In the extensions of each request, where the server layer and handlers find it.
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer().clone()
    }
}
