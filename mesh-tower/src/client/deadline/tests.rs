//! Deadlines are exact in paused time and cost no timer where nothing waits.

use std::time::Duration;

use mesh_core::deadline::Deadline;
use mesh_core::error::{Reason, Rejection};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::Within;

fn after(wait: Duration) -> Option<Deadline> {
    Some(Deadline { at: (Instant::now() + wait).into_std(), bound: Reason::MaxStreamDuration })
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_too_long_fails_at_the_deadline_with_its_reason() {
    let runtime = Handle::current();
    let began = Instant::now();
    let slow = async {
        sleep(Duration::from_secs(60)).await;
        Ok::<(), Rejection>(())
    };
    let error = Within::new(slow, after(Duration::from_millis(500)), &runtime).await.unwrap_err();
    assert_eq!(error.reason(), Reason::MaxStreamDuration);
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn work_that_is_done_in_time_or_unbounded_is_left_alone() {
    let runtime = Handle::current();
    let work = || async {
        sleep(Duration::from_millis(499)).await;
        Ok::<u8, Rejection>(7)
    };
    assert_eq!(Within::new(work(), after(Duration::from_millis(500)), &runtime).await.unwrap(), 7);
    assert_eq!(Within::new(work(), None, &runtime).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_still_lets_ready_work_through() {
    let runtime = Handle::current();
    let passed = after(Duration::ZERO);
    sleep(Duration::from_millis(1)).await;
    let ready = std::future::ready(Ok::<u8, Rejection>(7));
    assert_eq!(Within::new(ready, passed, &runtime).await.unwrap(), 7);
    let never = std::future::pending::<Result<u8, Rejection>>();
    assert!(Within::new(never, passed, &runtime).await.is_err());
}
