//! Randomness, always passed in: decisions stay pure, and tests replay a seed.

/// A source of random numbers.
pub trait Rng {
    /// The next 64 random bits.
    fn next_u64(&mut self) -> u64;

    /// A number in `[0, bound)`, without modulo bias worth noticing; 0 for a bound of 0.
    fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the high half of a 128-bit product is uniform over the bound.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl<R: Rng + ?Sized> Rng for &mut R {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

/// xoshiro256++ 1.0: small, fast, seedable. Not for secrets.
#[derive(Debug, Clone)]
pub struct Xoshiro {
    state: [u64; 4],
}

// === impl Xoshiro ===

impl Xoshiro {
    /// The generator of this seed; equal seeds give equal sequences.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        // SplitMix64 spreads a poor seed over the whole state, as the authors of xoshiro advise.
        let mut z = seed;
        let mut next = || {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }
}

impl Rng for Xoshiro {
    fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c2 = c ^ a;
        let d2 = d ^ b;
        self.state = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_sequences_and_others_do_not() {
        let draw = |seed| {
            let mut rng = Xoshiro::seeded(seed);
            (0..8).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Xoshiro::seeded(1);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&rng.unit())));
    }
}
