//! An axum application on the mesh that calls another through it, in one process, configured by `hello.yaml`.

use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use http_body_util::BodyExt as _;
use mesh_tower::{Body, Mesh, MeshChannel};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example talks to a person and has one task"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::from_static_file(concat!(env!("CARGO_MANIFEST_DIR"), "/hello.yaml")).await?;

    let app = Router::new()
        .route("/", get(front))
        .route("/name", get(|| async { "mesh" }))
        .with_state(mesh.channel("greeter:50051")?);
    let tcp = TcpListener::bind("127.0.0.1:50051").await?;
    let server = mesh.clone();
    let serving = tokio::task::spawn(async move { server.serve(tcp, app).await });

    let request = Request::get("/").body(Body::empty())?;
    let response = mesh.channel("greeter:50051")?.oneshot(request).await?;
    println!("{}", String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes()));

    mesh.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(serving.await??)
}

/// Asks for the name through the mesh; trace context and deadline go along by themselves.
async fn front(State(names): State<MeshChannel>) -> Result<String, StatusCode> {
    let request = Request::get("/name").body(Body::empty()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let response = names.oneshot(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let name = response.into_body().collect().await.map_err(|_| StatusCode::BAD_GATEWAY)?.to_bytes();
    Ok(format!("Hello {}!", String::from_utf8_lossy(&name)))
}
