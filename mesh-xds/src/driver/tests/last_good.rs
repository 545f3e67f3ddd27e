//! What the last run accepted stands in for control planes that do not answer, and for nothing else.

use std::time::Duration;

use super::engine::{World, cluster, endpoints, failed, listener, ready, route};
use crate::ads::{ABSENT_AFTER, Kind};
use crate::last_good::LastGood;
use crate::store::OnDataError;

fn last_run() -> LastGood {
    LastGood::of_test([
        ((Kind::Listener, "l".into()), listener("r")),
        ((Kind::Route, "r".into()), route("r", &["a"])),
        ((Kind::Cluster, "a".into()), cluster("a")),
        ((Kind::Endpoints, "eds-a".into()), endpoints([1])),
    ])
}

fn world() -> (World, impl Fn() -> usize) {
    let world = World::build(OnDataError::Keep, last_run());
    let rows = world.engine.reports().rows.clone();
    (world, move || rows.status().iter().filter(|resource| resource.is_restored()).count())
}

#[test]
fn a_whole_target_is_restored_at_once_when_no_control_plane_can_be_reached() {
    let (mut world, restored) = world();
    let target = world.client("l");
    assert_eq!(restored(), 0, "while it may still answer, nothing is restored");
    world.disconnect("refused");
    assert_eq!((ready(&target).clusters.len(), restored()), (1, 4));
    assert_eq!(world.asked(Kind::Listener), ["l"], "it is still asked for");
}

#[test]
fn a_target_that_the_last_run_did_not_have_is_told_at_once_beside_one_that_it_had() {
    let (mut world, restored) = world();
    let (known, unknown) = (world.client("l"), world.client("m"));
    world.disconnect("refused");
    assert_eq!((ready(&known).clusters.len(), restored()), (1, 4));
    assert!(failed(&unknown).contains("refused"));
}

#[test]
fn what_the_control_plane_sends_replaces_what_was_restored_bit_by_bit() {
    let (mut world, restored) = world();
    let target = world.client("l");
    world.disconnect("refused");
    world.connect();
    assert_eq!(world.asked(Kind::Endpoints), ["eds-a"], "everything that is restored is asked for");
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    world.respond(Kind::Route, vec![("r", route("r", &["a", "b"]))], &[]);
    assert_eq!((ready(&target).clusters.len(), restored()), (1, 2), "cluster b has not come");
    world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([2])), ("eds-b", endpoints([3]))], &[]);
    assert_eq!((ready(&target).clusters.len(), restored()), (2, 0));
}

#[test]
fn a_control_plane_that_says_nothing_is_as_good_as_none() {
    let (mut world, restored) = world();
    let target = world.client("l");
    // Each step of the way is asked for and not answered.
    for _ in 0..4 {
        world.advance(ABSENT_AFTER + Duration::from_millis(1));
    }
    assert_eq!((ready(&target).clusters.len(), restored()), (1, 4));
}

#[test]
fn a_control_plane_that_has_answered_is_believed_where_it_is_silent() {
    let (mut world, restored) = world();
    let target = world.client("l");
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    world.advance(ABSENT_AFTER + Duration::from_millis(1));
    assert!(failed(&target).contains("does not exist"));
    assert_eq!(restored(), 0);
}

#[test]
fn a_target_that_is_closed_is_no_longer_counted() {
    let (mut world, restored) = world();
    let target = world.client("l");
    world.disconnect("refused");
    assert_eq!(restored(), 4);
    drop(target);
    world.sync();
    assert_eq!(restored(), 0);
}
