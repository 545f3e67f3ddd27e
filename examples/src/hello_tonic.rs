//! A tonic server and a tonic client on the mesh.
//!
//! `hello_tonic` is both in one process; `hello_tonic server [ADDRESS]` and `hello_tonic client` are one of them each.
//! The configuration comes over xDS where GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG is set, and from `hello.yaml`
//! where neither is.

use std::time::Duration;

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
#[expect(clippy::disallowed_methods, reason = "an example has one task")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mesh = if is_set("GRPC_XDS_BOOTSTRAP") || is_set("GRPC_XDS_BOOTSTRAP_CONFIG") {
        Mesh::from_bootstrap_env().await?
    } else {
        Mesh::from_static_file(concat!(env!("CARGO_MANIFEST_DIR"), "/hello.yaml")).await?
    };

    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let tcp = TcpListener::bind(ADDRESS).await?;
            let serving = tokio::task::spawn(serve(mesh.clone(), tcp));
            greet(&mesh).await?;
            mesh.shutdown(Duration::from_secs(1)).await;
            serving.await??;
        }
        ["server"] => serve(mesh, TcpListener::bind(ADDRESS).await?).await?,
        ["server", address] => serve(mesh, TcpListener::bind(address).await?).await?,
        ["client"] => {
            greet(&mesh).await?;
            mesh.shutdown(Duration::from_secs(1)).await;
        }
        _ => return Err("usage: hello_tonic [server [ADDRESS] | client]".into()),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn serve(mesh: Mesh, tcp: TcpListener) -> Result<(), mesh_tower::Error> {
    if let Ok(address) = tcp.local_addr() {
        println!("a greeter on {address}");
    }
    mesh.serve(tcp, Routes::new(GreeterServer::new(Polite))).await
}

#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn greet(mesh: &Mesh) -> Result<(), Box<dyn std::error::Error>> {
    let mut greeter = GreeterClient::new(mesh.channel("xds:///greeter:50051")?);
    let reply = greeter.say_hello(HelloRequest { name: "mesh".to_owned() }).await?;
    println!("{}", reply.into_inner().message);
    Ok(())
}

const ADDRESS: &str = "127.0.0.1:50051";

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
