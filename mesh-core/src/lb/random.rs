//! Random by weight (Envoy `RANDOM`; gRPC's `random_experimental`).

use super::weighted::Weighted;
use crate::rng::Rng;

/// An entry at random, by weight.
pub(super) fn pick(weights: &Weighted, rng: &mut impl Rng) -> usize {
    weights.draw(rng)
}
