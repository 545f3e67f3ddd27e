//! Habits of real control planes, istiod's above all, played out on the machine.

use super::*;

/// What istiod does on an incremental stream that differs from the protocol: it forgets a subscription with the removal.
struct Istiod {
    subscribed: BTreeSet<Name>,
    existing: BTreeMap<Name, &'static str>,
    nonce: usize,
    /// The subscription is empty and of a kind for which that means everything.
    everything: bool,
}

impl Istiod {
    fn new(existing: &[(&str, &'static str)]) -> Self {
        let existing = existing.iter().map(|(name, value)| (Name::from(*name), *value)).collect();
        Self { subscribed: BTreeSet::new(), existing, nonce: 0, everything: false }
    }

    /// Takes all requests of the client, and answers those for names.
    fn serve(&mut self, script: &mut Script, kind: Kind) {
        for request in script.requests() {
            let Ask::Changes { subscribe, unsubscribe, .. } = &request.ask else { panic!("{request:?}") };
            if request.refusal.is_some() {
                continue; // not looked at any further
            }
            for name in unsubscribe {
                self.subscribed.remove(name);
            }
            self.subscribed.extend(subscribe.iter().cloned());
            if !subscribe.is_empty() {
                self.send(script, kind, subscribe.iter().cloned().collect());
            }
        }
    }

    /// Every change sends everything that is subscribed to.
    fn push(&mut self, script: &mut Script, kind: Kind) {
        self.send(script, kind, self.subscribed.clone());
    }

    fn send(&mut self, script: &mut Script, kind: Kind, names: BTreeSet<Name>) {
        let names = if self.everything { self.existing.keys().cloned().collect() } else { names };
        let (found, removed): (Vec<Name>, Vec<Name>) =
            names.into_iter().partition(|name| self.existing.contains_key(name));
        for name in &removed {
            self.subscribed.remove(name);
        }
        self.everything = kind == Kind::Listener && self.subscribed.is_empty();
        let received = |name: &Name| Received {
            name: Some(name.clone()),
            version: Some("".into()),
            ttl: None,
            verdict: Ok(self.existing[name]),
        };
        let resources = found.iter().map(received).collect();
        self.nonce += 1;
        let response = Response { resources, removed, ..empty(kind, "", &self.nonce.to_string()) };
        script.ads.handle_response(script.now, response);
    }
}

/// Lets time pass, and serves what is said meanwhile; how many requests for names there were.
fn pass(script: &mut Script, istiod: &mut Istiod, kind: Kind, time: Duration) -> usize {
    let end = script.now + time;
    let before = istiod.nonce;
    loop {
        istiod.serve(script, kind);
        match script.ads.poll_timeout() {
            Some(at) if at <= end => script.advance(at.saturating_duration_since(script.now)),
            Some(_) | None => break,
        }
    }
    script.advance(end - script.now);
    istiod.nonce - before
}

#[test]
fn istiod_forgets_a_subscription_with_the_removal_and_the_return_is_seen_all_the_same() {
    let mut istiod = Istiod::new(&[("a", "v"), ("b", "w")]);
    let mut script = Script::new(Incremental);
    script.ads.watch(Kind::Cluster, "a");
    script.ads.watch(Kind::Cluster, "b");
    script.connect();
    istiod.serve(&mut script, Kind::Cluster);
    script.updates();
    istiod.existing.remove("a");
    istiod.push(&mut script, Kind::Cluster);
    assert_eq!(script.updates(), [changed(Kind::Cluster, "b", "", "w"), deleted(Kind::Cluster, "a")]);
    pass(&mut script, &mut istiod, Kind::Cluster, Duration::from_secs(600));
    script.updates();
    istiod.existing.insert("a".into(), "back");
    // A change anywhere is pushed, which says that it is worth asking again soon.
    istiod.push(&mut script, Kind::Cluster);
    pass(&mut script, &mut istiod, Kind::Cluster, Duration::from_millis(500));
    let back = changed(Kind::Cluster, "a", "", "back");
    assert!(script.updates().contains(&back));
}

#[test]
fn a_removed_name_is_asked_for_again_ever_more_seldom_and_at_last_every_half_minute() {
    let mut istiod = Istiod::new(&[]);
    let mut script = Script::new(Incremental);
    script.ads.watch(Kind::Cluster, "a");
    script.connect();
    istiod.serve(&mut script, Kind::Cluster);
    assert_eq!(script.updates(), [absent(Kind::Cluster, "a")], "known at once");
    let first = pass(&mut script, &mut istiod, Kind::Cluster, Duration::from_secs(60));
    let later = pass(&mut script, &mut istiod, Kind::Cluster, Duration::from_secs(600));
    assert_eq!((first, later), (6, 20));
    assert_eq!(script.updates(), []);
    istiod.existing.insert("a".into(), "v");
    pass(&mut script, &mut istiod, Kind::Cluster, Duration::from_secs(30));
    assert_eq!(script.updates(), [changed(Kind::Cluster, "a", "", "v")]);
    assert_eq!(script.ads.poll_timeout(), None, "and then no more");
}

#[test]
fn a_removed_name_that_is_no_longer_watched_is_not_asked_for_again() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.remove(Kind::Cluster, "n1", &["a"]);
    script.ads.unwatch(Kind::Cluster, "a");
    script.requests();
    assert_eq!(script.ads.poll_timeout(), None);
    script.advance(Duration::from_secs(60));
    assert_eq!(script.requests(), []);
}

#[test]
fn an_emptied_listener_list_becomes_a_wildcard_push_of_which_nothing_is_kept() {
    let mut istiod = Istiod::new(&[("a", "v"), ("x", "x"), ("y", "y")]);
    let mut script = Script::new(Incremental);
    script.ads.watch(Kind::Listener, "a");
    script.connect();
    istiod.serve(&mut script, Kind::Listener);
    script.updates();
    istiod.existing.remove("a");
    istiod.push(&mut script, Kind::Listener);
    assert_eq!(script.updates(), [deleted(Kind::Listener, "a")]);
    istiod.push(&mut script, Kind::Listener);
    assert_eq!((script.updates(), script.ads.watched(Kind::Listener).len()), (vec![], 1));
    istiod.existing.insert("a".into(), "back");
    pass(&mut script, &mut istiod, Kind::Listener, Duration::from_secs(1));
    assert_eq!(script.updates().last(), Some(&changed(Kind::Listener, "a", "", "back")));
}

#[test]
fn resources_that_are_sent_again_with_every_change_are_answered_once_each() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Cluster, &["a", "b"]);
        for nonce in ["n1", "n2", "n3"] {
            script.respond(Kind::Cluster, "", nonce, &[("a", Ok("v")), ("b", Ok("w"))]);
            let request = script.request();
            assert_eq!((&*request.nonce, &request.refusal), (nonce, &None));
            assert_eq!(script.updates().len(), 2, "equal values, for the store to compare");
        }
    }
}

#[test]
fn endpoints_of_a_cluster_that_is_gone_are_not_kept() {
    for protocol in BOTH {
        let mut script = Script::watching(protocol, Kind::Endpoints, &["a"]);
        script.ads.unwatch(Kind::Endpoints, "a");
        script.requests();
        script.respond(Kind::Endpoints, "1", "n1", &[("a", Ok("v"))]);
        assert_eq!(script.request().refusal, None);
        assert_eq!((script.updates(), script.ads.is_idle()), (vec![], true));
    }
}

/// An answer with a nonce that is no longer the latest is dropped by istiod, with all that is in it.
#[test]
fn names_are_told_although_the_answer_beside_them_comes_too_late() {
    let mut script = Script::watching(Incremental, Kind::Cluster, &["a"]);
    script.respond(Kind::Cluster, "1", "n1", &[("a", Ok("v"))]);
    script.ads.watch(Kind::Cluster, "b");
    let told = script.requests().into_iter().filter(|request| request.nonce.is_empty());
    assert_eq!(told.map(|request| request.names().len()).sum::<usize>(), 1);
}
