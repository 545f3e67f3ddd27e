//! Which endpoint takes an attempt.
//!
//! Place in the stack: per attempt, below `breaker`, above `outlier`. The decision is `mesh_core::lb`'s, over the
//! picker that the cluster's runtime published last; an attempt that finds no endpoint READY yet waits for the next
//! picker within its deadline. One that finds all of them failed tries one of those that may be back, rather than to fail
//! because of a back-off: replicas that restart one after the other lose no call. On drop: nothing is held while waiting. On config change: a pick may be newer than the
//! pinned snapshot in endpoints, never in anything else.

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;

use mesh_core::error::{Reason, Rejection};
use mesh_core::lb::{EndpointIx, Pick};
use mesh_core::outcome::Outcome;
use mesh_core::request::RequestKind;

use super::pin::PinnedCluster;
use super::request::{Attempt, AttemptError, AttemptStage, Picked, PickedStage};
use super::service::Service;
use crate::runtime::cluster::{EndpointSlot, Table};
use crate::runtime::rng::ThreadRng;

/// The layer.
#[derive(Debug)]
pub(crate) struct Balance<S> {
    inner: S,
}

impl<S> Balance<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Service<PickedStage>> Service<AttemptStage> for Balance<S> {
    async fn call<'c>(&'c self, attempt: Attempt<'c>) -> Result<Outcome, AttemptError> {
        let Attempt { exchange, kind, cluster, facts, held } = attempt;
        let first = pick(cluster, kind, &cluster.runtime.table(), true);
        let EndpointSlot { runtime, extra } = match first {
            Some(picked) => picked?,
            // Boxed, because most attempts find an endpoint at once.
            None => Box::pin(wait(cluster, kind)).await?,
        };
        facts.extra = extra;
        let endpoint = facts.upstream.insert(runtime);
        self.inner.call(Picked { exchange, kind, cluster, endpoint, held }).await
    }
}

/// One pick; none if there is nothing to pick yet.
fn pick(
    cluster: &PinnedCluster,
    kind: RequestKind,
    table: &Table,
    first: bool,
) -> Option<Result<EndpointSlot, Rejection>> {
    let loads = |ix: EndpointIx| table.endpoints.get(ix.get()).map_or(u32::MAX, |e| e.runtime.in_flight());
    let pick = if first {
        table.picker.pick(&mut ThreadRng, &loads)
    } else {
        table.picker.repick(&mut ThreadRng, &loads)
    };
    match pick {
        Pick::Endpoint(ix) => table.endpoints.get(ix.get()).cloned().map(Ok),
        Pick::Queue => None,
        Pick::Drop(category) => {
            let what = format!("cluster {:?}, category {category:?}", cluster.config.name);
            Some(Err(Rejection::new(Reason::Dropped).with_detail(what)))
        }
        Pick::Fail(reason) => {
            let last_resort = (reason == Reason::ConnectFailed).then(|| last_resort(cluster, kind, table));
            Some(last_resort.flatten().ok_or_else(|| refusal(cluster, reason)))
        }
    }
}

/// An endpoint that could not be reached, and may be by now.
#[cold]
fn last_resort(cluster: &PinnedCluster, kind: RequestKind, table: &Table) -> Option<EndpointSlot> {
    let key = cluster.keys.of(kind);
    let mut unreachable =
        table.picker.unreachable(&mut ThreadRng).filter_map(|ix| table.endpoints.get(ix.get()));
    unreachable.find(|endpoint| endpoint.runtime.may_be_back(key)).cloned()
}

/// Waits until an endpoint may be picked, or until there is nothing to wait for.
async fn wait(cluster: &PinnedCluster, kind: RequestKind) -> Result<EndpointSlot, Rejection> {
    let runtime = &cluster.runtime;
    runtime.activate(kind);
    loop {
        let mut published = pin!(runtime.published().notified());
        // Registered before looking, so that a picker published in between is not missed.
        published.as_mut().enable();
        if let Some(picked) = pick(cluster, kind, &runtime.table(), false) {
            return picked;
        }
        published.await;
    }
}

fn refusal(cluster: &PinnedCluster, reason: Reason) -> Rejection {
    let name = &cluster.config.name;
    let rejection = Rejection::new(reason);
    if let Some(error) = cluster.runtime.last_error() {
        return rejection.with_detail(format!("cluster {name:?}: {error}")).with_source(Arc::new(error));
    }
    match &cluster.note {
        Some(note) => rejection.with_detail(format!("cluster {name:?}: {note}")),
        None => rejection.with_detail(format!("cluster {name:?}")),
    }
}
