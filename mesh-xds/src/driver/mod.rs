//! The driver: the only task of a source. It moves bytes between the control planes and the [`Engine`], and owns the
//! clock.
//!
//! One task for all control planes: each has a [`Link`], and the task waits for what happens first on any of them. In
//! every state targets can be opened and closed. Everything ends with the task: the source aborts it when it is
//! dropped. Works on any tokio runtime; nothing is spawned but what tonic needs for a connection, and that ends with
//! the connection.

mod engine;
mod fallback;
mod federation;
mod judged;
mod link;
mod reports;
mod targets;
#[cfg(test)]
mod tests;
mod used;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use mesh_core::rng::Xoshiro;
use tokio::time::sleep_until;

pub(crate) use self::engine::Engine;
pub(crate) use self::reports::Reports;
pub(crate) use self::targets::Targets;

use self::link::{Happened, Link, Turn, Wanted};

use crate::authority::Authorities;
use crate::bootstrap::{Bootstrap, ServerConfig};
use crate::transport::connect::Connect;
use crate::transport::{Decoder, Message};

/// A worker of a runtime looks whether it ends at least once in so many polls (tokio's `event_interval`, and some more).
const POLLS_TO_THE_END: usize = 64;

/// The task of one source.
pub(crate) struct Driver {
    targets: Arc<Targets>,
    engine: Engine,
    links: Vec<Link>,
    decoder: Decoder,
    rng: Xoshiro,
}

/// What the loop woke up for.
enum Event {
    /// On a link.
    Link(usize, Happened),
    Targets,
    Timer,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(
        bootstrap: &Arc<Bootstrap>,
        connector: &Arc<dyn Connect>,
        targets: Arc<Targets>,
        reports: Reports,
        rng: Xoshiro,
    ) -> Self {
        let authorities = Authorities::new(bootstrap);
        let link = |(server, config): (_, &ServerConfig)| {
            Link::new(server, bootstrap.clone(), config.clone(), connector.clone())
        };
        Self {
            links: authorities.servers().map(link).collect(),
            decoder: Decoder::new(bootstrap).keep_bytes(reports.last_good.is_on()),
            engine: Engine::new(authorities, bootstrap.node().id().into(), reports),
            targets,
            rng,
        }
    }

    /// Runs for ever; drop or abort it to end.
    pub(crate) async fn run(mut self) {
        loop {
            let now = now();
            self.engine.handle_timeout(now);
            self.engine.settle();
            self.turn(now);
            match self.next(now).await {
                // The next turn does what is due.
                Event::Timer => {}
                Event::Targets => self.engine.sync(self.targets.open()),
                Event::Link(index, happened) => {
                    self.handle(index, happened).await;
                    // So that none of them can keep the others waiting.
                    self.links.rotate_left(1);
                }
            }
        }
    }

    /// What is due on the links.
    fn turn(&mut self, now: Instant) {
        let Self { engine, links, rng, .. } = self;
        for link in links {
            let wanted = match (engine.is_in_use(link.server), engine.is_idle(link.server)) {
                (false, _) => Wanted::Gone,
                (true, true) => Wanted::Nothing,
                (true, false) => Wanted::Something,
            };
            match link.turn(now, wanted, rng) {
                Turn::Same => {}
                Turn::Closed => {
                    let why = format!("{}: the stream is closed", link.uri());
                    engine.handle_disconnected(link.server, now, &why.into());
                }
                Turn::Idle => engine.handle_idle(link.server),
            }
        }
    }

    async fn next(&mut self, now: Instant) -> Event {
        let Self { targets, engine, links, .. } = self;
        let due = links.iter().filter_map(Link::poll_timeout).chain(engine.poll_timeout(now)).min();
        tokio::select! {
            biased;
            () = targets.changed() => Event::Targets,
            () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => Event::Timer,
            (index, happened) = poll_fn(|cx| poll_links(links, engine, now, cx)) => Event::Link(index, happened),
        }
    }

    async fn handle(&mut self, index: usize, happened: Happened) {
        let Self { engine, links, rng, .. } = self;
        let Some(link) = links.get_mut(index) else { return };
        match happened {
            Happened::Connected => engine.handle_connected(link.server, now()),
            Happened::Response(response) => self.handle_response(index, response).await,
            Happened::Room => self.transmit(index),
            Happened::Lost(why) => {
                // A runtime that ends drops the task of the connection at times before this one, and that is no failure.
                // A worker that has seen the end polls nothing any more: the process ends without a word.
                for _ in 0..POLLS_TO_THE_END {
                    tokio::task::yield_now().await;
                }
                let retry_in = link.handle_lost(now(), rng);
                let server = link.uri();
                tracing::warn!(server, error = %why, ?retry_in, "control plane connection failed");
                engine.handle_disconnected(link.server, now(), &why.at(server));
            }
        }
    }

    async fn handle_response(&mut self, index: usize, message: Message) {
        let Self { engine, links, decoder, .. } = self;
        let Some(link) = links.get_mut(index) else { return };
        let type_url = message.type_url().to_owned();
        link.handle_response();
        match decoder.decode(message).await {
            Some(response) => {
                let (kind, version, resources) =
                    (response.kind, &*response.version, response.resources.len());
                tracing::debug!(server = link.uri(), %kind, version, resources, "response received");
                engine.handle_response(link.server, now(), response);
                decoder.shrink(kind, engine.watched(kind), |name| engine.is_watched(kind, name));
            }
            None => tracing::warn!(type_url, "control plane sent a type that was not asked for; ignored"),
        }
    }

    fn transmit(&mut self, index: usize) {
        let Some(link) = self.links.get_mut(index) else { return };
        let Some(request) = self.engine.poll_transmit(link.server, now()) else {
            link.release();
            return;
        };
        let (server, kind, names) = (link.uri(), request.kind, request.names().len());
        match &request.refusal {
            Some(refusal) => tracing::warn!(server, %kind, refusal = &**refusal, "response refused (NACK)"),
            None if request.nonce.is_empty() => tracing::debug!(server, %kind, names, "subscribing"),
            None => tracing::debug!(server, %kind, names, "response accepted (ACK), or names changed"),
        }
        link.send(request);
    }
}

fn poll_links(
    links: &mut [Link],
    engine: &Engine,
    now: Instant,
    cx: &mut Context<'_>,
) -> Poll<(usize, Happened)> {
    for (index, link) in links.iter_mut().enumerate() {
        let wants_room = engine.wants_transmit(link.server, now);
        if let Poll::Ready(happened) = link.poll(cx, wants_room) {
            return Poll::Ready((index, happened));
        }
    }
    Poll::Pending
}

/// The clock of tokio, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
