//! go-control-plane as the control plane: a child process that is told snapshots, and tells what its clients say to them.

use std::collections::BTreeMap;
use std::process::Stdio;

use mesh_tests::fleet::Fleet;
use mesh_tests::wait::soon;
use mesh_xds::Kind;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lab::{Lab, hex};

/// The process. It dies with its handle.
#[derive(Debug)]
pub(crate) struct Gocp {
    input: ChildStdin,
    log: watch::Receiver<Vec<Event>>,
    child: Child,
    _reader: JoinSet<()>,
}

/// Something that it said.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) what: What,
    pub(crate) stream: u64,
    /// The variant of the protocol.
    pub(crate) incremental: bool,
    /// The client, where it said its name.
    pub(crate) node: String,
    pub(crate) kind: Option<Kind>,
    pub(crate) nonce: String,
    /// Asked for, or sent.
    pub(crate) names: Vec<String>,
    /// No longer asked for, or told to be gone.
    pub(crate) removed: Vec<String>,
    /// So many resources the client says that it has.
    pub(crate) claimed: u64,
    /// The reason of a refusal.
    pub(crate) error: String,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Listening,
    Published,
    Opened,
    Closed,
    Request,
    Response,
}

// === impl Gocp ===

impl Gocp {
    /// Starts it where the control plane of a fleet would be. It has no resources.
    pub(crate) async fn start(lab: &Lab, fleet: &Fleet) -> Self {
        let mut child = Command::new(&lab.gocp)
            .arg(fleet.control_address().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("gocp starts");
        let input = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (write, log) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                write.send_modify(|log| log.push(Event::parse(&line)));
            }
        });
        let gocp = Self { input, log, child, _reader: reader };
        gocp.until(|log| log.iter().any(|event| event.what == What::Listening)).await;
        gocp
    }

    /// Makes the resources of the fleet's own control plane, which does not serve them, its snapshot.
    pub(crate) async fn publish(&mut self, fleet: &Fleet) {
        let snapshot: BTreeMap<_, Vec<_>> = Kind::ALL
            .into_iter()
            .map(|kind| {
                let resources = fleet.control.resources(kind);
                (kind.type_url(), resources.iter().map(|resource| hex(resource.bytes())).collect())
            })
            .collect();
        let published = |log: &[Event]| log.iter().filter(|event| event.what == What::Published).count();
        let before = published(&self.log.borrow());
        let line = format!("{}\n", serde_json::json!(snapshot));
        self.input.write_all(line.as_bytes()).await.expect("gocp reads");
        self.until(|log| published(log) > before).await;
    }

    /// Waits until what it said satisfies a condition.
    ///
    /// # Panics
    /// If that does not come, or the process ends before.
    pub(crate) async fn until(&self, mut condition: impl FnMut(&[Event]) -> bool) {
        let mut log = self.log.clone();
        soon(log.wait_for(|log| condition(log))).await.expect("gocp lives");
    }

    /// Everything that it said.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.log.borrow().clone()
    }

    /// Waits until a node has been sent these kinds, and has acknowledged all that it was sent.
    ///
    /// # Panics
    /// If anybody refuses anything.
    pub(crate) async fn accepted(&self, node: &str, kinds: &[Kind]) {
        let mut refused = None;
        self.until(|log| {
            refused = log.iter().map(|event| &event.error).find(|error| !error.is_empty()).cloned();
            refused.is_some() || acknowledged(log, node, kinds)
        })
        .await;
        assert_eq!(refused, None);
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("it lives");
    }
}

/// Whether the last response of each kind, on the last stream of the node, has an answer.
fn acknowledged(log: &[Event], node: &str, kinds: &[Kind]) -> bool {
    let Some(first) = log.iter().rfind(|event| event.what == What::Request && event.node == node) else {
        return false;
    };
    let stream = || log.iter().filter(|event| event.stream == first.stream);
    kinds.iter().all(|kind| {
        let of_kind = || stream().filter(|event| event.kind == Some(*kind));
        of_kind().rfind(|event| event.what == What::Response).is_some_and(|response| {
            of_kind().any(|event| event.what == What::Request && event.nonce == response.nonce)
        })
    })
}

// === impl Event ===

impl Event {
    fn parse(line: &str) -> Self {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let texts = |name: &str| {
            let list = event[name].as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let what = match event["event"].as_str() {
            Some("listening") => What::Listening,
            Some("published") => What::Published,
            Some("opened") => What::Opened,
            Some("closed") => What::Closed,
            Some("request") => What::Request,
            Some("response") => What::Response,
            other => panic!("gocp says {other:?}"),
        };
        Self {
            what,
            stream: event["stream"].as_u64().unwrap_or_default(),
            incremental: event["incremental"] == true,
            node: text("node"),
            kind: Kind::from_type_url(&text("type")),
            nonce: text("nonce"),
            names: texts("names"),
            removed: texts("removed"),
            claimed: event["claimed"].as_u64().unwrap_or_default(),
            error: text("error"),
        }
    }
}
