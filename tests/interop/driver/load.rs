//! Calls that never pause while a scenario changes something beneath them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_tests::echo::{EchoClient, EchoRequest};
use mesh_tests::wait::soon;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lab::Transport;

/// Callers that call one call after the other, until the scenario ends them.
#[derive(Debug)]
pub(crate) struct Load {
    callers: JoinSet<()>,
    over: Arc<AtomicBool>,
    tally: watch::Receiver<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    failed: u64,
    first_failure: Option<String>,
}

// === impl Load ===

impl Load {
    /// Starts it on clones of a client.
    pub(crate) fn start<T: Transport>(client: &EchoClient<T>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (count, tally) = watch::channel(Tally::default());
        let count = Arc::new(count);
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut client, over, count) = (client.clone(), Arc::clone(&over), Arc::clone(&count));
            callers.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let result = client.unary(EchoRequest::say("load")).await;
                    count.send_modify(|tally| {
                        tally.calls += 1;
                        if let Err(status) = result {
                            tally.failed += 1;
                            tally.first_failure.get_or_insert_with(|| status.to_string());
                        }
                    });
                    // A refusal at once must not starve those who would change it.
                    tokio::task::yield_now().await;
                }
            });
        }
        Self { callers, over, tally }
    }

    /// Waits until so many further calls have ended.
    pub(crate) async fn goes_on(&mut self, calls: u64) {
        let goal = self.tally.borrow().calls + calls;
        soon(self.tally.wait_for(|tally| tally.calls >= goal)).await.expect("the callers call");
    }

    /// Lets every caller finish its call. Returns how many calls there were.
    ///
    /// # Panics
    /// If one of them failed.
    pub(crate) async fn unharmed(self) -> u64 {
        let Self { callers, over, tally } = self;
        over.store(true, Ordering::Relaxed);
        soon(callers.join_all()).await;
        let Tally { calls, failed, first_failure } = &*tally.borrow();
        assert_eq!(*failed, 0, "{failed} of {calls} calls failed, the first with {first_failure:?}");
        *calls
    }
}

const CALLERS: usize = 4;
