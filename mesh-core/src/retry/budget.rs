//! The retry budget: retries as a share of what is in flight (Envoy `retry_budget`).

use crate::config::cluster::RetryBudget;

/// How many retries may be in flight beside `active` requests.
#[must_use]
pub(crate) fn allowed(budget: &RetryBudget, active: u32) -> u32 {
    let share = u64::from(active) * u64::from(budget.budget.get()) / 1_000_000;
    // A share is at most one, so this is at most `active`.
    (share as u32).max(budget.min_retry_concurrency.get())
}
