//! Which of several files has a resource that all of them name.
//!
//! A file is in force with what it says now, or with what it said before, never with a part of it. What is in force
//! stays in force, so a file that said something before can always fall back; one that is new falls back to nothing.
//! Everybody begins with what they say now. Then, as long as two files have the same resource, one of them falls back:
//!
//! 1. the one that did not have the resource in force gives way to the one that did,
//! 2. else the one that would change the resource to the one that would not,
//! 3. else the one whose name sorts later.
//!
//! What files had in force is free of conflicts, so this ends with no resource in two files. It begins with what they
//! say now, so resources may move between files, and even be swapped, in one step. Without anything in force (after a
//! start) only the names decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Key, Place};
use crate::ads::Kind;
use crate::server::resource::Resource;

/// One file in the contest.
#[derive(Debug)]
pub(super) struct Claimant<'a> {
    pub(super) place: &'a Place,
    pub(super) in_force: &'a [Resource],
    /// What it says now, where that is something else.
    pub(super) wanted: Option<&'a [Resource]>,
}

/// Why a file falls back.
#[derive(Debug, PartialEq)]
pub(super) struct Lost<'a> {
    pub(super) kind: Kind,
    pub(super) name: Arc<str>,
    pub(super) to: &'a Place,
}

/// Two files with the same resource.
struct Conflict {
    loser: usize,
    winner: usize,
}

/// The files, and what they have in force by key.
struct Contest<'a> {
    claimants: &'a [Claimant<'a>],
    in_force: BTreeMap<Key, (usize, &'a Resource)>,
}

/// The files that fall back, by their place in the list, which is sorted by place.
pub(super) fn settle<'a>(claimants: &'a [Claimant<'a>]) -> BTreeMap<usize, Lost<'a>> {
    let contest = Contest::new(claimants);
    let mut lost = BTreeSet::new();
    loop {
        let conflicts = contest.conflicts(&lost);
        let losers: BTreeSet<usize> = conflicts.iter().map(|conflict| conflict.loser).collect();
        // Who loses to somebody that loses to nobody is out; in a circle, the last by name is.
        let clear = conflicts.iter().find(|conflict| !losers.contains(&conflict.winner));
        let Some(out) = clear.or_else(|| conflicts.iter().max_by_key(|conflict| conflict.loser)) else {
            break;
        };
        lost.insert(out.loser);
    }
    // Whom they lost to may be out as well by now.
    loop {
        let owners = contest.owners(&lost);
        let free = lost.iter().copied().find(|index| contest.obstacle(*index, &owners).is_none());
        let Some(free) = free else { break };
        lost.remove(&free);
    }
    let owners = contest.owners(&lost);
    lost.into_iter().filter_map(|index| Some((index, contest.obstacle(index, &owners)?))).collect()
}

// === impl Contest ===

impl<'a> Contest<'a> {
    fn new(claimants: &'a [Claimant<'a>]) -> Self {
        let in_force = claimants.iter().enumerate().flat_map(|(index, claimant)| {
            let keyed = move |resource| (key(claimant.place, resource), (index, resource));
            claimant.in_force.iter().map(keyed)
        });
        Self { claimants, in_force: in_force.collect() }
    }

    /// What each file says in the end, given those that fall back.
    fn claims(&self, lost: &BTreeSet<usize>) -> impl Iterator<Item = (Key, usize, &'a Resource)> {
        self.claimants.iter().enumerate().flat_map(|(index, claimant)| {
            let wanted = claimant.wanted.filter(|_| !lost.contains(&index));
            let resources = wanted.unwrap_or(claimant.in_force);
            resources.iter().map(move |resource| (key(claimant.place, resource), index, resource))
        })
    }

    fn conflicts(&self, lost: &BTreeSet<usize>) -> Vec<Conflict> {
        let mut owners: BTreeMap<Key, (usize, &'a Resource)> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (key, index, resource) in self.claims(lost) {
            let Some(&(other, others)) = owners.get(&key) else {
                owners.insert(key, (index, resource));
                continue;
            };
            if self.rank(&key, index, resource) < self.rank(&key, other, others) {
                conflicts.push(Conflict { loser: other, winner: index });
                owners.insert(key, (index, resource));
            } else {
                conflicts.push(Conflict { loser: index, winner: other });
            }
        }
        conflicts
    }

    fn owners(&self, lost: &BTreeSet<usize>) -> BTreeMap<Key, usize> {
        self.claims(lost).map(|(key, index, _)| (key, index)).collect()
    }

    /// What keeps a file from saying what it wants.
    fn obstacle(&self, index: usize, owners: &BTreeMap<Key, usize>) -> Option<Lost<'a>> {
        let claimant = self.claimants.get(index)?;
        claimant.wanted.unwrap_or_default().iter().find_map(|resource| {
            let owner = *owners.get(&key(claimant.place, resource))?;
            let to = self.claimants.get(owner).filter(|_| owner != index)?.place;
            Some(Lost { kind: resource.kind(), name: Arc::clone(resource.name()), to })
        })
    }

    /// The lower has it.
    fn rank(&self, key: &Key, index: usize, resource: &Resource) -> (bool, bool, usize) {
        let in_force = self.in_force.get(key);
        let is_own = in_force.is_some_and(|(owner, _)| *owner == index);
        let is_same = in_force.is_some_and(|(_, known)| *known == resource);
        (!is_own, !is_same, index)
    }
}

fn key(place: &Place, resource: &Resource) -> Key {
    (place.0.clone(), resource.kind(), Arc::clone(resource.name()))
}
