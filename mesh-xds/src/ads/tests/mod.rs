//! The protocol, by a hand-moved clock.

mod answers;
mod deletion;
mod delta;
mod disorder;
mod errors;
mod habits;
mod model;
mod names;
mod same;
mod streams;
mod timers;
mod ttl;
mod wildcard;

use super::Protocol::{Incremental, StateOfTheWorld as SotW};
use super::*;

/// What holds in both protocols is tested in both.
const BOTH: [Protocol; 2] = [SotW, Incremental];

/// A machine with its clock, and what it has said so far.
struct Script {
    protocol: Protocol,
    ads: Ads<&'static str>,
    now: Instant,
}

impl Script {
    fn new(protocol: Protocol) -> Self {
        Self { protocol, ads: Ads::new(protocol, ABSENT_AFTER), now: Instant::now_for_tests() }
    }

    /// Connected, and asked for `names` already.
    fn watching(protocol: Protocol, kind: Kind, names: &[&str]) -> Self {
        let mut script = Self::new(protocol);
        for name in names {
            script.ads.watch(kind, *name);
        }
        script.connect();
        script.requests();
        script
    }

    fn connect(&mut self) {
        self.ads.handle_connected(self.now);
    }

    fn disconnect(&mut self) {
        self.ads.handle_disconnected(self.now);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.ads.handle_timeout(self.now);
    }

    /// In incremental every resource is of the version of the whole.
    fn respond(&mut self, kind: Kind, version: &str, nonce: &str, resources: &[(&str, Verdict)]) {
        self.respond_with_errors(empty(kind, version, nonce), resources, &[]);
    }

    /// The same, with errors beside the resources.
    fn respond_with_errors(
        &mut self,
        empty: Response<&'static str>,
        resources: &[(&str, Verdict)],
        errors: &[ResourceError],
    ) {
        let received = |(name, verdict): &(&str, Verdict)| Received {
            name: (!name.is_empty()).then(|| Name::from(*name)),
            version: (self.protocol == Incremental).then(|| empty.version.clone()),
            ttl: None,
            verdict: verdict.map_err(Arc::from),
        };
        let resources = resources.iter().map(received).collect();
        let response = Response { resources, errors: errors.to_vec(), ..empty };
        self.ads.handle_response(self.now, response);
    }

    /// A response that says of these alone that they are gone.
    fn remove(&mut self, kind: Kind, nonce: &str, names: &[&str]) {
        let removed = names.iter().map(|name| Name::from(*name)).collect();
        self.ads.handle_response(self.now, Response { removed, ..empty(kind, "", nonce) });
    }

    fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.ads.poll_transmit(self.now)).collect()
    }

    /// The only request that is due.
    fn request(&mut self) -> Request {
        let mut all = self.requests();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn updates(&mut self) -> Vec<Update<&'static str>> {
        std::iter::from_fn(|| self.ads.poll_update()).collect()
    }
}

type Verdict = Result<&'static str, &'static str>;

/// The clock's beginning: any instant will do, all others are computed from it.
trait ClockStart {
    fn now_for_tests() -> Self;
}

impl ClockStart for Instant {
    fn now_for_tests() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the origin of a clock that is moved by hand")]
        Self::now()
    }
}

fn empty(kind: Kind, version: &str, nonce: &str) -> Response<&'static str> {
    Response {
        kind,
        version: version.into(),
        nonce: nonce.into(),
        resources: Vec::new(),
        heartbeats: Vec::new(),
        removed: Vec::new(),
        errors: Vec::new(),
    }
}

fn names(request: &Request) -> Vec<&str> {
    request.names().iter().map(|name| &**name).collect()
}

fn deleted(kind: Kind, name: &str) -> Update<&'static str> {
    Update::Deleted { kind, name: name.into() }
}

fn absent(kind: Kind, name: &str) -> Update<&'static str> {
    Update::Absent { kind, name: name.into() }
}

/// The version of a state-of-the-world request.
fn version(request: &Request) -> &str {
    match &request.ask {
        Ask::All { version, .. } => version,
        Ask::Changes { .. } => panic!("{request:?}"),
    }
}

fn changed(kind: Kind, name: &str, version: &str, value: &'static str) -> Update<&'static str> {
    Update::Changed { kind, name: name.into(), version: version.into(), value }
}

fn nameless(kind: Kind, version: &str, reason: &str) -> Update<&'static str> {
    Update::Nameless { kind, version: version.into(), reason: reason.into() }
}

fn refused(kind: Kind, name: &str, version: &str, reason: &str) -> Update<&'static str> {
    Update::Refused { kind, name: name.into(), version: version.into(), reason: reason.into() }
}
