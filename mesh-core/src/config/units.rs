//! Units that cannot be wrong: a value that exists is in range.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::rng::Rng;

/// A number outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not within {min}..={max}")]
pub struct OutOfRange {
    /// What was given.
    pub value: u64,
    /// The least allowed.
    pub min: u64,
    /// The most allowed.
    pub max: u64,
}

/// A share in parts per million, 0..=1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(u32);

/// A share in percent, 0..=100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

/// A weight of at least 1.
pub type NonZeroWeight = NonZeroU32;

/// A ceiling for something counted. [`Limit::MAX`] is "no limit" for every practical purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(u32);

/// A duration that is zero or more, and no longer than 64 bits of nanoseconds hold (about 292 years), as in Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundedDuration(Duration);

// === impl PerMillion ===

impl PerMillion {
    /// Never.
    pub const ZERO: Self = Self(0);
    /// Always.
    pub const ALL: Self = Self(1_000_000);

    /// A share of `value` parts per million.
    ///
    /// # Errors
    /// When `value` is above 1,000,000.
    pub fn new(value: u32) -> Result<Self, OutOfRange> {
        if value <= 1_000_000 { Ok(Self(value)) } else { Err(range(value.into(), 0, 1_000_000)) }
    }

    /// `numerator / denominator`, capped at one as Envoy caps a fractional percent.
    #[must_use]
    pub fn from_ratio(numerator: u32, denominator: NonZeroU32) -> Self {
        let scaled = u64::from(numerator) * 1_000_000 / u64::from(denominator.get());
        Self(scaled.min(1_000_000) as u32)
    }

    /// The parts per million.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// One draw: true with this probability. No draw is made for 0 and 100 %.
    pub fn hit(self, rng: &mut impl Rng) -> bool {
        match self.0 {
            0 => false,
            1_000_000.. => true,
            // gRFC A28 leaves `<` or `<=` open; `<` makes 0 mean never.
            n => rng.below(1_000_000) < u64::from(n),
        }
    }
}

// === impl Percent ===

impl Percent {
    /// A share of `value` percent.
    ///
    /// # Errors
    /// When `value` is above 100.
    pub fn new(value: u32) -> Result<Self, OutOfRange> {
        if value <= 100 { Ok(Self(value as u8)) } else { Err(range(value.into(), 0, 100)) }
    }

    /// The percent.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.into()
    }
}

// === impl Limit ===

impl Limit {
    /// No limit in practice.
    pub const MAX: Self = Self(u32::MAX);

    /// At most `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The ceiling.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

// === impl BoundedDuration ===

impl BoundedDuration {
    /// The longest duration, in seconds. Protobuf allows about 10,000 years, which no clock can add to its time.
    pub(crate) const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;

    /// From the parts of a protobuf duration.
    ///
    /// # Errors
    /// When the parts are negative or longer than 292 years.
    pub fn from_parts(seconds: i64, nanos: i32) -> Result<Self, InvalidDuration> {
        match (u64::try_from(seconds), u32::try_from(nanos)) {
            (Ok(s), Ok(n)) if seconds <= Self::MAX_SECONDS && n < 1_000_000_000 => {
                Ok(Self(Duration::new(s, n)))
            }
            _ => Err(InvalidDuration { seconds, nanos }),
        }
    }

    /// The duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

/// A protobuf duration that is negative or out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("duration of {seconds} s and {nanos} ns is negative or out of range")]
pub struct InvalidDuration {
    seconds: i64,
    nanos: i32,
}

fn range(value: u64, min: u64, max: u64) -> OutOfRange {
    OutOfRange { value, min, max }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Xoshiro;

    #[test]
    fn a_share_is_hit_as_often_as_it_says() {
        let mut rng = Xoshiro::seeded(3);
        assert!((0..1_000).all(|_| !PerMillion::ZERO.hit(&mut rng) && PerMillion::ALL.hit(&mut rng)));
        let tenth = PerMillion::new(100_000).unwrap();
        let hits = (0..100_000).filter(|_| tenth.hit(&mut rng)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
    }

    #[test]
    fn ratios_are_scaled_and_capped() {
        let of = |n, d| PerMillion::from_ratio(n, NonZeroU32::new(d).unwrap()).get();
        assert_eq!(
            (of(1, 100), of(25, 10_000), of(7, 1_000_000), of(200, 100)),
            (10_000, 2_500, 7, 1_000_000)
        );
        assert!(PerMillion::new(1_000_001).is_err());
        assert_eq!(Percent::new(101).unwrap_err().to_string(), "101 is not within 0..=100");
    }

    #[test]
    fn durations_that_no_clock_can_add_are_refused() {
        assert_eq!(BoundedDuration::from_parts(1, 5).unwrap().get(), Duration::new(1, 5));
        assert!(BoundedDuration::from_parts(9_223_372_036, 0).is_ok());
        for (s, n) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (BoundedDuration::MAX_SECONDS + 1, 0),
            (315_576_000_000, 0),
            (i64::MAX, 0),
        ] {
            assert!(BoundedDuration::from_parts(s, n).is_err());
        }
    }
}
