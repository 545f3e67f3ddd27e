//! What the control plane is told: which processes there are, and how traffic is to flow. Sent whole on every change.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The wanted state of the mesh.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Every process that serves.
    pub(crate) replicas: Vec<Replica>,
    /// Weights of reviews v1, v2 and v3.
    pub(crate) reviews: [u32; 3],
}

/// A process that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) service: Service,
    /// Version of reviews; 1 for all others.
    pub(crate) version: u32,
    pub(crate) at: SocketAddr,
}

/// A service of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

// === impl Service ===

impl Service {
    /// Its name: of the process, of its identity, of the target that callers open.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        }
    }

    /// Its identity.
    pub(crate) fn spiffe(self) -> String {
        spiffe(self.name())
    }

    /// The only caller that policy lets in, and the one that the tour plays itself.
    pub(crate) fn callers(self) -> Vec<String> {
        match self {
            Self::Productpage => Vec::new(), // the edge: open to browsers
            Self::Details => vec![Self::Productpage.spiffe(), spiffe(TOUR)],
            Self::Reviews => vec![Self::Productpage.spiffe()],
            Self::Ratings => vec![Self::Reviews.spiffe()],
        }
    }
}

/// The identity of the tour itself, as a caller.
pub(crate) const TOUR: &str = "tour";

/// The identity of an account of the demo.
pub(crate) fn spiffe(account: &str) -> String {
    format!("spiffe://bookinfo/ns/default/sa/{account}")
}
