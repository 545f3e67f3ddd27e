//! Every attempt is reported once, however it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use mesh_core::config::endpoints::Address;
use mesh_core::testing::endpoints;
use tower::ServiceExt as _;

use crate::body::Body;
use crate::client::testing::{Answer, World, get, grpc, grpc_response, read, trailers_only};
use crate::runtime::endpoint::UpstreamFuture;

fn totals(world: &World) -> (u64, u64) {
    let cluster = world.mesh.runtime().clusters().remove(0);
    let table = cluster.table();
    table.endpoints[0].runtime.totals()
}

#[tokio::test(start_paused = true)]
async fn a_status_in_trailers_counts_and_a_call_that_is_given_up_does_not() {
    let next = Arc::new(AtomicUsize::new(0));
    let which = next.clone();
    let world = World::over(Answer(move |_: &Address, _: Request<Body>| -> UpstreamFuture {
        let response = match which.load(Ordering::SeqCst) {
            0 => grpc_response("0"),
            1 => grpc_response("13"),
            2 => trailers_only("14"),
            _ => Response::builder().status(503).body(Body::full("no")).unwrap(),
        };
        Box::pin(std::future::ready(Ok(response)))
    }));
    world.publish_endpoints(endpoints([1]));
    let channel = world.channel();
    for (n, request, expected) in [
        (0, grpc("/s/m"), (1, 0)),
        (1, grpc("/s/m"), (1, 1)),
        (2, grpc("/s/m"), (1, 2)),
        (3, get("/"), (1, 3)),
    ] {
        next.store(n, Ordering::SeqCst);
        read(channel.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(totals(&world), expected, "response {n}");
    }
    next.store(0, Ordering::SeqCst);
    drop(channel.oneshot(grpc("/s/m")).await.unwrap());
    assert_eq!(totals(&world), (1, 3), "the body was not read to its end");
}
