//! Istio's standard metrics with Istio's labels, for Prometheus and Kiali.
//!
//! All four metrics carry the same labels, so one lookup per request finds one series with a counter and three
//! histograms. A lookup takes no lock and allocates nothing; a new series copies the map, which holds at most
//! [`Metrics::MAX_SERIES`]. Past that bound everything goes to one overflow series (`otel_metric_overflow="true"`), so
//! that no peer can make the map grow.
//!
//! Series of clusters that are gone are given up after their last value was rendered, so the page is as large as what is
//! in use: `book` says when, and why no count is lost. To Prometheus a series that comes back is a counter that was reset.

mod book;
mod labels;
mod series;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_core::telemetry::names;

use book::Book;
use labels::{LabelKey, Labels};
use series::{Counts, Distribution, Series};
use tokio::time::Instant;

/// The metrics of one mesh: Istio's standard metrics with Istio's labels, for Prometheus and Kiali.
///
/// At most [`Metrics::MAX_SERIES`] series; past that everything goes to one overflow series
/// (`otel_metric_overflow="true"`). Series of clusters that are gone are given up after their last value was rendered.
#[derive(Debug)]
pub struct Metrics {
    own: Arc<WorkloadLabels>,
    /// Series by the hash of their labels; equal hashes share an entry.
    series: ArcSwap<SeriesMap>,
    overflow: Series,
    hasher: foldhash::fast::RandomState,
    /// Held by whoever changes the map, so that no series is lost, and while a page is put together.
    book: Mutex<Book>,
}

/// A series with its labels.
#[derive(Debug)]
struct Entry {
    labels: Labels,
    series: Series,
}

type SeriesMap = HashMap<u64, Vec<Arc<Entry>>, foldhash::fast::RandomState>;

// === impl Metrics ===

impl Metrics {
    /// Most series per metric.
    pub const MAX_SERIES: usize = 2_000;

    /// Metrics of a workload with these labels of its own.
    #[must_use]
    pub fn new(own: Arc<WorkloadLabels>) -> Arc<Self> {
        Arc::new(Self {
            own,
            series: ArcSwap::default(),
            overflow: Series::default(),
            hasher: foldhash::fast::RandomState::default(),
            book: Mutex::default(),
        })
    }

    /// Everything, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let rendered = {
            let mut book = self.book();
            book.close(&self.overflow);
            let (rendered, given_up) = book.render(Instant::now());
            if given_up {
                self.store(&book);
            }
            rendered
        };
        let mut all: Vec<(String, Counts)> =
            rendered.into_iter().map(|(entry, counts)| (entry.labels.render(&self.own), counts)).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        if self.overflow.requests() > 0 {
            all.push((r#"otel_metric_overflow="true""#.to_owned(), self.overflow.counts()));
        }
        let mut text = String::new();
        let name = names::REQUESTS_TOTAL;
        head(&mut text, name, names::REQUESTS_TOTAL_HELP, "counter");
        for (labels, counts) in &all {
            let _ = writeln!(text, "{name}{{{labels}}} {}", counts.requests());
        }
        type Part = fn(&Counts) -> &Distribution;
        let histograms: [(&str, &str, Part); 3] = [
            (names::REQUEST_DURATION, names::REQUEST_DURATION_HELP, |c| &c.duration),
            (names::REQUEST_BYTES, names::REQUEST_BYTES_HELP, |c| &c.request_bytes),
            (names::RESPONSE_BYTES, names::RESPONSE_BYTES_HELP, |c| &c.response_bytes),
        ];
        for (name, help, part) in histograms {
            head(&mut text, name, help, "histogram");
            for (labels, counts) in &all {
                part(counts).render(&mut text, name, labels);
            }
        }
        text
    }

    /// Number of series per metric, the overflow series not counted.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series.load().values().map(Vec::len).sum()
    }

    /// Requests counted so far, over all series, those that were given up included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let book = self.book();
        let in_map = book.entries().map(|(_, entry)| entry.series.requests()).sum::<u64>();
        in_map + book.requests() + self.overflow.requests()
    }

    fn add(&self, hash: u64, key: &LabelKey<'_>, event: &RequestEvent<'_>) {
        let mut book = self.book();
        if let Some(entry) = find(&self.series.load(), hash, key) {
            return entry.series.record(event); // another thread added it meanwhile
        }
        let now = Instant::now();
        let mut given_up = false;
        if book.len() >= Self::MAX_SERIES {
            given_up |= book.make_room(now);
        }
        if book.len() >= Self::MAX_SERIES {
            return self.overflow.record(event);
        }
        let entry = Arc::new(Entry { labels: key.owned(), series: Series::default() });
        entry.series.record(event);
        given_up |= book.add(hash, Arc::clone(&entry), now);
        if given_up {
            self.store(&book);
        } else {
            let mut next = SeriesMap::clone(&self.series.load());
            next.entry(hash).or_default().push(entry);
            self.series.store(Arc::new(next));
        }
        book.close(&self.overflow);
    }

    /// Makes the map of the series in the book.
    fn store(&self, book: &Book) {
        let mut map = SeriesMap::default();
        for (hash, entry) in book.entries() {
            map.entry(hash).or_default().push(Arc::clone(entry));
        }
        self.series.store(Arc::new(map));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic in between leaves a map and a book that differ by a series, which the next change mends.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Metrics {
    fn record(&self, event: &RequestEvent<'_>) {
        let key = LabelKey::of(event);
        let hash = self.hasher.hash_one(key);
        match find(&self.series.load(), hash, &key) {
            Some(entry) => entry.series.record(event),
            None => self.add(hash, &key, event),
        }
    }

    fn cluster_in_use(&self, name: &str) {
        self.book().cluster_in_use(name);
    }

    fn cluster_gone(&self, name: &str) {
        let mut book = self.book();
        if book.cluster_gone(name) {
            self.store(&book);
        }
        book.close(&self.overflow);
    }
}

fn find<'m>(map: &'m SeriesMap, hash: u64, key: &LabelKey<'_>) -> Option<&'m Entry> {
    map.get(&hash)?.iter().find(|entry| entry.labels.is(key)).map(|entry| &**entry)
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}
