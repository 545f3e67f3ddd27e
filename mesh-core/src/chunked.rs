//! A list whose copies share what they have in common: changing one entry of a copy costs one chunk and the spine.
//!
//! What a large mesh needs of a snapshot: it is immutable and complete, and the next one, which differs in one cluster
//! of ten thousand, is made, compared and dropped in the time of a few hundred pointers. A chunk is never shared by
//! halves, so two lists are equal wherever their chunks are the same allocation.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Index, Range};
use std::sync::Arc;

/// Entries in a chunk: a spine of 157 pointers for 10,000 entries.
const CHUNK: usize = 64;

/// A list of entries in shared chunks.
pub struct Chunked<T> {
    /// Every chunk but the last is full.
    spine: Arc<[Arc<[T]>]>,
    len: usize,
}

/// Iterates over a [`Chunked`] in order.
#[derive(Debug)]
pub struct Iter<'a, T> {
    list: &'a Chunked<T>,
    next: usize,
}

// === impl Chunked ===

impl<T> Chunked<T> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry at a position.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&T> {
        self.spine.get(position / CHUNK)?.get(position % CHUNK)
    }

    /// Every entry, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { list: self, next: 0 }
    }

    /// A list of these entries that shares each chunk of `before` whose entries are all the same, as `is_same` says.
    pub fn sharing(
        before: &Self,
        entries: impl IntoIterator<Item = T>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let mut entries = entries.into_iter();
        let mut spine: Vec<Arc<[T]>> = Vec::new();
        let mut len = 0;
        loop {
            let chunk: Arc<[T]> = entries.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Self { spine: spine.into(), len };
            }
            len += chunk.len();
            let known = before.spine.get(spine.len()).filter(|known| {
                known.len() == chunk.len() && known.iter().zip(&*chunk).all(|(a, b)| is_same(a, b))
            });
            spine.push(known.cloned().unwrap_or(chunk));
        }
    }

    /// Whether both have the same entries, as `is_same` says of those that are not in a shared chunk.
    pub fn is_same(&self, other: &Self, is_same: impl Fn(&T, &T) -> bool) -> bool {
        let same = |(a, b): (&Arc<[T]>, &Arc<[T]>)| {
            Arc::ptr_eq(a, b) || a.iter().zip(&**b).all(|(a, b)| is_same(a, b))
        };
        self.len == other.len
            && (Arc::ptr_eq(&self.spine, &other.spine) || self.spine.iter().zip(&*other.spine).all(same))
    }

    /// The positions that are not in a chunk shared with `other`: all at which the two can differ.
    pub fn unshared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = usize> + 'a {
        let chunks = self.spine.iter().enumerate();
        let own = chunks.filter(|(i, chunk)| other.spine.get(*i).is_none_or(|o| !Arc::ptr_eq(chunk, o)));
        own.flat_map(|(i, chunk)| i * CHUNK..i * CHUNK + chunk.len())
    }
}

impl<T: Clone> Chunked<T> {
    /// Replaces the entry at a position; what other copies share stays as it is for them. False where there is none.
    pub fn set(&mut self, position: usize, entry: T) -> bool {
        if position >= self.len {
            return false;
        }
        let spine = Arc::make_mut(&mut self.spine);
        let chunk = spine.get_mut(position / CHUNK).map(Arc::make_mut);
        match chunk.and_then(|chunk| chunk.get_mut(position % CHUNK)) {
            Some(place) => {
                *place = entry;
                true
            }
            None => false,
        }
    }
}

impl<T: Clone> Chunked<T> {
    /// Replaces the entries at `places` by others, however many. What comes before stays shared; what comes after does
    /// too where the positions do not shift.
    pub fn splice(&mut self, places: Range<usize>, entries: Vec<T>) {
        let places = places.start.min(self.len)..places.end.min(self.len);
        if entries.len() == places.len() {
            for (position, entry) in places.zip(entries) {
                self.set(position, entry);
            }
            return;
        }
        let full = places.start / CHUNK;
        let head = (full * CHUNK..places.start).filter_map(|position| self.get(position)).cloned();
        let tail = (places.end..self.len).filter_map(|position| self.get(position)).cloned();
        let rest: Self = head.chain(entries).chain(tail).collect();
        let spine = self.spine.iter().take(full).chain(&*rest.spine).cloned().collect();
        *self = Self { spine, len: full * CHUNK + rest.len };
    }
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        let Self { spine, len } = self;
        Self { spine: spine.clone(), len: *len }
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { spine: Arc::new([]), len: 0 }
    }
}

impl<T: fmt::Debug> fmt::Debug for Chunked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<T> FromIterator<T> for Chunked<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        Self::sharing(&Self::default(), entries, |_, _| false)
    }
}

impl<'a, T> IntoIterator for &'a Chunked<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Panics beyond the end, as a slice does.
impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    fn index(&self, position: usize) -> &T {
        &self.spine[position / CHUNK][position % CHUNK]
    }
}

// === impl Iter ===

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let entry = self.list.get(self.next)?;
        self.next += 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len - self.next;
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<T> FusedIterator for Iter<'_, T> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(usize, u8),
        Keep,
        Rebuild(usize, usize, u8),
        Splice(usize, usize, Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..300usize, any::<u8>()).prop_map(|(at, value)| Step::Set(at, value)),
            1 => Just(Step::Keep),
            1 => (0..300usize, 0..300usize, any::<u8>()).prop_map(|(len, at, value)| Step::Rebuild(len, at, value)),
            2 => (0..300usize, 0..100usize, prop::collection::vec(any::<u8>(), 0..100))
                .prop_map(|(from, count, entries)| Step::Splice(from, count, entries)),
        ]
    }

    proptest! {
        #[test]
        fn every_copy_holds_what_a_plain_list_would(
            first in prop::collection::vec(any::<u8>(), 0..300), steps in prop::collection::vec(step(), 0..40),
        ) {
            let mut list: Chunked<u8> = first.iter().copied().collect();
            let mut plain = first;
            let mut kept = vec![(list.clone(), plain.clone())];
            for step in steps {
                match step {
                    Step::Set(at, value) => {
                        prop_assert_eq!(list.set(at, value), at < plain.len());
                        if let Some(place) = plain.get_mut(at) {
                            *place = value;
                        }
                    }
                    Step::Splice(from, count, entries) => {
                        let places = from.min(plain.len())..(from + count).min(plain.len());
                        plain.splice(places.clone(), entries.clone());
                        list.splice(places, entries);
                    }
                    Step::Keep => kept.push((list.clone(), plain.clone())),
                    Step::Rebuild(len, at, value) => {
                        plain.resize(len, value);
                        if let Some(place) = plain.get_mut(at) {
                            *place = value;
                        }
                        list = Chunked::sharing(&list, plain.iter().copied(), PartialEq::eq);
                    }
                }
            }
            kept.push((list, plain));
            for (list, plain) in &kept {
                prop_assert_eq!(list.iter().copied().collect::<Vec<_>>(), plain.clone());
                prop_assert_eq!((list.len(), list.iter().len()), (plain.len(), plain.len()));
                prop_assert_eq!(list.get(plain.len()), None);
            }
            for (a, plain_a) in &kept {
                for (b, plain_b) in &kept {
                    prop_assert_eq!(a.is_same(b, PartialEq::eq), plain_a == plain_b);
                    let unshared: Vec<usize> = a.unshared(b).collect();
                    for at in (0..plain_a.len()).filter(|at| plain_a.get(*at) != plain_b.get(*at)) {
                        prop_assert!(unshared.contains(&at), "a difference is never in a shared chunk");
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_of_one_entry_copies_one_chunk() {
        let before: Chunked<Arc<usize>> = (0..10_000).map(Arc::new).collect();
        let mut after = before.clone();
        assert!(after.set(5_000, Arc::new(0)));
        assert!(after.set(5_001, Arc::new(1)));
        let unshared: Vec<usize> = after.unshared(&before).collect();
        assert_eq!(unshared, (4_992..5_056).collect::<Vec<_>>());
        assert_eq!((*before[5_000], *after[5_000]), (5_000, 0));
    }

    #[test]
    fn a_rebuild_of_equal_entries_shares_every_chunk() {
        let before: Chunked<usize> = (0..1_000).collect();
        let after = Chunked::sharing(&before, 0..1_001, PartialEq::eq);
        assert_eq!(after.unshared(&before).collect::<Vec<_>>(), (960..1_001).collect::<Vec<_>>());
    }
}
