//! The randomness of the data path: one generator per thread, seeded by the standard library's random hasher keys.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use mesh_core::rng::{Rng, Xoshiro};

/// The generator of this thread.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ThreadRng;

thread_local! {
    static GENERATOR: RefCell<Xoshiro> = RefCell::new(Xoshiro::seeded(RandomState::new().build_hasher().finish()));
}

impl Rng for ThreadRng {
    fn next_u64(&mut self) -> u64 {
        GENERATOR.with_borrow_mut(Rng::next_u64)
    }
}
