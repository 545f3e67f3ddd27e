//! The mutations of the fuzz targets (`tests/fuzz`) under an ordinary test: fewer, seeded, on every run.

use mesh_core::rng::{Rng, Xoshiro};

use super::seeds::seeds;
use super::wire::{Choose, mutate};
use super::*;

/// Mutations of each seed; a fuzz target makes that many in a fraction of a second.
const ROUNDS: u64 = 1_500;

struct Seeded(Xoshiro);

impl Choose for Seeded {
    fn below(&mut self, bound: usize) -> usize {
        if bound < 2 { 0 } else { self.0.below(bound as u64) as usize }
    }
}

#[test]
fn every_seed_is_valid() {
    for (kind, yaml) in seeds() {
        accepted(kind, &yaml);
    }
}

#[test]
fn mutated_resources_are_judged_without_a_panic_and_alike_each_time() {
    let (mut accepted, mut refused) = (0, 0);
    for (kind, yaml) in seeds() {
        let EncodedResource { type_url, value, .. } = encoded(kind, &yaml);
        for seed in 0..ROUNDS {
            let bytes = mutate(value.clone(), &mut Seeded(Xoshiro::seeded(seed)));
            let judge = || decode(kind, &type_url, &bytes, &rules());
            let first = judge();
            assert_eq!(first, judge(), "seed {seed} of a {kind}");
            match first.verdict {
                Ok(found) => {
                    accepted += 1;
                    assert!(first.name.is_some() && found.resource.kind() == kind);
                }
                Err(invalid) => {
                    refused += 1;
                    assert!(!invalid.to_string().is_empty(), "seed {seed} of a {kind}");
                }
            }
        }
    }
    // Mutations that only ever break the decoder, or nothing, would test nothing.
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}
