//! Least request (gRFC A48, Envoy `LEAST_REQUEST`): the least loaded of a few drawn at random, with replacement.
//!
//! Draws are by weight, so the weights hold at equal loads. Of equally loaded draws the first wins, which is fair
//! because the order of draws is itself random.

use super::weighted::Weighted;
use super::{EndpointIx, Loads};
use crate::rng::Rng;

/// The least loaded of `choices` draws.
pub(super) fn pick(
    members: &[EndpointIx],
    weights: &Weighted,
    choices: u8,
    rng: &mut impl Rng,
    loads: &impl Loads,
) -> Option<EndpointIx> {
    let mut best = members.get(weights.draw(rng)).copied()?;
    if members.len() == 1 {
        return Some(best);
    }
    let mut least = loads.in_flight(best);
    for _ in 1..choices {
        let Some(other) = members.get(weights.draw(rng)).copied() else { continue };
        let load = loads.in_flight(other);
        if load < least {
            (best, least) = (other, load);
        }
    }
    Some(best)
}
