//! Every control plane of a source behind one face: a protocol machine for each, and for each resource those that are
//! asked for it.
//!
//! Reference: gRFC A47 (the name of a resource decides its authority), A71 (the authority decides its control planes, see
//! [`Fallback`]), A88 (features of a control plane rule what comes from it). Without IO.
//!
//! Deviation: what a timer found absent (A57) does not count as known to be absent where the control plane never answered
//! on that stream. Else one that takes connections and is silent could not be fallen back from.
//!
//! A control plane that is left for a while cannot know what another one said meanwhile. So its versions are forgotten
//! when another takes its place, which makes it send everything again; and what came from the other counts as cached,
//! which makes what it does not have a deletion.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use mesh_core::snapshot::ConfigProblem;

use super::fallback::{Closed, Fallback};
use crate::ads::{ABSENT_AFTER, ABSENT_AFTER_TRANSIENT, Ads, Kind, Name, Request, Response, Update};
use crate::authority::{Authorities, AuthorityIx, ServerIx};
use crate::bootstrap::{ServerConfig, ServerFeatures};
use crate::outage::Outage;
use crate::resource::Accepted;
use crate::store::OnDataError;

/// The control planes of one source.
#[derive(Debug)]
pub(super) struct Federation {
    authorities: Authorities,
    fallback: Fallback,
    servers: Vec<Server>,
    /// How many resources of each authority are watched.
    watched: Vec<usize>,
    /// Something happened that could make an authority fall back, or be down.
    unsettled: bool,
}

/// One control plane.
#[derive(Debug)]
struct Server {
    ads: Ads<Accepted>,
    config: ServerConfig,
    /// Why it was lost the last time.
    lost: Outage,
    /// What did not come in time on a stream without any response: nobody said that it does not exist.
    doubted: BTreeSet<(Kind, Name)>,
}

// === impl Federation ===

impl Federation {
    pub(super) fn new(authorities: Authorities) -> Self {
        let servers: Vec<Server> =
            authorities.servers().map(|(_, config)| Server::new(config.clone())).collect();
        let lists = authorities.lists();
        Self {
            fallback: Fallback::new(lists, servers.len()),
            watched: vec![0; lists.len()],
            servers,
            authorities,
            unsettled: false,
        }
    }

    /// Begins to watch a resource, or says why it can never come.
    pub(super) fn watch(&mut self, kind: Kind, name: &Name) -> Result<(), Arc<str>> {
        let authority = self.authorities.of(kind, name)?;
        if let Some(watched) = self.watched.get_mut(authority.get()) {
            *watched += 1;
        }
        for server in self.fallback.in_use(authority) {
            if let Some(server) = self.servers.get_mut(server.get()) {
                server.ads.watch(kind, name.clone());
            }
        }
        self.unsettled = true;
        Ok(())
    }

    pub(super) fn unwatch(&mut self, kind: Kind, name: &Name) {
        // What has no authority was never watched.
        let Ok(authority) = self.authorities.of(kind, name) else { return };
        for server in self.fallback.in_use(authority) {
            if let Some(server) = self.servers.get_mut(server.get()) {
                server.ads.unwatch(kind, name);
                server.doubted.remove(&(kind, name.clone()));
            }
        }
        let Some(watched) = self.watched.get_mut(authority.get()) else { return };
        *watched = watched.saturating_sub(1);
        if *watched == 0 {
            let closed = self.fallback.handle_unwanted(authority);
            self.close(closed);
        }
    }

    /// The value that a control plane sent is not kept.
    pub(super) fn forget_value(&mut self, server: ServerIx, kind: Kind, name: &Name) {
        if let Some(server) = self.servers.get_mut(server.get()) {
            server.ads.forget_value(kind, name);
        }
    }

    /// The value of a resource is to be sent again, because the one that came was not kept.
    pub(super) fn renew(&mut self, kind: Kind, name: &Name) {
        let Ok(authority) = self.authorities.of(kind, name) else { return };
        for server in self.fallback.in_use(authority) {
            if let Some(server) = self.servers.get_mut(server.get()) {
                server.ads.renew(kind, name);
            }
        }
    }

    /// How many resources of a kind are watched, once for each control plane that is asked for them.
    pub(super) fn watched(&self, kind: Kind) -> usize {
        self.servers.iter().map(|server| server.ads.watched(kind).len()).sum()
    }

    pub(super) fn is_watched(&self, kind: Kind, name: &str) -> bool {
        self.servers.iter().any(|server| server.ads.is_watched(kind, name))
    }

    /// Whether nothing is wanted of a control plane.
    pub(super) fn is_idle(&self, server: ServerIx) -> bool {
        self.servers.get(server.get()).is_none_or(|server| server.ads.is_idle())
    }

    /// Whether an authority uses a control plane at all: one that is not is closed at once.
    pub(super) fn is_in_use(&self, server: ServerIx) -> bool {
        self.fallback.is_in_use(server)
    }

    pub(super) fn handle_connected(
        &mut self,
        server: ServerIx,
        now: Instant,
        is_cached: impl Fn(Kind, &str) -> bool,
    ) {
        if let Some(connected) = self.servers.get_mut(server.get()) {
            connected.ads.handle_connected(now);
        }
        self.adopt(server, is_cached);
    }

    /// The connection failed, or the stream ended; `why` names the control plane.
    pub(super) fn handle_disconnected(&mut self, server: ServerIx, now: Instant, why: &Outage) {
        if let Some(server) = self.servers.get_mut(server.get()) {
            server.lost = why.clone();
            server.ads.handle_disconnected(now);
        }
    }

    /// Nothing is wanted of a control plane, and it is not tried any more.
    pub(super) fn handle_idle(&mut self, server: ServerIx) {
        self.fallback.handle_idle(server);
    }

    pub(super) fn handle_response(&mut self, server: ServerIx, now: Instant, response: Response<Accepted>) {
        let closed = self.fallback.handle_answer(server);
        self.close(closed);
        if let Some(server) = self.servers.get_mut(server.get()) {
            server.doubted.clear();
            server.ads.handle_response(now, response);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for server in &mut self.servers {
            server.ads.handle_timeout(now);
        }
    }

    /// When to call [`Federation::handle_timeout`]. A deadline that has passed is an answer that waits for room.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let deadlines = self.servers.iter().filter_map(|server| server.ads.poll_timeout());
        deadlines.filter(|at| *at > now).min()
    }

    pub(super) fn wants_transmit(&self, server: ServerIx, now: Instant) -> bool {
        self.servers.get(server.get()).is_some_and(|server| server.ads.wants_transmit(now))
    }

    pub(super) fn poll_transmit(&mut self, server: ServerIx, now: Instant) -> Option<Request> {
        self.servers.get_mut(server.get())?.ads.poll_transmit(now)
    }

    /// The next thing that is new, and the control plane that it came from.
    pub(super) fn poll_update(&mut self) -> Option<(ServerIx, Update<Accepted>)> {
        for (server, (index, _)) in self.servers.iter_mut().zip(self.authorities.servers()) {
            while let Some(update) = server.ads.poll_update() {
                if update == Update::Unreachable {
                    self.fallback.handle_failure(index, &server.lost);
                    self.unsettled = true;
                    continue;
                }
                if let Update::Absent { kind, name } = &update
                    && !server.ads.is_answered()
                {
                    server.doubted.insert((*kind, name.clone()));
                }
                return Some((index, update));
            }
        }
        None
    }

    /// Falls back where something of an authority is not cached and its control plane has failed. Gives the authorities
    /// that nobody can be asked about, with the reason; they may have been given before.
    pub(super) fn poll_down(
        &mut self,
        is_cached: impl Fn(Kind, &str) -> bool,
        is_known: impl Fn(Kind, &str) -> bool,
    ) -> Vec<(AuthorityIx, Outage)> {
        if !std::mem::take(&mut self.unsettled) {
            return Vec::new();
        }
        let mut down = Vec::new();
        for authority in self.fallback.authorities() {
            if self.fallback.can_fall_back(authority) {
                let names = self.names(authority);
                let is_doubted = |key| self.servers.iter().any(|server| server.doubted.contains(key));
                if names.iter().any(|key| !is_known(key.0, &key.1) || is_doubted(key)) {
                    self.fall_back(authority, &names, &is_cached);
                }
            }
            if let Some(why) = self.fallback.down(authority) {
                down.push((authority, why));
            }
        }
        down
    }

    /// Whether a resource belongs to an authority.
    pub(super) fn is_of(&self, authority: AuthorityIx, kind: Kind, name: &str) -> bool {
        self.authorities.of(kind, name) == Ok(authority)
    }

    /// What a refused or deleted resource of a control plane does to the value that is cached.
    pub(super) fn on_data_error(&self, server: ServerIx) -> OnDataError {
        match self.features(server).fail_on_data_errors {
            true => OnDataError::Drop,
            false => OnDataError::Keep,
        }
    }

    /// The same, for a resource whose control plane is to be found by its name.
    pub(super) fn on_data_error_of(&self, kind: &str, name: &str) -> OnDataError {
        let kind = Kind::ALL.into_iter().find(|known| known.noun() == kind);
        let authority = kind.and_then(|kind| self.authorities.of(kind, name).ok());
        let active = authority.and_then(|authority| self.fallback.active(authority));
        active.map_or(OnDataError::Keep, |server| self.on_data_error(server))
    }

    /// What it means that a control plane did not send a resource in time (gRFC A57, A88).
    pub(super) fn absent(&self, server: ServerIx) -> ConfigProblem {
        match self.servers.get(server.get()) {
            Some(server) if server.config.features().resource_timer_is_transient_error => {
                let (uri, after) = (server.config.uri(), ABSENT_AFTER_TRANSIENT.as_secs());
                ConfigProblem::Unreachable(format!("{uri}: it did not answer within {after} s").into())
            }
            Some(_) | None => ConfigProblem::DoesNotExist,
        }
    }

    fn features(&self, server: ServerIx) -> ServerFeatures {
        self.servers.get(server.get()).map(|server| server.config.features()).unwrap_or_default()
    }

    /// Everything of an authority that is watched: its first control plane is always asked.
    pub(super) fn names(&self, authority: AuthorityIx) -> Vec<(Kind, Name)> {
        let first = self.fallback.in_use(authority).first();
        let Some(first) = first.and_then(|first| self.servers.get(first.get())) else { return Vec::new() };
        let all =
            Kind::ALL.into_iter().flat_map(|kind| first.ads.watched(kind).map(move |name| (kind, name)));
        all.filter(|(kind, name)| self.is_of(authority, *kind, name))
            .map(|(kind, name)| (kind, name.clone()))
            .collect()
    }

    fn fall_back(
        &mut self,
        authority: AuthorityIx,
        names: &[(Kind, Name)],
        is_cached: &impl Fn(Kind, &str) -> bool,
    ) {
        while let Some(next) = self.fallback.next(authority) {
            for better in self.fallback.in_use(authority).iter().filter(|server| **server != next) {
                if let Some(better) = self.servers.get_mut(better.get()) {
                    better.ads.forget_versions();
                }
            }
            if let Some(server) = self.servers.get_mut(next.get()) {
                tracing::warn!(
                    server = server.config.uri().as_str(),
                    "falling back to another control plane"
                );
                for (kind, name) in names {
                    server.ads.watch(*kind, name.clone());
                }
            }
            self.adopt(next, is_cached);
        }
    }

    /// What is cached need not have come from this control plane.
    fn adopt(&mut self, server: ServerIx, is_cached: impl Fn(Kind, &str) -> bool) {
        let has_choice = self.fallback.authorities().any(|authority| {
            self.fallback.has_choice(authority) && self.fallback.in_use(authority).contains(&server)
        });
        if let Some(server) = self.servers.get_mut(server.get()).filter(|_| has_choice) {
            server.ads.adopt(is_cached);
        }
    }

    fn close(&mut self, closed: Vec<Closed>) {
        for Closed { authority, server } in closed {
            let names = self.names(authority);
            let is_in_use = self.fallback.is_in_use(server);
            let Some(server) = self.servers.get_mut(server.get()) else { continue };
            tracing::info!(server = server.config.uri().as_str(), "fallback control plane no longer needed");
            if is_in_use {
                for (kind, name) in names {
                    server.ads.unwatch(kind, &name);
                }
            } else {
                *server = Server::new(server.config.clone());
            }
        }
    }
}

// === impl Server ===

impl Server {
    fn new(config: ServerConfig) -> Self {
        let is_transient = config.features().resource_timer_is_transient_error;
        let absent_after = if is_transient { ABSENT_AFTER_TRANSIENT } else { ABSENT_AFTER };
        let ads = Ads::new(config.protocol(), absent_after);
        Self { ads, config, lost: Outage::from(""), doubted: BTreeSet::new() }
    }
}
