//! Routes of one virtual host by path: which routes are candidates for a path, in one pass over it.
//!
//! Exact paths are one hash lookup. A few prefixes are compared one by one. Many are found by one rolling hash over the
//! path, looked up at each length that some prefix has: a bit filter answers nearly all of those look-ups, so that nested
//! prefixes of many lengths cost little more than those of one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use foldhash::fast::FixedState;

use crate::config::route::Route;
use crate::matcher::path::PathMatcher;
use crate::matcher::string::Text;

/// Position of a route in its virtual host.
pub(super) type RouteIx = u32;

/// The routes of one virtual host.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    sensitive: CaseIndex,
    /// Texts in lower case, for paths in lower case; none for the usual host without such routes.
    insensitive: Option<Box<CaseIndex>>,
    /// Routes that no text identifies (regexes), in order.
    scan: Vec<RouteIx>,
}

/// Exact paths and prefixes that compare alike.
#[derive(Debug, Default)]
struct CaseIndex {
    exact: HashMap<Box<str>, Vec<RouteIx>, FixedState>,
    prefixes: PrefixIndex,
}

/// Prefixes: compared one by one, or by rolling hash. One of both is empty.
#[derive(Debug, Default)]
struct PrefixIndex {
    /// By length.
    few: Vec<Prefix>,
    many: HashedPrefixes,
}

/// Prefixes by rolling hash.
#[derive(Debug, Default)]
struct HashedPrefixes {
    /// Distinct lengths, ascending.
    lengths: Vec<usize>,
    /// One bit per value of the low bits of a hash that some prefix has.
    filter: Vec<u64>,
    buckets: HashMap<u64, Vec<Prefix>, BuildHasherDefault<AlreadyHashed>>,
}

/// One prefix and the routes that have it.
#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// Of the text; none matters where it is empty.
    last: u8,
    plain: Vec<RouteIx>,
    /// Routes by `path_separated_prefix`: the next byte is `/`, or there is none.
    separated: Vec<RouteIx>,
}

/// Takes a `u64` that is a hash already.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

// === impl PathIndex ===

impl PathIndex {
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (ix, route) in (0..).zip(routes) {
            match &route.matches.path {
                PathMatcher::Exact(text) => {
                    index.side(text).exact.entry(text.value().into()).or_default().push(ix);
                }
                PathMatcher::Prefix(text) => index.side(text).prefixes.bucket(text.value()).plain.push(ix),
                PathMatcher::SeparatedPrefix(text) => {
                    index.side(text).prefixes.bucket(text.value()).separated.push(ix);
                }
                PathMatcher::Regex(_) => index.scan.push(ix),
            }
        }
        index.sensitive.prefixes.seal();
        if let Some(side) = &mut index.insensitive {
            side.prefixes.seal();
        }
        index
    }

    /// Calls `visit` with lists of candidates, each ascending. A route of `scan` has yet to match by path.
    pub(super) fn candidates<'a>(&'a self, path: &str, mut visit: impl FnMut(&'a [RouteIx], PathKnown)) {
        self.sensitive.candidates(path, &mut |routes| visit(routes, PathKnown::Matches));
        if let Some(side) = &self.insensitive {
            side.candidates(&path.to_ascii_lowercase(), &mut |routes| visit(routes, PathKnown::Matches));
        }
        visit(&self.scan, PathKnown::Unknown);
    }

    fn side(&mut self, text: &Text) -> &mut CaseIndex {
        if text.ignores_case() { self.insensitive.get_or_insert_default() } else { &mut self.sensitive }
    }
}

/// Whether the path of a candidate is known to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKnown {
    /// It matches.
    Matches,
    /// The route's own matcher must be asked.
    Unknown,
}

// === impl CaseIndex ===

impl CaseIndex {
    fn candidates<'a>(&'a self, path: &str, visit: &mut impl FnMut(&'a [RouteIx])) {
        if !self.exact.is_empty()
            && let Some(routes) = self.exact.get(path)
        {
            visit(routes);
        }
        self.prefixes.candidates(path, visit);
    }
}

// === impl PrefixIndex ===

impl PrefixIndex {
    /// So many are compared faster than a path is hashed.
    const FEW: usize = 16;

    fn bucket(&mut self, text: &str) -> &mut Prefix {
        self.many.bucket(text)
    }

    /// Once every prefix is in.
    fn seal(&mut self) {
        if self.many.buckets.values().map(Vec::len).sum::<usize>() > Self::FEW {
            return self.many.seal();
        }
        self.few = std::mem::take(&mut self.many.buckets).into_values().flatten().collect();
        self.few.sort_unstable_by_key(|prefix| prefix.text.len());
    }

    fn candidates<'a>(&'a self, path: &str, visit: &mut impl FnMut(&'a [RouteIx])) {
        let path = path.as_bytes();
        for prefix in &self.few {
            let Some(head) = path.get(..prefix.text.len()) else { return };
            // Most differ in their last byte, which is at hand.
            if head.last().is_none_or(|last| *last == prefix.last) && head == prefix.text.as_bytes() {
                prefix.visit(path, visit);
            }
        }
        self.many.candidates(path, visit);
    }
}

// === impl Prefix ===

impl Prefix {
    /// For a path that begins with it.
    fn visit<'a>(&'a self, path: &[u8], visit: &mut impl FnMut(&'a [RouteIx])) {
        visit(&self.plain);
        if matches!(path.get(self.text.len()), None | Some(b'/')) {
            visit(&self.separated);
        }
    }
}

// === impl HashedPrefixes ===

impl HashedPrefixes {
    /// Bits of the filter per prefix: about 1 % of the look-ups that should fail pass it.
    const FILTER_BITS: usize = 64;

    fn bucket(&mut self, text: &str) -> &mut Prefix {
        let bucket = self.buckets.entry(text.bytes().fold(SEED, roll)).or_default();
        let at = bucket.iter().position(|p| &*p.text == text).unwrap_or_else(|| {
            let last = text.bytes().next_back().unwrap_or_default();
            bucket.push(Prefix { text: text.into(), last, plain: Vec::new(), separated: Vec::new() });
            bucket.len() - 1
        });
        &mut bucket[at]
    }

    /// Derives the lengths and the filter, once every prefix is in, and gives back the room for more.
    fn seal(&mut self) {
        for bucket in self.buckets.values_mut() {
            bucket.shrink_to_fit();
            for Prefix { text: _, last: _, plain, separated } in bucket {
                plain.shrink_to_fit();
                separated.shrink_to_fit();
            }
        }
        self.buckets.shrink_to_fit();
        let prefixes = self.buckets.values().flatten();
        self.lengths = prefixes.map(|p| p.text.len()).collect();
        let bits = (self.lengths.len() * Self::FILTER_BITS).next_power_of_two().max(64);
        self.lengths.sort_unstable();
        self.lengths.dedup();
        self.lengths.shrink_to_fit();
        self.filter = vec![0; bits / 64];
        for hash in self.buckets.keys() {
            let bit = *hash as usize & (bits - 1);
            self.filter[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn candidates<'a>(&'a self, path: &[u8], visit: &mut impl FnMut(&'a [RouteIx])) {
        let (mut hash, mut hashed) = (SEED, 0);
        for len in &self.lengths {
            let Some(next) = path.get(hashed..*len) else { break };
            hash = next.iter().copied().fold(hash, roll);
            hashed = *len;
            if self.may_hold(hash) {
                self.visit_bucket(hash, path, hashed, visit);
            }
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        let bit = hash as usize & (self.filter.len() * 64 - 1);
        self.filter.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    fn visit_bucket<'a>(&'a self, hash: u64, path: &[u8], len: usize, visit: &mut impl FnMut(&'a [RouteIx])) {
        let Some(bucket) = self.buckets.get(&hash) else { return };
        for prefix in bucket.iter().filter(|p| path.get(..len) == Some(p.text.as_bytes())) {
            prefix.visit(path, visit);
        }
    }
}

// === impl AlreadyHashed ===

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only `u64` keys are used; anything else still hashes to something stable.
        self.0 = bytes.iter().copied().fold(self.0, roll);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Hash of the empty text.
const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;

/// The hash of a text with one more byte. The multiplication moves entropy up, the rotation brings it back down.
fn roll(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
