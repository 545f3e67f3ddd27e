//! Which control planes are in use for which authority (gRFC A71), as a sans-IO machine.
//!
//! ```text
//! of one authority, whose control planes are A, B, C:
//!
//! {A} ──A failed, something is not cached──► {A, B} ──B failed, something is not cached──► {A, B, C}
//!  ▲                                           │  ▲                                           │
//!  └────────────────A answered─────────────────┘  └────────────────B answered─────────────────┘
//! ```
//! A control plane has *failed* when it could not be reached, or its stream ended before a response, until it answers.
//! One that is in use stays so, and is tried again and again, until a better one answers; only the first is always in
//! use. All that are in use are asked for everything that is wanted; the last of them is the *active* one. What has been
//! cached stays in use meanwhile. An authority is *down* when the last of its control planes is in use and failed, or
//! when the active one failed and everything is cached: then there is nobody else to ask, or nothing to ask for.
//!
//! Deviation: A71 has a client of its own for each target, so that one target never mixes resources of two control
//! planes for long. Here the targets of a source share the connections, because a stream per target floods control
//! planes and is refused by some (istio#53532); a target that lacks something takes the others along.

use crate::authority::{AuthorityIx, ServerIx};
use crate::outage::Outage;

/// The control planes of each authority, and which of them are in use.
#[derive(Debug)]
pub(super) struct Fallback {
    lists: Vec<List>,
    /// The last error of each control plane, while it has failed.
    failures: Vec<Option<Outage>>,
}

/// The control planes of one authority, best first.
#[derive(Debug)]
struct List {
    servers: Vec<ServerIx>,
    /// So many of them are in use, from the first on. Never none.
    in_use: usize,
}

/// A control plane that an authority no longer uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) authority: AuthorityIx,
    pub(super) server: ServerIx,
}

// === impl Fallback ===

impl Fallback {
    pub(super) fn new(lists: &[Vec<ServerIx>], servers: usize) -> Self {
        let list = |servers: &Vec<ServerIx>| List { servers: servers.clone(), in_use: 1 };
        Self { lists: lists.iter().map(list).collect(), failures: vec![None; servers] }
    }

    pub(super) fn authorities(&self) -> impl Iterator<Item = AuthorityIx> + use<> {
        AuthorityIx::all(self.lists.len())
    }

    /// The control planes that an authority uses, best first.
    pub(super) fn in_use(&self, authority: AuthorityIx) -> &[ServerIx] {
        self.lists.get(authority.get()).map_or(&[], List::in_use)
    }

    /// The one whose word counts for an authority: the last that is in use.
    pub(super) fn active(&self, authority: AuthorityIx) -> Option<ServerIx> {
        self.in_use(authority).last().copied()
    }

    /// Whether an authority could have another control plane than its first.
    pub(super) fn has_choice(&self, authority: AuthorityIx) -> bool {
        self.lists.get(authority.get()).is_some_and(|list| list.servers.len() > 1)
    }

    /// Whether any authority uses a control plane.
    pub(super) fn is_in_use(&self, server: ServerIx) -> bool {
        self.lists.iter().any(|list| list.in_use().contains(&server))
    }

    /// A control plane could not be reached, or its stream ended before a response; `why` names it.
    pub(super) fn handle_failure(&mut self, server: ServerIx, why: &Outage) {
        if let Some(failure) = self.failures.get_mut(server.get()) {
            *failure = Some(why.clone());
        }
    }

    /// A control plane sent a response: those that are less good are closed.
    pub(super) fn handle_answer(&mut self, server: ServerIx) -> Vec<Closed> {
        self.forgive(server);
        let mut closed = Vec::new();
        for (authority, list) in AuthorityIx::all(self.lists.len()).zip(&mut self.lists) {
            if let Some(position) = list.in_use().iter().position(|used| *used == server) {
                closed.extend(
                    list.shrink(position + 1).iter().map(|server| Closed { authority, server: *server }),
                );
            }
        }
        self.forgive_unused(&closed);
        closed
    }

    /// Nothing of an authority is wanted any more: it is as in the beginning.
    pub(super) fn handle_unwanted(&mut self, authority: AuthorityIx) -> Vec<Closed> {
        let Some(list) = self.lists.get_mut(authority.get()) else { return Vec::new() };
        let closed: Vec<Closed> =
            list.shrink(1).iter().map(|server| Closed { authority, server: *server }).collect();
        self.forgive_unused(&closed);
        closed
    }

    /// Nothing is wanted of a control plane any more, so that it is not tried: what it did before is not known to hold.
    pub(super) fn handle_idle(&mut self, server: ServerIx) {
        self.forgive(server);
    }

    /// Something of an authority is not cached: the next control plane, if the active one has failed. To be asked
    /// until it gives none, because the next one may be known to have failed.
    pub(super) fn next(&mut self, authority: AuthorityIx) -> Option<ServerIx> {
        let active = self.active(authority)?;
        self.failure(active)?;
        let list = self.lists.get_mut(authority.get())?;
        let next = list.servers.get(list.in_use).copied()?;
        list.in_use += 1;
        Some(next)
    }

    /// Whether an authority's active control plane has failed while there is another to ask.
    pub(super) fn can_fall_back(&self, authority: AuthorityIx) -> bool {
        let more = self.lists.get(authority.get()).is_some_and(|list| list.in_use < list.servers.len());
        more && self.active(authority).is_some_and(|active| self.failure(active).is_some())
    }

    /// Why an authority cannot be asked, if it cannot: the errors of all control planes that it uses.
    pub(super) fn down(&self, authority: AuthorityIx) -> Option<Outage> {
        let active = self.active(authority)?;
        let last = self.failure(active)?;
        match self.in_use(authority) {
            [_] => Some(last.clone()),
            all => Some(Outage::all(all.iter().filter_map(|server| self.failure(*server)))),
        }
    }

    fn failure(&self, server: ServerIx) -> Option<&Outage> {
        self.failures.get(server.get())?.as_ref()
    }

    fn forgive(&mut self, server: ServerIx) {
        if let Some(failure) = self.failures.get_mut(server.get()) {
            *failure = None;
        }
    }

    /// A connection that nobody uses is gone, and its errors with it.
    fn forgive_unused(&mut self, closed: &[Closed]) {
        for Closed { server, .. } in closed {
            if !self.is_in_use(*server) {
                self.forgive(*server);
            }
        }
    }
}

// === impl List ===

impl List {
    fn in_use(&self) -> &[ServerIx] {
        self.servers.get(..self.in_use).unwrap_or_default()
    }

    /// Uses no more than the first `len`; gives those that are closed by it.
    fn shrink(&mut self, len: usize) -> &[ServerIx] {
        let before = self.in_use;
        self.in_use = before.min(len).max(1);
        self.servers.get(self.in_use..before).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;

    fn ix(server: usize) -> ServerIx {
        ServerIx::of_test(server)
    }

    fn world(lists: &[&[usize]]) -> (Fallback, Vec<AuthorityIx>) {
        let lists: Vec<Vec<ServerIx>> =
            lists.iter().map(|list| list.iter().map(|s| ix(*s)).collect()).collect();
        let fallback = Fallback::new(&lists, 4);
        let authorities = fallback.authorities().collect();
        (fallback, authorities)
    }

    fn fail(fallback: &mut Fallback, server: usize) {
        let why = ["a is down", "b is down", "c is down", "d is down"][server];
        fallback.handle_failure(ix(server), &why.into());
    }

    fn down(fallback: &Fallback, authority: AuthorityIx) -> Option<String> {
        fallback.down(authority).map(|outage| outage.to_string())
    }

    fn answer(fallback: &mut Fallback, server: usize) -> Vec<ServerIx> {
        fallback.handle_answer(ix(server)).into_iter().map(|closed| closed.server).collect()
    }

    #[test]
    fn the_first_is_used_and_nobody_else_until_it_fails() {
        let (mut fallback, authorities) = world(&[&[A, B, C]]);
        assert_eq!(fallback.in_use(authorities[0]), [ix(A)]);
        assert_eq!(fallback.next(authorities[0]), None, "something is not cached, but nothing has failed");
        answer(&mut fallback, A);
        assert_eq!(fallback.next(authorities[0]), None);
    }

    #[test]
    fn one_step_at_a_time_down_the_list() {
        let (mut fallback, authorities) = world(&[&[A, B, C]]);
        let top = authorities[0];
        fail(&mut fallback, A);
        assert_eq!(fallback.next(top), Some(ix(B)));
        assert_eq!(fallback.next(top), None, "B has not failed yet");
        assert_eq!((fallback.active(top), fallback.down(top)), (Some(ix(B)), None));
        fail(&mut fallback, B);
        assert_eq!(fallback.next(top), Some(ix(C)));
        assert_eq!(fallback.down(top), None, "watchers hear of it when all have failed");
        fail(&mut fallback, C);
        assert_eq!(fallback.next(top), None);
        assert_eq!(down(&fallback, top).as_deref(), Some("a is down; b is down; c is down"));
    }

    #[test]
    fn all_that_is_cached_needs_no_fallback_and_the_authority_is_down() {
        let (mut fallback, authorities) = world(&[&[A, B]]);
        fail(&mut fallback, A);
        assert!(fallback.can_fall_back(authorities[0]));
        assert_eq!(down(&fallback, authorities[0]).as_deref(), Some("a is down"));
        assert_eq!(fallback.next(authorities[0]), Some(ix(B)), "a later watch of what is not cached");
    }

    #[test]
    fn a_better_one_that_answers_closes_the_rest() {
        let (mut fallback, authorities) = world(&[&[A, B, C]]);
        let top = authorities[0];
        for server in [A, B] {
            fail(&mut fallback, server);
            fallback.next(top);
        }
        assert_eq!(answer(&mut fallback, C), []);
        assert_eq!(answer(&mut fallback, B), [ix(C)]);
        assert_eq!(fallback.in_use(top), [ix(A), ix(B)]);
        assert_eq!(answer(&mut fallback, A), [ix(B)]);
        assert_eq!(fallback.in_use(top), [ix(A)]);
        fail(&mut fallback, A);
        assert_eq!(fallback.next(top), Some(ix(B)));
        assert_eq!(fallback.next(top), None, "what B did before it was closed is forgotten");
    }

    #[test]
    fn the_first_that_fails_while_the_second_serves_closes_nothing() {
        let (mut fallback, authorities) = world(&[&[A, B]]);
        fail(&mut fallback, A);
        fallback.next(authorities[0]);
        answer(&mut fallback, B);
        for _ in 0..3 {
            fail(&mut fallback, A);
            assert_eq!(fallback.next(authorities[0]), None);
        }
        assert_eq!((fallback.active(authorities[0]), fallback.down(authorities[0])), (Some(ix(B)), None));
    }

    #[test]
    fn each_authority_falls_back_for_itself_over_shared_connections() {
        let (mut fallback, authorities) = world(&[&[A, B], &[C, B], &[A]]);
        fail(&mut fallback, A);
        assert_eq!(fallback.next(authorities[0]), Some(ix(B)));
        assert_eq!(fallback.next(authorities[1]), None, "C has not failed");
        assert_eq!(fallback.next(authorities[2]), None, "it has no other");
        assert_eq!(down(&fallback, authorities[2]).as_deref(), Some("a is down"));
        fail(&mut fallback, C);
        assert_eq!(fallback.next(authorities[1]), Some(ix(B)));
        assert_eq!(answer(&mut fallback, A), [ix(B)]);
        assert!(fallback.is_in_use(ix(B)), "the second authority still uses it");
        assert_eq!(answer(&mut fallback, C), [ix(B)]);
        assert!(!fallback.is_in_use(ix(B)));
    }

    #[test]
    fn one_that_is_known_to_have_failed_is_passed_over() {
        let (mut fallback, authorities) = world(&[&[B], &[A, B, C]]);
        fail(&mut fallback, B);
        fail(&mut fallback, A);
        assert_eq!(fallback.next(authorities[1]), Some(ix(B)));
        assert_eq!(fallback.next(authorities[1]), Some(ix(C)));
        assert_eq!(fallback.next(authorities[1]), None);
    }

    #[test]
    fn an_authority_that_nobody_wants_is_as_in_the_beginning() {
        let (mut fallback, authorities) = world(&[&[A, B]]);
        fail(&mut fallback, A);
        fallback.next(authorities[0]);
        let closed = fallback.handle_unwanted(authorities[0]);
        assert_eq!(closed, [Closed { authority: authorities[0], server: ix(B) }]);
        fallback.handle_idle(ix(A));
        assert_eq!(fallback.down(authorities[0]), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Fail(usize),
        Answer(usize),
        Missing(usize),
        Unwanted(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..4usize).prop_map(Event::Fail),
            (0..4usize).prop_map(Event::Answer),
            (0..3usize).prop_map(Event::Missing),
            (0..3usize).prop_map(Event::Unwanted),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_better_one_that_works_is_never_left_for_a_worse(
            events in prop::collection::vec(event(), 0..60)
        ) {
            let (mut fallback, authorities) = world(&[&[0, 1, 2], &[3, 1], &[2]]);
            let mut answered = [false; 4];
            for event in events {
                match event {
                    Event::Fail(server) => {
                        answered[server] = false;
                        fail(&mut fallback, server);
                    }
                    Event::Answer(server) if fallback.is_in_use(ix(server)) => {
                        answered[server] = true;
                        answer(&mut fallback, server);
                    }
                    Event::Answer(_) => {}
                    Event::Missing(authority) => while fallback.next(authorities[authority]).is_some() {},
                    Event::Unwanted(authority) => _ = fallback.handle_unwanted(authorities[authority]),
                }
                for authority in &authorities {
                    let used = fallback.in_use(*authority);
                    prop_assert!(!used.is_empty());
                    let (_, better) = used.split_last().unwrap();
                    prop_assert!(better.iter().all(|server| !answered[server.get()]), "{used:?} {answered:?}");
                }
            }
        }
    }
}
