//! A tonic server and a tonic client on the mesh, in one process, configured by `hello.yaml`.

use mesh_tower::Mesh;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::api::{HelloReply, HelloRequest};
use rpc::greeter_client::GreeterClient;
use rpc::greeter_server::{Greeter, GreeterServer};

struct Polite;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: format!("Hello {}!", request.into_inner().name) }))
    }
}

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example talks to a person and has one task"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::from_static_file(concat!(env!("CARGO_MANIFEST_DIR"), "/hello.yaml")).await?;

    let tcp = TcpListener::bind("127.0.0.1:50051").await?;
    let server = mesh.clone();
    let serving =
        tokio::task::spawn(async move { server.serve(tcp, Routes::new(GreeterServer::new(Polite))).await });

    let mut greeter = GreeterClient::new(mesh.channel("xds:///greeter:50051")?);
    let reply = greeter.say_hello(HelloRequest { name: "mesh".to_owned() }).await?;
    println!("{}", reply.into_inner().message);

    mesh.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(serving.await??)
}

/// What the generated code calls its messages.
mod api {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HelloRequest {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HelloReply {
        #[prost(string, tag = "1")]
        pub(crate) message: String,
    }
}

#[allow(unused_qualifications, unreachable_pub, private_interfaces, missing_docs, reason = "generated")]
#[allow(
    clippy::allow_attributes_without_reason,
    clippy::needless_pass_by_value,
    clippy::use_self,
    reason = "generated"
)]
mod rpc {
    include!(concat!(env!("OUT_DIR"), "/demo.Greeter.rs"));
}
