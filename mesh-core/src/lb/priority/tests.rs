use proptest::prelude::*;

use super::Connectivity::{Connecting, Idle, Ready, TransientFailure};
use super::*;

/// Time as an offset; the origin itself means nothing.
struct Machine {
    priorities: Priorities,
    origin: Instant,
}

impl Machine {
    fn new() -> Self {
        let origin = *ORIGIN;
        Self { priorities: Priorities::new(), origin }
    }

    fn at(&mut self, seconds: u64, states: &[Connectivity]) -> Option<usize> {
        self.priorities.update(self.origin + Duration::from_secs(seconds), states)
    }

    fn wake(&self) -> Option<u64> {
        Some((self.priorities.next_wake()? - self.origin).as_secs())
    }

    fn wanted(&self) -> Vec<bool> {
        (0..self.priorities.children.len()).map(|p| self.priorities.wants(p)).collect()
    }

    fn kept(&self) -> Vec<bool> {
        (0..self.priorities.children.len()).map(|p| self.priorities.keeps(p)).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "an instant to count from: there is no other way to make one")]
static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

#[test]
fn no_priority_is_no_choice() {
    assert_eq!(Machine::new().at(0, &[]), None);
}

#[test]
fn lower_priorities_are_not_touched_while_the_first_is_good_or_trying() {
    let mut m = Machine::new();
    assert_eq!(m.at(0, &[Idle, Idle]), Some(0));
    assert_eq!((m.wanted(), m.wake()), (vec![true, false], None));
    assert_eq!(m.at(1, &[Connecting, Idle]), Some(0));
    assert_eq!((m.wanted(), m.wake()), (vec![true, false], Some(11)));
    assert_eq!(m.at(5, &[Connecting, Idle]), Some(0));
    assert_eq!(m.wake(), Some(11), "CONNECTING again does not restart the timer");
    assert_eq!(m.at(6, &[Ready, Idle]), Some(0));
    assert_eq!(m.wake(), None, "READY ends it");
}

#[test]
fn failover_is_at_once_on_failure_and_after_ten_seconds_of_trying() {
    let mut m = Machine::new();
    assert_eq!(m.at(0, &[Connecting, Idle]), Some(0));
    assert_eq!(m.at(2, &[TransientFailure, Idle]), Some(1));
    assert_eq!(m.wanted(), [true, true], "the first goes on trying");

    let mut m = Machine::new();
    assert_eq!(m.at(0, &[Connecting, Idle]), Some(0));
    assert_eq!(m.at(9, &[Connecting, Idle]), Some(0));
    assert_eq!(m.at(10, &[Connecting, Connecting]), Some(1));
    assert_eq!(m.wake(), Some(20));
    // Neither in time: the first that is still trying takes the requests, which wait.
    assert_eq!(m.at(20, &[Connecting, Connecting]), Some(0));
    assert_eq!(m.wake(), None);
    assert_eq!(m.at(21, &[TransientFailure, Connecting]), Some(1));
    assert_eq!(m.at(22, &[TransientFailure, TransientFailure]), Some(1), "the last fails the requests");
}

#[test]
fn failback_is_at_once_and_the_lower_priority_is_kept_for_fifteen_minutes() {
    let mut m = Machine::new();
    m.at(0, &[TransientFailure, Idle]);
    assert_eq!(m.at(1, &[TransientFailure, Ready]), Some(1));
    assert_eq!(m.at(100, &[Ready, Ready]), Some(0));
    assert_eq!((m.wanted(), m.kept(), m.wake()), (vec![true, false], vec![true, true], Some(1_000)));
    assert_eq!(m.at(999, &[Ready, Ready]), Some(0));
    assert_eq!((m.kept(), m.wake()), (vec![true, true], Some(1_000)), "the time is not extended");
    assert_eq!(m.at(1_000, &[Ready, Ready]), Some(0));
    assert_eq!((m.kept(), m.wake()), (vec![true, false], None));
}

#[test]
fn a_deactivated_priority_that_is_needed_again_is_there_at_once() {
    let mut m = Machine::new();
    m.at(0, &[TransientFailure, Ready]);
    m.at(1, &[Ready, Ready]);
    assert_eq!(m.at(60, &[TransientFailure, Ready]), Some(1));
    assert_eq!((m.wanted(), m.wake()), (vec![true, true], None), "its end is called off");
}

#[test]
fn a_priority_that_loses_its_connection_has_ten_seconds_unless_it_has_failed() {
    let mut m = Machine::new();
    m.at(0, &[Ready, Idle]);
    assert_eq!(m.at(5, &[Connecting, Idle]), Some(0));
    assert_eq!(m.wake(), Some(15));
    assert_eq!(m.at(6, &[TransientFailure, Idle]), Some(1));
    // It tries again: no new timer, requests stay below.
    assert_eq!(m.at(7, &[Connecting, Ready]), Some(1));
    assert_eq!(m.at(8, &[Idle, Ready]), Some(1), "idle after failure is a pause in trying");
    assert_eq!(m.wake(), None);
    assert_eq!(m.at(9, &[Ready, Ready]), Some(0));
}

#[test]
fn an_empty_priority_is_passed_over() {
    let mut m = Machine::new();
    assert_eq!(m.at(0, &[TransientFailure, TransientFailure, Idle]), Some(2));
    assert_eq!(m.wanted(), [true, true, true]);
}

#[test]
fn priorities_may_come_and_go() {
    let mut m = Machine::new();
    m.at(0, &[TransientFailure, Ready]);
    assert_eq!(m.at(1, &[TransientFailure]), Some(0));
    assert_eq!(m.kept(), [true]);
    assert_eq!(m.at(2, &[TransientFailure, Connecting]), Some(1));
    assert_eq!(m.wake(), Some(12), "it is a new one: its timer starts");
    assert_eq!(m.at(3, &[]), None);
    assert_eq!(m.wake(), None);
}

fn any_connectivity() -> impl Strategy<Value = Connectivity> {
    prop_oneof![Just(Idle), Just(Connecting), Just(Ready), Just(TransientFailure)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_the_choice_is_sound(
        steps in prop::collection::vec((0u64..1_200, prop::collection::vec(any_connectivity(), 1..5)), 1..30),
    ) {
        let mut m = Machine::new();
        let mut now = 0;
        for (wait, states) in steps {
            now += wait;
            let chosen = m.at(now, &states).unwrap();
            prop_assert!(chosen < states.len());
            // Never below a READY one, and everything down to it is connecting.
            if let Some(best) = states.iter().position(|s| *s == Ready) {
                prop_assert!(chosen <= best, "{chosen} chosen, {best} is READY");
            }
            prop_assert!((0..=chosen).all(|p| m.priorities.wants(p)));
            // A failed one is chosen only if no other tries or serves.
            if states[chosen] == TransientFailure {
                prop_assert!(states.iter().all(|s| *s == TransientFailure));
            }
            // A timer is never in the past, and the same input again changes nothing.
            prop_assert!(m.wake().is_none_or(|at| at > now));
            let before = (m.wake(), m.wanted(), m.kept());
            prop_assert_eq!(m.at(now, &states), Some(chosen));
            prop_assert_eq!(before, (m.wake(), m.wanted(), m.kept()));
        }
    }

    #[test]
    fn ten_seconds_after_the_first_fails_to_connect_a_ready_one_below_serves(
        trying in prop::collection::vec(prop_oneof![Just(Connecting), Just(TransientFailure)], 0..4),
    ) {
        let mut states = trying.clone();
        states.push(Ready);
        let mut m = Machine::new();
        m.at(0, &states);
        let mut now = 0;
        while let Some(at) = m.wake() {
            now = at;
            m.at(now, &states);
        }
        prop_assert_eq!(m.priorities.chosen(), Some(trying.len()));
        let waits = trying.iter().filter(|s| **s == Connecting).count() as u64;
        prop_assert_eq!(now, 10 * waits);
    }
}
