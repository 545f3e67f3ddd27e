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
use mesh_core::outcome::Outcome;

use self::future::{ResponseFuture, State};
use self::refusal::{connect_failed, unsent};
use super::breaker;
use super::pin::PinnedCluster;
use super::request::{AttemptError, Picked, PickedStage};
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
    ) -> impl Future<Output = Result<Outcome, AttemptError>> + Send + 'c {
        let Picked { exchange, kind, cluster, endpoint, held } = picked;
        held.in_flight = Some(endpoint.begin());
        let state = match endpoint.link() {
            Link::InProcess(upstream) => State::in_process(upstream.as_ref(), endpoint.address(), exchange),
            Link::Pool(pool) => lease(pool, cluster.keys.of(kind), cluster),
        };
        ResponseFuture::new(state, exchange, kind)
    }
}

/// A stream, or the wait for one, or why there is none.
fn lease<'c>(pool: &'c EndpointPool, key: &'c ConnectionKey, cluster: &'c PinnedCluster) -> State<'c> {
    match pool.try_acquire(key) {
        TryAcquire::Ready(lease) => State::Leased(Some(lease)),
        TryAcquire::Failed(error) => State::Refused(Some(unsent(connect_failed(cluster, error)))),
        TryAcquire::WouldWait => match cluster.runtime.permits().pending(&cluster.config.limits) {
            Ok(permit) => State::Waiting(Box::pin(async move {
                let _permit = permit;
                acquire(pool, key, cluster).await
            })),
            Err(overloaded) => State::Refused(Some(unsent(refusal(cluster, overloaded)))),
        },
    }
}

async fn acquire(
    pool: &EndpointPool,
    key: &ConnectionKey,
    cluster: &PinnedCluster,
) -> Result<Lease, Rejection> {
    pool.acquire(key).await.map_err(|error| connect_failed(cluster, error))
}

fn refusal(cluster: &PinnedCluster, overloaded: Overloaded) -> Rejection {
    breaker::refusal(&cluster.config.name, overloaded)
}
