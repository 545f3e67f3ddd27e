//! Any order of events: no panic, and what must hold at every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Watch(Kind, usize),
    Unwatch(Kind, usize),
    Connect,
    Disconnect,
    Respond(Kind, Vec<(usize, bool)>),
    /// Of the incremental protocol.
    Remove(Kind, usize),
    Transmit,
    Wait(u64),
}

const NAMES: [&str; 4] = ["a", "b", "c", ""];

fn event() -> impl Strategy<Value = Event> {
    let kind = || prop::sample::select(Kind::ALL.to_vec());
    prop_oneof![
        4 => (kind(), 0..3usize).prop_map(|(kind, name)| Event::Watch(kind, name)),
        2 => (kind(), 0..3usize).prop_map(|(kind, name)| Event::Unwatch(kind, name)),
        2 => Just(Event::Connect),
        1 => Just(Event::Disconnect),
        6 => (kind(), prop::collection::vec((0..4usize, any::<bool>()), 0..4))
            .prop_map(|(kind, resources)| Event::Respond(kind, resources)),
        1 => (kind(), 0..3usize).prop_map(|(kind, name)| Event::Remove(kind, name)),
        6 => Just(Event::Transmit),
        2 => (0..20_000u64).prop_map(Event::Wait),
    ]
}

/// What the test knows by itself.
struct Model {
    protocol: Protocol,
    watched: BTreeMap<Kind, BTreeSet<&'static str>>,
    /// Names of each type, as they were told on this stream.
    sent: BTreeMap<Kind, BTreeSet<String>>,
    cached: BTreeSet<(Kind, String)>,
    up: bool,
    first: bool,
    /// Nonces that the stream has brought; in incremental, those that were not answered.
    nonces: BTreeMap<Kind, Vec<String>>,
    accepted: BTreeMap<Kind, String>,
    /// What came and nobody watched, so that it is not held.
    strays: BTreeSet<(Kind, String)>,
    /// The nonce of the last request of each type.
    said: BTreeMap<Kind, Arc<str>>,
}

impl Model {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            watched: BTreeMap::new(),
            sent: BTreeMap::new(),
            cached: BTreeSet::new(),
            up: false,
            first: false,
            nonces: BTreeMap::new(),
            accepted: BTreeMap::new(),
            strays: BTreeSet::new(),
            said: BTreeMap::new(),
        }
    }

    fn check_request(&mut self, request: &Request) -> Result<(), TestCaseError> {
        prop_assert!(self.up, "sent without a stream");
        prop_assert_eq!(request.first, std::mem::take(&mut self.first));
        let is_first = !self.sent.contains_key(&request.kind);
        if is_first {
            prop_assert!(!request.names().is_empty(), "an empty list first");
        }
        match &request.ask {
            Ask::All { version, names } => {
                let nonce = self.nonces.get(&request.kind).and_then(|nonces| nonces.last());
                prop_assert_eq!(&*request.nonce, nonce.map_or("", String::as_str), "not the latest nonce");
                let accepted = self.accepted.get(&request.kind).map_or("", String::as_str);
                let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
                let key = |name: &String| (request.kind, name.clone());
                if **version != *accepted {
                    prop_assert_eq!(&**version, "", "not the last accepted version");
                    let missing = names.iter().any(|name| !self.cached.contains(&key(name)));
                    prop_assert!(missing, "everything is held, and no version is named");
                }
                let before = self.sent.insert(request.kind, names.clone());
                let last = self.said.insert(request.kind, request.nonce.clone());
                if let Some(before) = &before
                    && last.as_ref() != Some(&request.nonce)
                {
                    prop_assert_eq!(before, &names, "an answer with other names");
                }
                let added = names.iter().filter(|name| before.as_ref().is_none_or(|b| !b.contains(*name)));
                for name in added.filter(|name| self.strays.contains(&key(name))) {
                    prop_assert_eq!(&**version, "", "{} came and was not kept", name);
                }
            }
            Ask::Changes { subscribe, unsubscribe, held } => {
                let sent = self.sent.entry(request.kind).or_default();
                if !request.nonce.is_empty() {
                    prop_assert!(subscribe.is_empty() && unsubscribe.is_empty(), "an answer with names");
                    let nonces = self.nonces.entry(request.kind).or_default();
                    let position = nonces.iter().position(|nonce| **nonce == *request.nonce);
                    prop_assert!(position.is_some(), "answered twice, or out of order");
                    nonces.drain(..=position.unwrap());
                }
                for (name, _) in held {
                    prop_assert!(is_first, "held is told at first");
                    prop_assert!(self.cached.contains(&(request.kind, name.to_string())), "not held");
                }
                for name in subscribe {
                    prop_assert!(!unsubscribe.contains(name), "both at once");
                    sent.insert(name.to_string());
                }
                unsubscribe.iter().for_each(|name| _ = sent.remove(&**name));
            }
        }
        Ok(())
    }

    fn check_update(&mut self, update: Update<&'static str>) -> Result<(), TestCaseError> {
        match update {
            Update::Changed { kind, name, .. } => _ = self.cached.insert((kind, name.to_string())),
            Update::Deleted { kind, name } => {
                let full = matches!(kind, Kind::Listener | Kind::Cluster);
                prop_assert!(full || self.protocol == Incremental, "{kind} deleted by absence");
                prop_assert!(self.cached.contains(&(kind, name.to_string())), "deleted what never came");
            }
            Update::Absent { kind, name } => {
                prop_assert!(!self.cached.contains(&(kind, name.to_string())), "absent though cached");
            }
            Update::Refused { .. }
            | Update::Nameless { .. }
            | Update::Failed { .. }
            | Update::Unreachable => {}
        }
        Ok(())
    }

    /// After everything was sent, the server knows exactly what is watched.
    fn check_settled(&self) -> Result<(), TestCaseError> {
        for (kind, names) in &self.watched {
            let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
            let sent = self.sent.get(kind).cloned().unwrap_or_default();
            if self.up {
                prop_assert_eq!(sent, names, "{} not told", kind);
            }
        }
        Ok(())
    }
}

fn step(script: &mut Script, model: &mut Model, position: usize, event: Event) -> Result<(), TestCaseError> {
    match event {
        Event::Watch(kind, name) => {
            script.ads.watch(kind, NAMES[name]);
            model.watched.entry(kind).or_default().insert(NAMES[name]);
        }
        Event::Unwatch(kind, name) => {
            script.ads.unwatch(kind, NAMES[name]);
            model.watched.entry(kind).or_default().remove(NAMES[name]);
            model.cached.remove(&(kind, NAMES[name].to_owned()));
        }
        Event::Connect => {
            script.connect();
            (model.up, model.first) = (true, true);
            model.sent.clear();
            model.nonces.clear();
            model.said.clear();
        }
        Event::Disconnect => {
            script.disconnect();
            model.up = false;
            prop_assert_eq!(script.ads.poll_timeout(), None);
        }
        Event::Respond(kind, resources) => {
            let (version, nonce) = (format!("v{position}"), format!("n{position}"));
            let named: Vec<(&str, Verdict)> = resources
                .iter()
                .map(|(name, ok)| (NAMES[*name], if *ok { Ok("value") } else { Err("bad") }))
                .collect();
            let unique: BTreeSet<_> = named.iter().map(|(name, _)| name).collect();
            let valid = named.iter().all(|(name, verdict)| !name.is_empty() && verdict.is_ok());
            script.respond(kind, &version, &nonce, &named);
            if model.up {
                for (name, _) in named.iter().filter(|(name, _)| !name.is_empty()) {
                    let is_watched = model.watched.get(&kind).is_some_and(|names| names.contains(name));
                    let key = (kind, (*name).to_owned());
                    if is_watched {
                        model.strays.remove(&key)
                    } else {
                        model.strays.insert(key)
                    };
                }
                model.nonces.entry(kind).or_default().push(nonce);
                if valid && unique.len() == named.len() {
                    model.accepted.insert(kind, version);
                }
            }
        }
        Event::Remove(kind, name) if model.protocol == Incremental => {
            let nonce = format!("n{position}");
            script.remove(kind, &nonce, &[NAMES[name]]);
            if model.up {
                model.nonces.entry(kind).or_default().push(nonce);
            }
        }
        Event::Remove(..) => {}
        Event::Transmit => {
            let requests = script.requests();
            let answers = model.nonces.values().map(Vec::len).sum::<usize>();
            prop_assert!(requests.len() <= 4 * Kind::ALL.len() + answers, "more than one turn needs");
            for request in &requests {
                model.check_request(request)?;
            }
            prop_assert!(!script.ads.wants_transmit(script.now));
            model.check_settled()?;
        }
        Event::Wait(millis) => script.advance(Duration::from_millis(millis)),
    }
    for update in script.updates() {
        model.check_update(update)?;
    }
    if let Some(at) = script.ads.poll_timeout() {
        prop_assert!(at + Duration::from_secs(60) > script.now, "a timer that nobody serves");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_order_of_events_keeps_the_protocol(
        protocol in prop::sample::select(BOTH.to_vec()),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut script = Script::new(protocol);
        let mut model = Model::new(protocol);
        for (position, event) in events.into_iter().enumerate() {
            step(&mut script, &mut model, position, event)?;
        }
    }
}
