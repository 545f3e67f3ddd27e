//! What is printed while a directory is served: changes of files, and clients that come, go and refuse.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use crate::server::{ClientStatus, ControlPlane, Directory, FileError};

/// The refusals that were printed.
#[derive(Debug, Default)]
pub(super) struct Refused(BTreeSet<String>);

/// Prints what changes in the directory.
pub(super) async fn watch_files(
    mut directory: Directory,
    interval: Duration,
    mut refused: Refused,
    output: Output,
) {
    loop {
        tokio::time::sleep(interval).await;
        let span = tracing::Span::current();
        let scanned = tokio::task::spawn_blocking(move || {
            let changes = span.in_scope(|| directory.scan());
            (directory, changes)
        });
        // A scan that panicked has said so itself.
        let Ok((back, changes)) = scanned.await else { return };
        directory = back;
        for change in changes {
            output.say(&change.to_string());
        }
        refused.report(&directory.errors().borrow(), &output);
    }
}

/// Prints which clients come and go, and what they refuse.
pub(super) async fn watch_clients(control: ControlPlane, output: Output) {
    let mut printed = BTreeSet::new();
    loop {
        let mut now = BTreeSet::new();
        control
            .wait_for(|clients| {
                now = clients.iter().flat_map(lines).collect();
                now != printed
            })
            .await;
        for line in now.difference(&printed) {
            output.say(line);
        }
        for line in printed.difference(&now).filter(|line| line.contains(CONNECTED)) {
            output.say(&line.replace(CONNECTED, " left"));
        }
        printed = now;
    }
}

fn lines(client: &ClientStatus) -> Vec<String> {
    if client.node_id.is_empty() {
        return Vec::new();
    }
    let peer = client.peer.map(|peer| format!(" from {peer}")).unwrap_or_default();
    let who = format!("client {:?} (stream {}{peer}, {})", client.node_id, client.stream, client.protocol);
    let refusals = client.nacks().map(|(kind, nack)| {
        format!("{who} refused version {} of its {kind} resources: {}", nack.version, nack.message)
    });
    let refusals: Vec<String> = refusals.collect();
    [format!("{who}{CONNECTED}")].into_iter().chain(refusals).collect()
}

// === impl Refused ===

impl Refused {
    pub(super) fn report(&mut self, errors: &[Arc<FileError>], output: &Output) {
        let now: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
        for error in now.difference(&self.0) {
            output.say(&format!("refused {error}"));
        }
        if now.is_empty() && !self.0.is_empty() {
            output.say("every file is in force again");
        }
        self.0 = now;
    }
}

const CONNECTED: &str = " connected";
