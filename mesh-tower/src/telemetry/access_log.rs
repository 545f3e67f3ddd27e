//! The access log: one line per request, in Istio's default text form or as JSON with the same fields.
//!
//! Lines are formatted where the request ends and written by one thread, through a bounded queue: a slow disk delays
//! nobody, and a full queue drops lines and counts them ([`AccessLog::dropped`]). What this library does not know
//! (a connection's termination details, a user agent) is `-`, as in Envoy.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::config::endpoints::Address;
use mesh_core::identity::Peer;
use mesh_core::telemetry::event::{EventSink, Reporter, RequestEvent};

/// Writes one line per request. Dropping it writes what is queued, then ends its thread.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    lines: Option<SyncSender<String>>,
    dropped: AtomicU64,
    writer: Option<JoinHandle<()>>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Istio's default text form.
    Text,
    /// One JSON object per line, with the keys that Istio's JSON encoding has.
    Json,
}

// === impl AccessLog ===

impl AccessLog {
    /// Lines that may wait for the writer.
    const QUEUE: usize = 8_192;

    /// Writes to `out`, from a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(format: Format, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, queue) = sync_channel(Self::QUEUE);
        let thread = std::thread::Builder::new().name("mesh-access-log".to_owned());
        let writer = thread.spawn(move || write_lines(&queue, out))?;
        Ok(Self { format, lines: Some(lines), dropped: AtomicU64::new(0), writer: Some(writer) })
    }

    /// Lines that found the queue full and were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl EventSink for AccessLog {
    #[expect(
        clippy::disallowed_methods,
        reason = "a log line carries the wall clock's time; no decision reads it"
    )]
    fn record(&self, event: &RequestEvent<'_>) {
        let start = SystemTime::now().checked_sub(event.duration).unwrap_or(UNIX_EPOCH);
        let start = start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = match self.format {
            Format::Text => text(event, start),
            Format::Json => json(event, start),
        };
        let sent = self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None; // ends the writer's loop once the queue is empty
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_lines(queue: &Receiver<String>, mut out: impl Write) {
    while let Ok(line) = queue.recv() {
        let written = out.write_all(line.as_bytes());
        // Everything that has piled up goes out before one flush.
        let more = queue.try_iter().try_for_each(|line| out.write_all(line.as_bytes()));
        if let Err(error) = written.and(more).and_then(|()| out.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

fn text(event: &RequestEvent<'_>, start: Duration) -> String {
    let mut line = String::with_capacity(256);
    let _ = writeln!(
        line,
        r#"[{time}] "{method} {path} {protocol}" {code} {flags} {details} - "-" {received} {sent} {ms} - "-" "-" "-" "{authority}" "{upstream}" {cluster} - {local} {remote} - {route}{trace}"#,
        time = rfc3339(start),
        method = clean(event.method),
        path = clean(event.path),
        protocol = event.protocol,
        code = event.response_code,
        flags = event.flags,
        details = clean(event.details),
        received = event.request_bytes,
        sent = event.response_bytes,
        ms = event.duration.as_millis(),
        authority = clean(event.authority),
        upstream = event.upstream.map_or_else(dash, ToString::to_string),
        cluster = or_dash(event.cluster),
        local = shown(event.downstream.and_then(Peer::local_address)).unwrap_or_else(dash),
        remote = shown(event.downstream.and_then(Peer::remote_address)).unwrap_or_else(dash),
        route = or_dash(event.route),
        trace = event.trace.map(|ids| format!(" {:032x}", ids.trace)).unwrap_or_default(),
    );
    line
}

fn json(event: &RequestEvent<'_>, start: Duration) -> String {
    let reporter = match event.reporter {
        Reporter::Source => "outbound",
        Reporter::Destination => "inbound",
    };
    let mut line = String::from("{");
    let mut field = |name: &str, value: String| {
        let comma = if line.len() > 1 { "," } else { "" };
        let _ = write!(line, r#"{comma}"{name}":{value}"#);
    };
    field("start_time", quoted(&rfc3339(start)));
    field("direction", quoted(reporter));
    field("route_name", quoted(event.route));
    field("method", quoted(event.method));
    field("path", quoted(event.path));
    field("protocol", quoted(event.protocol));
    field("response_code", event.response_code.to_string());
    field("grpc_status", event.grpc_status.map_or_else(|| "null".to_owned(), |code| code.to_string()));
    field("response_flags", quoted(&event.flags.to_string()));
    field("response_code_details", quoted(event.details));
    field("bytes_received", event.request_bytes.to_string());
    field("bytes_sent", event.response_bytes.to_string());
    field("duration", event.duration.as_millis().to_string());
    field("attempts", event.attempts.to_string());
    field("authority", quoted(event.authority));
    field(
        "upstream_host",
        event.upstream.map_or_else(|| "null".to_owned(), |host| quoted(&host.to_string())),
    );
    field("upstream_cluster", quoted(event.cluster));
    for (name, address) in [
        ("downstream_local_address", event.downstream.and_then(Peer::local_address)),
        ("downstream_remote_address", event.downstream.and_then(Peer::remote_address)),
    ] {
        field(name, address.map_or_else(|| "null".to_owned(), |address| quoted(&address.to_string())));
    }
    field("peer_principal", event.peer_principal.map_or_else(|| "null".to_owned(), quoted));
    field(
        "trace_id",
        event.trace.map_or_else(|| "null".to_owned(), |ids| format!(r#""{:032x}""#, ids.trace)),
    );
    line.push_str("}\n");
    line
}

/// An address in the text form: a path may hold anything.
fn shown(address: Option<Address>) -> Option<String> {
    address.map(|address| clean(&address.to_string()).replace(' ', "?"))
}

fn dash() -> String {
    "-".to_owned()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A field of the text form: what could forge a line or end a quoted field is replaced.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '"' { '?' } else { c }).collect()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `2026-08-01T10:00:00.123Z`.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day number since 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::metrics::tests::event;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, event: &RequestEvent<'_>) -> String {
        let sink = Sink::default();
        let log = AccessLog::new(format, sink.clone()).unwrap();
        log.record(event);
        drop(log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_istios_fields_in_istios_order() {
        let line = written(Format::Text, &event());
        let (_, rest) = line.split_once("] ").unwrap();
        assert_eq!(
            rest,
            "\"GET /reviews/1 HTTP/2\" 200 - via_upstream - \"-\" 100 2000 7 - \"-\" \"-\" \"-\" \"reviews:9080\" \"-\" \
             outbound|9080||reviews - - - - default\n"
        );
    }

    #[test]
    fn a_servers_line_has_both_addresses_of_the_connection() {
        let unix =
            Peer { unix: Some(std::path::Path::new("/run/a \"shop\".sock").into()), ..Peer::default() };
        for (peer, text, json) in [
            (
                mesh_core::testing::plaintext_peer(),
                "- 10.0.0.2:443 10.0.0.1:40000 - ",
                r#""downstream_local_address":"10.0.0.2:443","downstream_remote_address":"10.0.0.1:40000""#,
            ),
            (
                unix,
                "- unix:/run/a??shop?.sock unix:/run/a??shop?.sock - ",
                r#""downstream_remote_address":"unix:/run/a \"shop\".sock""#,
            ),
        ] {
            let served = RequestEvent { downstream: Some(&peer), ..event() };
            let line = written(Format::Text, &served);
            assert!(line.contains(&format!("outbound|9080||reviews {text}default")), "{line}");
            let line = written(Format::Json, &served);
            assert!(line.contains(json), "{line}");
        }
        assert!(written(Format::Json, &event()).contains(r#""downstream_remote_address":null"#));
    }

    #[test]
    fn a_request_cannot_forge_a_line() {
        let forged = RequestEvent { path: "/a\"\n[2026", ..event() };
        assert_eq!(written(Format::Text, &forged).lines().count(), 1);
        let line = written(Format::Json, &forged);
        assert!(line.contains(r#""path":"/a\"\u000a[2026""#), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |secs: u64| rfc3339(Duration::from_millis(secs * 1_000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_785_578_400), "2026-08-01T10:00:00.007Z");
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv(); // until the test lets go
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, held) = std::sync::mpsc::channel();
        let log = AccessLog::new(Format::Text, Stuck(held)).unwrap();
        for _ in 0..AccessLog::QUEUE + 100 {
            log.record(&event());
        }
        assert!(log.dropped() >= 98, "{}", log.dropped()); // the writer may have taken a line or two
        drop(release);
    }
}
