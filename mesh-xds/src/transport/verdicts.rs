//! What was decided about the bytes of each resource, so that the same bytes are not decoded and judged again.
//!
//! A control plane of the state-of-the-world protocol sends everything with every change, and istiod does so in both
//! protocols. A verdict depends on nothing but the bytes and the [`Rules`](crate::resource::Rules), which never change.
//!
//! Bytes are told apart by their size and two keyed hashes of 64 bits each. The keys are random, so that a control plane
//! cannot make two resources that are taken for one.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;

use crate::ads::{Kind, Name, PerKind};
use crate::resource::Accepted;

/// A verdict of validation: the value, or the reason as text.
pub(super) type Verdict = Result<Accepted, Arc<str>>;

/// The last verdict about each resource.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    hashers: (RandomState, RandomState),
    kinds: PerKind<Judged>,
}

/// Stands for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    key: u64,
    check: u64,
    size: usize,
}

/// The verdicts of one kind: one for each name.
#[derive(Debug, Default)]
struct Judged {
    /// Boxed, because a table has up to twice the room that it needs.
    by_key: HashMap<u64, Box<Judgement>>,
    by_name: HashMap<Name, u64>,
}

#[derive(Debug)]
struct Judgement {
    check: u64,
    size: usize,
    name: Name,
    verdict: Verdict,
}

// === impl Verdicts ===

impl Verdicts {
    /// Stands for the bytes of a resource, and for the name of its wrapper where it has one.
    pub(super) fn digest(&self, outer: Option<&Name>, resource: &Any) -> Digest {
        let Any { type_url, value } = resource;
        let all = (outer, type_url, value);
        Digest {
            key: self.hashers.0.hash_one(all),
            // Another input as well: that the keys of two hashers are independent is nowhere promised.
            check: self.hashers.1.hash_one((value.len(), all)),
            size: value.len(),
        }
    }

    /// What was decided about these bytes.
    pub(super) fn find(&self, kind: Kind, digest: Digest) -> Option<(&Name, &Verdict)> {
        let judgement = self.kinds.get(kind).by_key.get(&digest.key)?;
        let Judgement { check, size, name, verdict } = &**judgement;
        ((*check, *size) == (digest.check, digest.size)).then_some((name, verdict))
    }

    /// Keeps what was decided, instead of what was decided before about the same name.
    pub(super) fn keep(&mut self, kind: Kind, digest: Digest, name: &Name, verdict: &Verdict) {
        let Digest { key, check, size } = digest;
        let Judged { by_key, by_name } = self.kinds.get_mut(kind);
        if let Some(before) = by_name.insert(name.clone(), key).filter(|before| *before != key) {
            by_key.remove(&before);
        }
        let judgement = Box::new(Judgement { check, size, name: name.clone(), verdict: verdict.clone() });
        match by_key.entry(key) {
            Entry::Vacant(free) => _ = free.insert(judgement),
            Entry::Occupied(mut taken) => {
                let before = taken.insert(judgement);
                if before.name != *name {
                    by_name.remove(&before.name);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self, kind: Kind) -> usize {
        let Judged { by_key, by_name } = self.kinds.get(kind);
        assert_eq!(by_key.len(), by_name.len());
        by_key.len()
    }

    /// Forgets what is not watched, where more is kept than `watched` names.
    pub(super) fn shrink(&mut self, kind: Kind, watched: usize, is_watched: impl Fn(&str) -> bool) {
        let Judged { by_key, by_name } = self.kinds.get_mut(kind);
        if by_name.len() > watched {
            by_name.retain(|name, key| {
                let keep = is_watched(name);
                if !keep {
                    by_key.remove(key);
                }
                keep
            });
            by_name.shrink_to_fit();
            by_key.shrink_to_fit();
        }
    }
}
