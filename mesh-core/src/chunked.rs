//! A list whose copies share what they have in common: changing one entry of a copy costs one chunk and its ancestors.
//!
//! What a large mesh needs of a snapshot: it is immutable and complete, and the next one, which differs in one cluster
//! of ten thousand, is made, compared and dropped by touching some dozens of pointers. That number is what counts: each
//! of them is a line of memory that nobody has looked at since the last change.
//!
//! The shape follows from the length alone (every node is full but the last of its level), so two lists are equal
//! wherever their nodes are the same allocation.

use std::fmt;
use std::iter::{self, FusedIterator};
use std::ops::{Index, Range};
use std::slice;
use std::sync::Arc;

/// Entries of a chunk, and children of a branch: four levels for 10,000 entries.
const WIDTH: usize = 1 << BITS;
const BITS: usize = 4;

/// A list of entries in shared chunks.
pub struct Chunked<T> {
    root: Node<T>,
    /// Levels of branches above the chunks.
    height: usize,
    len: usize,
}

enum Node<T> {
    Chunk(Arc<[T]>),
    Branch(Arc<[Self]>),
}

/// Iterates over a [`Chunked`] in order.
#[derive(Debug)]
pub struct Iter<'a, T> {
    list: &'a Chunked<T>,
    /// What is left of the chunk that was entered last.
    chunk: slice::Iter<'a, T>,
    /// The first position of the chunk after it.
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
        // Behind the end the digits of a position would mean another one.
        if position >= self.len {
            return None;
        }
        match self.node(0, position / WIDTH)? {
            Node::Chunk(chunk) => chunk.get(position % WIDTH),
            Node::Branch(_) => None,
        }
    }

    /// Every entry, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { list: self, chunk: [].iter(), next: 0 }
    }

    /// A list of these entries that shares each chunk of `before` whose entries are all the same, as `is_same` says.
    pub fn sharing(
        before: &Self,
        entries: impl IntoIterator<Item = T>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let mut nodes = Vec::new();
        let mut len = 0;
        for chunk in chunks(entries.into_iter()) {
            len += chunk.len();
            let known = before.node(0, nodes.len()).filter(|known| match known {
                Node::Chunk(known) => {
                    known.len() == chunk.len() && known.iter().zip(&*chunk).all(|(a, b)| is_same(a, b))
                }
                Node::Branch(_) => false,
            });
            nodes.push(known.cloned().unwrap_or(Node::Chunk(chunk)));
        }
        Self::over(before, nodes, len)
    }

    /// Whether both have the same entries, as `is_same` says of those that are not in a shared chunk.
    pub fn is_same(&self, other: &Self, is_same: impl Fn(&T, &T) -> bool) -> bool {
        self.len == other.len && self.root.is_same(&other.root, &is_same)
    }

    /// The positions that are not in a chunk shared with `other`: all at which the two can differ.
    #[must_use]
    pub fn unshared(&self, other: &Self) -> Vec<usize> {
        let mut positions = Vec::new();
        self.add_unshared(other, (self.height, 0), &mut positions);
        positions
    }

    fn add_unshared(&self, other: &Self, (level, nth): (usize, usize), positions: &mut Vec<usize>) {
        let Some(node) = self.node(level, nth) else { return };
        if other.node(level, nth).is_some_and(|other| other.is_shared(node)) {
            return;
        }
        match node {
            Node::Chunk(chunk) => positions.extend((nth * WIDTH..).take(chunk.len())),
            Node::Branch(children) => {
                for child in (nth * WIDTH..).take(children.len()) {
                    self.add_unshared(other, (level - 1, child), positions);
                }
            }
        }
    }

    /// The node with this number among those of a level; chunks are level 0.
    fn node(&self, level: usize, nth: usize) -> Option<&Node<T>> {
        let steps = self.height.checked_sub(level)?;
        let mut node = (nth >> (BITS * steps) == 0).then_some(&self.root)?;
        for step in (0..steps).rev() {
            let Node::Branch(children) = node else { return None };
            node = children.get((nth >> (BITS * step)) % WIDTH)?;
        }
        Some(node)
    }

    /// The list of these chunks. Branches of `before` are shared where they have the same children.
    fn over(before: &Self, mut nodes: Vec<Node<T>>, len: usize) -> Self {
        let mut height = 0;
        while nodes.len() > 1 {
            height += 1;
            let mut below = nodes.into_iter();
            nodes = Vec::with_capacity(below.len().div_ceil(WIDTH));
            while below.len() > 0 {
                let branch = Node::Branch(below.by_ref().take(WIDTH).collect());
                let known = before.node(height, nodes.len()).filter(|known| known.has_children_of(&branch));
                nodes.push(known.cloned().unwrap_or(branch));
            }
        }
        Self { root: nodes.pop().unwrap_or_default(), height, len }
    }
}

impl<T: Clone> Chunked<T> {
    /// Replaces the entry at a position; what other copies share stays as it is for them. False where there is none.
    pub fn set(&mut self, position: usize, entry: T) -> bool {
        if position >= self.len {
            return false;
        }
        let mut node = &mut self.root;
        for level in (0..=self.height).rev() {
            let digit = (position >> (BITS * level)) % WIDTH;
            match node {
                Node::Branch(children) => match Arc::make_mut(children).get_mut(digit) {
                    Some(child) => node = child,
                    None => return false,
                },
                Node::Chunk(chunk) => {
                    return Arc::make_mut(chunk).get_mut(digit).map(|place| *place = entry).is_some();
                }
            }
        }
        false
    }

    /// Replaces the entries at `places` by others, however many. What comes before stays shared; what comes after does
    /// too where the positions do not shift.
    pub fn splice(&mut self, places: Range<usize>, entries: Vec<T>) {
        let start = places.start.min(self.len);
        let places = start..places.end.clamp(start, self.len);
        if entries.len() == places.len() {
            for (position, entry) in places.zip(entries) {
                self.set(position, entry);
            }
            return;
        }
        let len = self.len - places.len() + entries.len();
        let full = places.start / WIDTH;
        let head = (full * WIDTH..places.start).filter_map(|position| self.get(position)).cloned();
        let tail = (places.end..self.len).filter_map(|position| self.get(position)).cloned();
        let rest = chunks(head.chain(entries).chain(tail)).map(Node::Chunk);
        let nodes = (0..full).filter_map(|nth| self.node(0, nth)).cloned().chain(rest).collect();
        *self = Self::over(self, nodes, len);
    }
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        let Self { root, height, len } = self;
        Self { root: root.clone(), height: *height, len: *len }
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { root: Node::default(), height: 0, len: 0 }
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
        let len = self.len;
        match self.get(position) {
            Some(entry) => entry,
            None => panic!("position {position} of a list of {len}"),
        }
    }
}

/// The entries in chunks, of which all but the last are full.
fn chunks<T>(mut entries: impl Iterator<Item = T>) -> impl Iterator<Item = Arc<[T]>> {
    iter::from_fn(move || {
        let chunk: Arc<[T]> = entries.by_ref().take(WIDTH).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

// === impl Node ===

impl<T> Node<T> {
    /// Whether both are the same allocation.
    fn is_shared(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Chunk(a), Self::Chunk(b)) => Arc::ptr_eq(a, b),
            (Self::Branch(a), Self::Branch(b)) => Arc::ptr_eq(a, b),
            (Self::Chunk(_), Self::Branch(_)) | (Self::Branch(_), Self::Chunk(_)) => false,
        }
    }

    fn is_same(&self, other: &Self, is_same: &impl Fn(&T, &T) -> bool) -> bool {
        self.is_shared(other)
            || match (self, other) {
                (Self::Chunk(a), Self::Chunk(b)) => a.iter().zip(&**b).all(|(a, b)| is_same(a, b)),
                (Self::Branch(a), Self::Branch(b)) => a.iter().zip(&**b).all(|(a, b)| a.is_same(b, is_same)),
                (Self::Chunk(_), Self::Branch(_)) | (Self::Branch(_), Self::Chunk(_)) => false,
            }
    }

    fn has_children_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Branch(a), Self::Branch(b)) => {
                a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| a.is_shared(b))
            }
            (Self::Chunk(_), _) | (_, Self::Chunk(_)) => false,
        }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Chunk(chunk) => Self::Chunk(chunk.clone()),
            Self::Branch(children) => Self::Branch(children.clone()),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self::Chunk(Arc::new([]))
    }
}

// === impl Iter ===

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if let Some(entry) = self.chunk.next() {
            return Some(entry);
        }
        let rest = (self.next < self.list.len).then(|| self.list.node(0, self.next / WIDTH));
        let Some(Some(Node::Chunk(chunk))) = rest else { return None };
        self.chunk = chunk.iter();
        self.next += chunk.len();
        self.chunk.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len - self.next + self.chunk.len();
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
                    let unshared = a.unshared(b);
                    for at in (0..plain_a.len()).filter(|at| plain_a.get(*at) != plain_b.get(*at)) {
                        prop_assert!(unshared.contains(&at), "a difference is never in a shared chunk");
                    }
                }
            }
        }
    }

    /// Around each length at which the shape gets another level.
    const LENGTHS: [usize; 11] = [0, 1, 15, 16, 17, 255, 256, 257, 4_095, 4_096, 4_097];

    #[test]
    fn lists_of_any_height_follow_from_lists_of_any_other() {
        for before in LENGTHS {
            let old: Chunked<usize> = (0..before).collect();
            assert_eq!(
                old.splice_all(before / 2..before / 3, &[]),
                (0..before).collect::<Vec<_>>(),
                "reversed"
            );
            for after in LENGTHS {
                let new = Chunked::sharing(&old, 0..after, PartialEq::eq);
                let common = before.min(after) / WIDTH * WIDTH;
                let own = if before == after { after..after } else { common..after };
                assert_eq!(new.unshared(&old), own.collect::<Vec<_>>(), "{after} after {before}");
                assert!(new.iter().copied().eq(0..after) && new.iter().len() == after);
                assert_eq!(new.is_same(&old, PartialEq::eq), before == after);

                let grown = old.splice_all(before / 2..before, &vec![7; after]);
                let expected: Vec<_> = (0..before / 2).chain(iter::repeat_n(7, after)).collect();
                assert_eq!(grown, expected, "{after} entries in the place of half of {before}");
            }
        }
    }

    impl Chunked<usize> {
        fn splice_all(&self, places: Range<usize>, entries: &[usize]) -> Vec<usize> {
            let mut list = self.clone();
            list.splice(places, entries.to_vec());
            assert_eq!(list.get(list.len()), None);
            (0..list.len()).filter_map(|position| list.get(position)).copied().collect()
        }
    }

    #[test]
    fn a_change_of_one_entry_copies_one_chunk() {
        let before: Chunked<Arc<usize>> = (0..10_000).map(Arc::new).collect();
        let mut after = before.clone();
        assert!(after.set(5_000, Arc::new(0)));
        assert!(after.set(5_001, Arc::new(1)));
        assert_eq!(after.unshared(&before), (4_992..5_008).collect::<Vec<_>>());
        assert_eq!((*before[5_000], *after[5_000]), (5_000, 0));
    }

    #[test]
    fn a_rebuild_of_equal_entries_shares_every_chunk() {
        let before: Chunked<usize> = (0..1_000).collect();
        let after = Chunked::sharing(&before, 0..1_001, PartialEq::eq);
        assert_eq!(after.unshared(&before), (992..1_001).collect::<Vec<_>>());
    }
}
