//! One bit for each of the last streams of a connection.

use std::collections::VecDeque;

/// How many of the last streams are remembered.
const STREAMS: u32 = 4096;

/// How many marks of older streams are remembered. They are few: a stream that outlives so many others.
const OLDER: usize = 256;

/// A set of stream identifiers. Of a stream that is as old as [`STREAMS`] others, a mark from before is forgotten: nothing
/// is known of it, rather than what is known of a younger one.
#[derive(Debug)]
pub(super) struct Marks {
    recent: Box<[u64; STREAMS as usize / 64]>,
    /// The last stream that was opened.
    newest: u32,
    /// Those that were marked when they were older than the recent ones.
    older: VecDeque<u32>,
}

// === impl Marks ===

impl Marks {
    pub(super) fn new() -> Self {
        Self { recent: Box::new([0; STREAMS as usize / 64]), newest: 0, older: VecDeque::new() }
    }

    /// A stream has begun, if it is a new one: nothing is marked of it.
    pub(super) fn open(&mut self, stream: u32) {
        if stream <= self.newest {
            return;
        }
        self.newest = stream;
        let (word, bit) = place(stream);
        if let Some(word) = self.recent.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(super) fn set(&mut self, stream: u32) {
        if self.is_recent(stream) {
            let (word, bit) = place(stream);
            if let Some(word) = self.recent.get_mut(word) {
                *word |= bit;
            }
        } else if stream < self.newest && !self.older.contains(&stream) {
            if self.older.len() == OLDER {
                self.older.pop_front();
            }
            self.older.push_back(stream);
        }
    }

    pub(super) fn has(&self, stream: u32) -> bool {
        if self.is_recent(stream) {
            let (word, bit) = place(stream);
            return self.recent.get(word).is_some_and(|word| word & bit != 0);
        }
        self.older.contains(&stream)
    }

    /// Whether the place of a stream is its own. One that has not begun has none yet.
    const fn is_recent(&self, stream: u32) -> bool {
        stream <= self.newest && self.newest - stream < 2 * STREAMS
    }
}

/// Streams of one side have every other number.
const fn place(stream: u32) -> (usize, u64) {
    let at = stream / 2 % STREAMS;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_outlives_many_others_has_no_mark_of_theirs() {
        let mut marks = Marks::new();
        marks.open(1);
        for n in 1..10_000 {
            let stream = 2 * n + 1;
            marks.open(stream);
            assert!(!marks.has(stream));
            marks.set(stream);
            assert!(marks.has(stream) && !marks.has(1));
        }
        marks.set(1);
        assert!(marks.has(1) && !marks.has(3));
        marks.open(1);
        assert!(marks.has(1), "it has begun once");
        marks.set(30_001);
        assert!(!marks.has(30_001), "it has not begun");
    }
}
