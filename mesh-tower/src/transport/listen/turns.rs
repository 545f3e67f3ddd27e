//! Turns at the cryptography of handshakes: one per processor at a time, shared out fairly.
//!
//! Addresses take turns, so that one which sends a thousand ClientHellos at once waits for itself. Within an address the
//! oldest comes first, until it has waited for [`LATE`]: then there is more to do than can be done, whoever has waited
//! longest is the likeliest to have given up, and the newest comes first ("adaptive LIFO").

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pending::Origin;

/// Long for a handshake, short for its client.
const LATE: Duration = Duration::from_millis(100);

/// The turns of one listener.
#[derive(Debug)]
pub(super) struct Turns {
    inner: Mutex<Inner>,
}

/// Everything that changes when a turn is taken, awaited or ended.
#[derive(Debug)]
struct Inner {
    free: usize,
    waiting: HashMap<Origin, VecDeque<Waiter>>,
    /// The keys of `waiting`, the next one first.
    order: VecDeque<Origin>,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    turn: oneshot::Sender<Turn>,
}

/// The right to compute; dropping it passes it on.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Option<Arc<Turns>>,
}

// === impl Turns ===

impl Turns {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        let inner = Inner { free: at_once, waiting: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Waits for a turn. Cancel safe: a turn that comes too late is passed on.
    pub(super) async fn take(self: &Arc<Self>, origin: Origin) -> Turn {
        let waiting = {
            let mut inner = self.lock();
            if inner.free > 0 {
                inner.free -= 1;
                return Turn { turns: Some(self.clone()) };
            }
            inner.wait(origin, Instant::now())
        };
        match waiting.await {
            Ok(turn) => turn,
            // A waiter is dropped by its turn alone, or because its receiver is gone.
            Err(_) => std::future::pending().await,
        }
    }

    fn pass_on(self: Arc<Self>) {
        let mut turn = Turn { turns: Some(self) };
        loop {
            let Some(turns) = turn.turns.take() else { return };
            let mut inner = turns.lock();
            let Some(waiter) = inner.next(Instant::now()) else {
                inner.free += 1;
                return;
            };
            drop(inner);
            match waiter.turn.send(Turn { turns: Some(turns) }) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No section panics between two changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn wait(&mut self, origin: Origin, now: Instant) -> oneshot::Receiver<Turn> {
        let (turn, receiver) = oneshot::channel();
        let waiting = self.waiting.entry(origin).or_default();
        if waiting.is_empty() {
            self.order.push_back(origin);
        }
        // Where the newest come first, those that gave up would stay for ever.
        while waiting.front().is_some_and(|waiter| waiter.turn.is_closed()) {
            waiting.pop_front();
        }
        waiting.push_back(Waiter { since: now, turn });
        receiver
    }

    fn next(&mut self, now: Instant) -> Option<Waiter> {
        let origin = self.order.pop_front()?;
        let waiting = self.waiting.get_mut(&origin)?;
        let late = waiting.front().is_some_and(|waiter| now.duration_since(waiter.since) >= LATE);
        let next = if late { waiting.pop_back() } else { waiting.pop_front() };
        if waiting.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.order.push_back(origin);
        }
        next
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::task::{Spawn, spawn};

    use super::*;

    fn address(last: u8) -> Origin {
        Some([10, 0, 0, last].into())
    }

    type Taking = std::pin::Pin<Box<dyn Future<Output = Turn> + Send>>;

    /// Those who wait, in the order in which they came.
    fn wait(turns: &Arc<Turns>, origins: &[u8]) -> Vec<Spawn<Taking>> {
        let wait = |last: &u8| {
            let (turns, origin) = (turns.clone(), address(*last));
            let mut taking: Spawn<Taking> = spawn(Box::pin(async move { turns.take(origin).await }));
            assert!(taking.poll().is_pending());
            taking
        };
        origins.iter().map(wait).collect()
    }

    /// Ends one turn after the other; the order in which the others got theirs.
    fn served(turn: Turn, mut waiting: Vec<Spawn<Taking>>) -> Vec<usize> {
        let (mut order, mut current) = (Vec::new(), Some(turn));
        while let Some(turn) = current.take() {
            drop(turn);
            let next = waiting.iter().position(|taking| taking.is_woken());
            if let Some(number) = next {
                order.push(number);
                match waiting[number].poll() {
                    std::task::Poll::Ready(turn) => current = Some(turn),
                    std::task::Poll::Pending => panic!("woken without a turn"),
                }
                waiting[number] = spawn(Box::pin(std::future::pending()));
            }
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_take_turns_and_the_oldest_of_an_address_comes_first() {
        let turns = Turns::new(1);
        let turn = turns.take(address(1)).await;
        let waiting = wait(&turns, &[1, 1, 1, 2, 3, 2]);
        assert_eq!(served(turn, waiting), [0, 3, 4, 1, 5, 2]);
        assert_eq!(turns.lock().free, 1);
        assert!(turns.lock().waiting.is_empty() && turns.lock().order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_comes_first_where_there_is_more_than_can_be_done() {
        let turns = Turns::new(1);
        let turn = turns.take(address(1)).await;
        let mut waiting = wait(&turns, &[1, 1]);
        tokio::time::advance(LATE).await;
        waiting.extend(wait(&turns, &[1, 2]));
        assert_eq!(served(turn, waiting), [2, 3, 1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_takes_no_turn_and_leaves_nothing() {
        let turns = Turns::new(1);
        let turn = turns.take(address(1)).await;
        let mut waiting = wait(&turns, &[1, 1, 2, 1, 2]);
        for gone in [0, 2, 4] {
            waiting[gone] = spawn(Box::pin(std::future::pending()));
        }
        assert_eq!(served(turn, waiting), [1, 3]);
        // One that was given its turn, and drops it without having looked.
        let turn = turns.take(address(1)).await;
        let waiting = wait(&turns, &[1]);
        drop(turn);
        assert_eq!(turns.lock().free, 0);
        drop(waiting);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_gave_up_do_not_pile_up_while_the_newest_come_first() {
        let turns = Turns::new(1);
        let _turn = turns.take(address(1)).await;
        for _ in 0..1_000 {
            drop(wait(&turns, &[1]));
        }
        assert!(turns.lock().waiting[&address(1)].len() <= 2);
    }
}
