//! What the control plane knows about each client: the answer to "who has which version, and who refused what?".

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::ads::Protocol;

use crate::ads::Kind;

/// One connected client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientStatus {
    /// Number of the stream, unique within the control plane.
    pub stream: u64,
    /// The variant of the protocol that it speaks.
    pub protocol: Protocol,
    /// `node.id` of its first request; empty before that.
    pub node_id: String,
    /// `node.cluster` of its first request.
    pub node_cluster: String,
    /// `node.user_agent_name` and version of its first request.
    pub user_agent: String,
    /// Its view, if it has one; it may be one without resources of its own.
    pub view: Option<Arc<str>>,
    /// Where it connected from.
    pub peer: Option<SocketAddr>,
    /// When its stream was opened.
    pub connected_since: Instant,
    /// How many responses it was sent.
    pub responses: u64,
    /// The kinds that it ever asked for.
    pub kinds: Vec<KindStatus>,
}

/// One client's view of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindStatus {
    /// The kind.
    pub kind: Kind,
    /// It wants everything.
    pub wildcard: bool,
    /// The names that it wants.
    pub names: Vec<Arc<str>>,
    /// The version last sent.
    pub sent: Option<u64>,
    /// The version last acknowledged.
    pub acked: Option<u64>,
    /// The last refusal, until a later version is acknowledged.
    pub nack: Option<Nack>,
    /// There is nothing left to send, and nothing sent is unanswered.
    pub settled: bool,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nack {
    /// The version refused.
    pub version: u64,
    /// The client's reason.
    pub message: String,
    /// When it came.
    pub at: Instant,
}

/// One resource at one client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its own version, as the incremental protocol tells it; empty where there is none.
    pub version: String,
    /// What became of it.
    pub state: ResourceState,
}

/// What became of a resource at a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceState {
    /// It is on its way.
    Sent,
    /// It was acknowledged.
    Acked,
    /// It came in a response that was refused. The refusal concerns the response: the reason names the resource.
    Refused,
    /// The client says that it has it from earlier; it is told again, or told that it is gone.
    Claimed,
    /// The client was told that it does not exist.
    Absent,
}

// === impl ClientStatus ===

impl ClientStatus {
    /// The client's view of a kind, if it asked for it.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> Option<&KindStatus> {
        self.kinds.iter().find(|status| status.kind == kind)
    }

    /// It asked for something, and has answered everything that there is for it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.kinds.is_empty() && self.kinds.iter().all(|kind| kind.settled)
    }

    /// The refusals in force.
    pub fn nacks(&self) -> impl Iterator<Item = (Kind, &Nack)> {
        self.kinds.iter().filter_map(|status| Some((status.kind, status.nack.as_ref()?)))
    }
}
