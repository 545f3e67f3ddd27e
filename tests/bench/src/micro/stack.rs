//! Our client stack alone: a unary gRPC call through `mesh.channel` over a leaf in memory, and the leaf without it.

use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_core::config::endpoints::Address;
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::config::units::PerMillion;
use mesh_core::testing::loopback;
use mesh_tower::telemetry::Metrics;
use mesh_tower::{Body, Mesh, MeshChannel, Upstream, UpstreamFuture};
use mesh_xds::{Format, Rules, StaticSource};
use tower::Service;

use super::Case;
use crate::Result;
use crate::echo::{EchoMessage, PATH};
use crate::role::runtime;

/// Calls of one batch.
const CALLS: u64 = 5_000;
const TARGET: &str = "xds:///echo.bench.svc:443";
const CONFIG: &str = include_str!("stack.yaml");

/// Answers every request with the same message and status OK.
#[derive(Debug, Clone)]
struct Leaf {
    frame: Bytes,
    trailers: HeaderMap,
}

/// All cases of the family.
pub(super) fn cases() -> Result<Vec<Case>> {
    Ok(vec![leaf()?, stack()?])
}

fn leaf() -> Result<Case> {
    let leaf = Leaf::new();
    let frame = EchoMessage::sample().framed();
    let endpoint = loopback(1);
    case("leaf", move || {
        let answer = leaf.send(&endpoint, request(&frame).map(Body::new));
        async move { answer.await.map_err(|e| format!("the leaf failed: {e:?}").into()) }
    })
}

fn stack() -> Result<Case> {
    let frame = EchoMessage::sample().framed();
    let runtime = runtime()?;
    let (mesh, mut channel) = runtime.block_on(async { open() })?;
    runtime.block_on(drain(channel.call(request(&frame))))?;
    Ok(Case::new("stack over leaf", CALLS, move |calls| {
        let _open = &mesh;
        runtime.block_on(async {
            for _ in 0..calls {
                drain(channel.call(request(&frame))).await?;
            }
            Ok(())
        })
    }))
}

/// A case of one call after another.
fn case<F, A>(name: &str, mut call: F) -> Result<Case>
where
    F: FnMut() -> A + 'static,
    A: Future<Output = Result<Response<Body>>>,
{
    let runtime = runtime()?;
    Ok(Case::new(name, CALLS, move |calls| {
        runtime.block_on(async {
            for _ in 0..calls {
                drain(call()).await?;
            }
            Ok(())
        })
    }))
}

fn open() -> Result<(Mesh, MeshChannel)> {
    let source = StaticSource::from_text(CONFIG, Format::Yaml, Rules::default())?;
    let mesh = Mesh::builder(source)
        .event_sink(Metrics::new(Arc::new(WorkloadLabels::unknown())))
        .trace_sampling(PerMillion::new(10_000)?)
        .upstream(Arc::new(Leaf::new()))
        .build()?;
    let channel = mesh.channel(TARGET)?;
    Ok((mesh, channel))
}

fn request(frame: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(frame.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    let headers = request.headers_mut();
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// Reads a response to its end, and fails unless it is OK.
async fn drain<E>(response: impl Future<Output = Result<Response<Body>, E>>) -> Result<()>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = response.await.map_err(Into::into)?.into_body();
    let mut status = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the body failed: {e}"))?;
        if let Ok(trailers) = black_box(frame).into_trailers() {
            status = trailers.get("grpc-status").cloned();
        }
    }
    if status.is_none_or(|status| status != "0") {
        return Err("the call did not end with status 0".into());
    }
    Ok(())
}

// === impl Leaf ===

impl Leaf {
    fn new() -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Self { frame: EchoMessage::sample().framed(), trailers }
    }
}

impl Upstream for Leaf {
    fn send(&self, _endpoint: &Address, request: Request<Body>) -> UpstreamFuture {
        let trailers = std::future::ready(Some(Ok(self.trailers.clone())));
        let body = Full::new(self.frame.clone()).with_trailers(trailers);
        drop(request);
        let mut response = Response::new(Body::new(body));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
        Box::pin(std::future::ready(Ok(response)))
    }
}
