//! Localities and their shares: `wrr_locality` (gRFC A52), Envoy's `locality_weighted_lb_config`.
//!
//! A locality's share is its weight among the localities with a READY endpoint, however many those have. Where
//! localities are not weighted, all endpoints of the priority form one group.

use std::num::NonZeroU32;

use super::round_robin::Cursor;
use super::weighted::Weighted;
use super::{EndpointIx, Loads, least_request, random};
use crate::config::cluster::{ClusterConfig, LbPolicy};
use crate::config::endpoints::{HealthStatus, PriorityConfig};
use crate::rng::Rng;

/// The READY endpoints of a priority, by locality.
#[derive(Debug)]
pub(super) struct Groups {
    policy: LbPolicy,
    shares: Weighted,
    cursor: Cursor,
    groups: Box<[Group]>,
}

/// The READY endpoints of one locality.
#[derive(Debug)]
struct Group {
    members: Box<[EndpointIx]>,
    weights: Weighted,
    cursor: Cursor,
}

impl Groups {
    /// Groups the endpoints that may be picked; none if there is none. `first` is the position of the first endpoint.
    pub(super) fn build(
        cluster: &ClusterConfig,
        level: &PriorityConfig,
        first: u32,
        usable: impl Fn(EndpointIx, HealthStatus) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Self> {
        let (mut groups, mut shares) = (Vec::new(), Vec::new());
        let mut position = first;
        let (mut members, mut weights) = (Vec::new(), Vec::new());
        for locality in &level.localities {
            for endpoint in &locality.endpoints {
                let ix = EndpointIx(position);
                position += 1;
                if usable(ix, endpoint.health) {
                    members.push(ix);
                    weights.push(endpoint.weight);
                }
            }
            if cluster.locality_weighted {
                if let Some(group) = Group::build(&members, &weights, rng) {
                    groups.push(group);
                    shares.push(locality.weight);
                }
                members.clear();
                weights.clear();
            }
        }
        if let Some(group) = Group::build(&members, &weights, rng) {
            groups.push(group);
            shares.push(NonZeroU32::MIN);
        }
        let shares = Weighted::new(&shares)?;
        let cursor = Cursor::new(&shares, rng);
        Some(Self { policy: cluster.lb, shares, cursor, groups: groups.into_boxed_slice() })
    }

    /// An endpoint. Always one: a group is never empty.
    pub(super) fn pick(&self, rng: &mut impl Rng, loads: &impl Loads) -> Option<EndpointIx> {
        let group = match (&*self.groups, self.policy) {
            ([only], _) => only,
            (groups, LbPolicy::RoundRobin) => groups.get(self.cursor.next(&self.shares))?,
            (groups, LbPolicy::Random | LbPolicy::LeastRequest { .. }) => {
                groups.get(random::pick(&self.shares, rng))?
            }
        };
        let Group { members, weights, cursor } = group;
        match self.policy {
            LbPolicy::RoundRobin => members.get(cursor.next(weights)).copied(),
            LbPolicy::Random => members.get(random::pick(weights, rng)).copied(),
            LbPolicy::LeastRequest { choices } => least_request::pick(members, weights, choices, rng, loads),
        }
    }

    /// How many endpoints there are.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }
}

impl Group {
    fn build(members: &[EndpointIx], weights: &[NonZeroU32], rng: &mut impl Rng) -> Option<Self> {
        let weights = Weighted::new(weights)?;
        let cursor = Cursor::new(&weights, rng);
        Some(Self { members: members.into(), weights, cursor })
    }
}
