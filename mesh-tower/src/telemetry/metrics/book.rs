//! Which series there are, and which may be given up.
//!
//! A series is *gone* once no client uses its cluster any more. It stays on the page until it has been rendered
//! [`RENDERS`] times without a change, so that every scraper has its last value; at most [`MAX_GONE`] wait for that. Where
//! there is no room for a new series, those that nothing was counted in for [`IDLE`] give way as well. A series of a
//! cluster in use is given up for no other reason, so its counters never go back.
//!
//! What was counted and never rendered when a series is given up moves to the overflow series: no request is lost, and
//! none is told twice. A request may still count in a series that was given up, if it had found it before; so the series is
//! closed when nobody else holds it, which is when every map that had it is gone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Entry;
use super::series::{Counts, Series};

/// What is known of the series. Guarded by one lock, which the path of a request takes only for a new series.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Vec<Page>,
    /// Given up, and maybe still held by a request.
    closing: Vec<Page>,
    /// How often each cluster is in use.
    in_use: HashMap<Box<str>, usize>,
    /// The clusters that went last, for requests that are told after their cluster is gone.
    last_gone: VecDeque<Box<str>>,
    /// Requests of series that were closed, as far as they were rendered.
    closed: u64,
    /// When room was last looked for.
    looked: Option<Instant>,
}

/// What is known of one series.
#[derive(Debug)]
struct Page {
    hash: u64,
    entry: Arc<Entry>,
    /// As it was rendered last.
    rendered: Counts,
    /// How many requests it had when it was looked at last, and since when.
    requests: u64,
    unchanged: Instant,
    /// How often it was rendered without a change since its cluster is gone; none where that is in use.
    gone: Option<u32>,
}

// === impl Book ===

impl Book {
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Every series of the map, by hash.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &Arc<Entry>)> {
        self.pages.iter().map(|page| (page.hash, &page.entry))
    }

    /// Requests of series that are in no map any more and not in the overflow series.
    pub(super) fn requests(&self) -> u64 {
        self.closed + self.closing.iter().map(|page| page.entry.series.requests()).sum::<u64>()
    }

    /// A new series. True where others were given up for it.
    pub(super) fn add(&mut self, hash: u64, entry: Arc<Entry>, now: Instant) -> bool {
        let cluster = entry.labels.cluster();
        let is_gone =
            !self.in_use.contains_key(cluster) && self.last_gone.iter().any(|name| **name == *cluster);
        self.pages.push(Page {
            hash,
            entry,
            rendered: Counts::default(),
            requests: 0,
            unchanged: now,
            gone: is_gone.then_some(0),
        });
        self.trim()
    }

    pub(super) fn cluster_in_use(&mut self, name: &str) {
        *self.in_use.entry(name.into()).or_default() += 1;
        for page in self.pages.iter_mut().filter(|page| page.entry.labels.are_of_cluster(name)) {
            page.gone = None;
        }
    }

    /// True where series were given up.
    pub(super) fn cluster_gone(&mut self, name: &str) -> bool {
        match self.in_use.get_mut(name) {
            // A new life of the cluster may begin before its last one has ended.
            Some(times) if *times > 1 => {
                *times -= 1;
                return false;
            }
            Some(_) => _ = self.in_use.remove(name),
            None => return false,
        }
        if self.last_gone.len() == MAX_GONE {
            self.last_gone.pop_front();
        }
        self.last_gone.push_back(name.into());
        // Those that went last are at the end: the first are given up first.
        let (gone, mut pages): (Vec<Page>, Vec<Page>) = std::mem::take(&mut self.pages)
            .into_iter()
            .partition(|page| page.entry.labels.are_of_cluster(name));
        pages.extend(gone.into_iter().map(|page| Page { gone: Some(0), ..page }));
        self.pages = pages;
        self.trim()
    }

    /// What there is to render, which counts as rendered; and whether series were given up after it.
    pub(super) fn render(&mut self, now: Instant) -> (Vec<(Arc<Entry>, Counts)>, bool) {
        let mut rendered = Vec::with_capacity(self.pages.len());
        for page in &mut self.pages {
            let counts = page.entry.series.counts();
            let is_changed = page.look(now);
            if let Some(renders) = &mut page.gone {
                *renders = if is_changed { 0 } else { *renders + 1 };
            }
            page.rendered = counts;
            rendered.push((Arc::clone(&page.entry), counts));
        }
        let given_up = self.give_up(|page| page.gone.is_some_and(|renders| renders >= RENDERS));
        (rendered, given_up)
    }

    /// Gives up what is gone, and what is idle, because a new series needs the room. True where anything was.
    pub(super) fn make_room(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now - looked < LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        for page in &mut self.pages {
            page.look(now);
        }
        self.give_up(|page| page.gone.is_some() || now - page.unchanged >= IDLE)
    }

    /// Closes what nobody holds any more: what was not rendered moves to the overflow series.
    pub(super) fn close(&mut self, overflow: &Series) {
        self.closing.retain_mut(|page| {
            let Some(entry) = Arc::get_mut(&mut page.entry) else { return true };
            overflow.add(&entry.series.counts().since(&page.rendered));
            self.closed += page.rendered.requests();
            false
        });
    }

    fn trim(&mut self) -> bool {
        let gone = self.pages.iter().filter(|page| page.gone.is_some()).count();
        let mut surplus = gone.saturating_sub(MAX_GONE);
        self.give_up(|page| {
            let is_surplus = page.gone.is_some() && surplus > 0;
            surplus -= usize::from(is_surplus);
            is_surplus
        })
    }

    fn give_up(&mut self, mut is_over: impl FnMut(&Page) -> bool) -> bool {
        let (over, pages): (Vec<Page>, Vec<Page>) =
            std::mem::take(&mut self.pages).into_iter().partition(|page| is_over(page));
        self.pages = pages;
        let given_up = !over.is_empty();
        self.closing.extend(over);
        given_up
    }
}

// === impl Page ===

impl Page {
    /// Whether anything was counted since it was looked at last.
    fn look(&mut self, now: Instant) -> bool {
        let requests = self.entry.series.requests();
        let is_changed = requests != self.requests;
        if is_changed {
            self.requests = requests;
            self.unchanged = now;
        }
        is_changed
    }
}

/// How often a series of a cluster that is gone is rendered without a change: twice for each of two scrapers.
const RENDERS: u32 = 4;
/// Series of clusters that are gone, and clusters that are remembered as gone. A series takes some 50 KiB of the page.
pub(super) const MAX_GONE: usize = 32;
/// How long nothing was counted in a series that gives way: longer than Prometheus remembers a series for its graphs.
const IDLE: Duration = Duration::from_secs(600);
/// How often room is looked for at most: looking touches every series.
const LOOK_EVERY: Duration = Duration::from_secs(1);
