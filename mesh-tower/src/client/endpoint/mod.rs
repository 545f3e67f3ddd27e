//! One attempt over one connection of one endpoint.
//!
//! Place in the stack: the leaf, below `outlier`. A free stream is taken where there is one; where the attempt would
//! wait for a connection or a stream, it takes one of the cluster's `max_pending_requests` first (Envoy's pending
//! queue). On drop: the request is cancelled, the place in flight returned. On config change: the connections of
//! another TLS context are never used, the key is the pinned one's.

mod future;
mod refusal;

use std::future::Future;

use mesh_core::breaker::Overloaded;
use mesh_core::error::Rejection;

use self::future::ResponseFuture;
use self::refusal::connect_failed;
use super::breaker;
use super::pin::PinnedCluster;
use super::request::{AttemptError, Picked, PickedStage, Reply};
use super::service::Service;
use crate::runtime::endpoint::Link;
use crate::transport::connect::ConnectionKey;
use crate::transport::pool::{EndpointPool, Lease, TryAcquire};

/// The leaf of the stack.
#[derive(Debug, Default)]
pub(crate) struct Endpoint;

impl Service<PickedStage> for Endpoint {
    fn call<'c>(
        &'c self,
        picked: Picked<'c>,
    ) -> impl Future<Output = Result<Reply, AttemptError>> + Send + 'c {
        let Picked { request, kind, cluster, endpoint } = picked;
        let in_flight = endpoint.begin();
        let pool = match endpoint.link() {
            Link::Pool(pool) => pool,
            Link::InProcess(upstream) => {
                return ResponseFuture::in_process(upstream.send(endpoint.address(), request), in_flight);
            }
        };
        let key = cluster.keys.of(kind);
        match pool.try_acquire(key) {
            TryAcquire::Ready(lease) => ResponseFuture::sending(lease, request, in_flight),
            TryAcquire::Failed(error) => ResponseFuture::refused(connect_failed(cluster, &error), request),
            TryAcquire::WouldWait => match cluster.runtime.permits().pending(&cluster.config.limits) {
                Ok(permit) => {
                    let endpoint = endpoint.clone();
                    let wait = Box::pin(async move {
                        let _permit = permit;
                        match endpoint.link() {
                            Link::Pool(pool) => acquire(pool, key, cluster).await,
                            // The link of an endpoint never changes.
                            Link::InProcess(_) => {
                                Err(Rejection::new(mesh_core::error::Reason::ConnectFailed))
                            }
                        }
                    });
                    ResponseFuture::waiting(wait, request, in_flight)
                }
                Err(overloaded) => ResponseFuture::refused(refusal(cluster, overloaded), request),
            },
        }
    }
}

async fn acquire(
    pool: &EndpointPool,
    key: &ConnectionKey,
    cluster: &PinnedCluster,
) -> Result<Lease, Rejection> {
    pool.acquire(key).await.map_err(|error| connect_failed(cluster, &error))
}

fn refusal(cluster: &PinnedCluster, overloaded: Overloaded) -> Rejection {
    breaker::refusal(&cluster.config.name, overloaded)
}
