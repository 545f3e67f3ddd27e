//! A plain `http::Request` through the mesh, with no web framework at all.
//!
//! `hyper_client TARGET PATH` reads the bootstrap from the environment, as any gRPC xDS client does.

use http::Request;
use http_body_util::BodyExt as _;
use mesh_tower::{Body, Mesh};
use tower::ServiceExt as _;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, path] = &args[..] else { return Err("usage: hyper_client TARGET PATH".into()) };

    let mesh = Mesh::from_bootstrap_env().await?;
    let channel = mesh.channel(target)?;
    let response = channel.oneshot(Request::get(path).body(Body::empty())?).await?;

    println!("{}", response.status());
    // A local reply carries its reason: which resource, whose fault, what the control plane last said.
    if let Some(error) = response.extensions().get::<mesh_tower::Error>() {
        println!("{error}");
    }
    print!("{}", String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()));
    mesh.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
