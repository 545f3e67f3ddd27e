//! Istio's standard metrics with Istio's labels, for Prometheus and Kiali.
//!
//! All four metrics carry the same labels, so one lookup per request finds one series with a counter and three
//! histograms. A lookup takes no lock and allocates nothing; a new series copies the map, which happens at most
//! [`Metrics::MAX_SERIES`] times. Past that bound everything goes to one overflow series
//! (`otel_metric_overflow="true"`), so that no peer can make the map grow.

mod labels;
mod series;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::config::telemetry::WorkloadLabels;
use mesh_core::telemetry::event::{EventSink, RequestEvent};
use mesh_core::telemetry::names;

use labels::{LabelKey, Labels};
use series::{Histogram, Series};

/// The metrics of one mesh.
#[derive(Debug)]
pub struct Metrics {
    own: Arc<WorkloadLabels>,
    /// Series by the hash of their labels; equal hashes share an entry.
    series: ArcSwap<SeriesMap>,
    overflow: Series,
    hasher: foldhash::fast::RandomState,
    /// Held by whoever adds a series, so that none is lost.
    adding: Mutex<()>,
}

type SeriesMap = HashMap<u64, Vec<Arc<(Labels, Series)>>, foldhash::fast::RandomState>;

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
            adding: Mutex::new(()),
        })
    }

    /// Everything, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let map = self.series.load();
        let mut all: Vec<(String, &Series)> =
            map.values().flatten().map(|entry| (entry.0.render(&self.own), &entry.1)).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        if self.overflow.requests() > 0 {
            all.push((r#"otel_metric_overflow="true""#.to_owned(), &self.overflow));
        }
        let mut text = String::new();
        let name = names::REQUESTS_TOTAL;
        head(&mut text, name, names::REQUESTS_TOTAL_HELP, "counter");
        for (labels, series) in &all {
            let _ = writeln!(text, "{name}{{{labels}}} {}", series.requests());
        }
        type Part = fn(&Series) -> &Histogram;
        let histograms: [(&str, &str, Part); 3] = [
            (names::REQUEST_DURATION, names::REQUEST_DURATION_HELP, |s| &s.duration),
            (names::REQUEST_BYTES, names::REQUEST_BYTES_HELP, |s| &s.request_bytes),
            (names::RESPONSE_BYTES, names::RESPONSE_BYTES_HELP, |s| &s.response_bytes),
        ];
        for (name, help, part) in histograms {
            head(&mut text, name, help, "histogram");
            for (labels, series) in &all {
                part(series).render(&mut text, name, labels);
            }
        }
        text
    }

    /// Number of series per metric, the overflow series not counted.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series.load().values().map(Vec::len).sum()
    }

    /// Requests counted so far, over all series.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let map = self.series.load();
        self.overflow.requests() + map.values().flatten().map(|entry| entry.1.requests()).sum::<u64>()
    }

    fn add(&self, hash: u64, key: &LabelKey<'_>, event: &RequestEvent<'_>) {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let map = self.series.load();
        if let Some(entry) = find(&map, hash, key) {
            return entry.1.record(event); // another thread added it meanwhile
        }
        if map.values().map(Vec::len).sum::<usize>() >= Self::MAX_SERIES {
            return self.overflow.record(event);
        }
        let mut next = SeriesMap::clone(&map);
        let entry = Arc::new((key.owned(), Series::default()));
        entry.1.record(event);
        next.entry(hash).or_default().push(entry);
        self.series.store(Arc::new(next));
    }
}

impl EventSink for Metrics {
    fn record(&self, event: &RequestEvent<'_>) {
        let key = LabelKey::of(event);
        let hash = self.hasher.hash_one(key);
        match find(&self.series.load(), hash, &key) {
            Some(entry) => entry.1.record(event),
            None => self.add(hash, &key, event),
        }
    }
}

fn find<'m>(map: &'m SeriesMap, hash: u64, key: &LabelKey<'_>) -> Option<&'m (Labels, Series)> {
    map.get(&hash)?.iter().find(|entry| entry.0.is(key)).map(|entry| &**entry)
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}
