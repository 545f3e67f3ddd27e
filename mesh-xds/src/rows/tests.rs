//! What rows say of resources that come, change, are refused, deleted, and go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::snapshot::{ConfigError, ConfigProblem};
use mesh_core::status::{Origin, RefusedResource, ResourceState, ResourceStatus};

use super::Rows;
use super::told::{Fresh, MAX_TOLD};
use crate::ads::{Kind, Name};
use crate::authority::ServerIx;
use crate::invalid::{Place, Unapplied};

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(43_200)
}

fn fields(names: &[&'static str]) -> Arc<Unapplied> {
    let ((), unapplied) = Place::root(|at| {
        for name in names {
            at.at(name).unapplied();
        }
        Ok(())
    })
    .unwrap();
    Arc::new(unapplied)
}

fn accept(rows: &Rows, kind: Kind, name: &str, unapplied: &Arc<Unapplied>) {
    rows.accept(kind, &name.into(), &"1".into(), unapplied, Origin::ControlPlane);
}

fn told(rows: &Rows) -> Vec<String> {
    let one = |((kind, field), fresh): ((Kind, String), Fresh)| {
        format!("{kind} {field} {} ({})", fresh.count, fresh.example)
    };
    rows.lock().told.take_fresh().into_iter().map(one).collect()
}

fn unapplied(rows: &Rows) -> Vec<String> {
    let listed = rows.status().into_iter().filter_map(|row| row.unapplied());
    listed
        .map(|one| format!("{} {}: {} of {}", one.kind, one.name, one.fields.join(" "), one.total))
        .collect()
}

fn refused(rows: &Rows) -> Vec<String> {
    rows.status()
        .iter()
        .filter_map(ResourceStatus::refused)
        .map(|one| RefusedResource::to_string(&one))
        .collect()
}

fn row(rows: &Rows, name: &str) -> ResourceStatus {
    rows.status().into_iter().find(|row| &*row.name == name).expect("a row")
}

#[test]
fn a_row_follows_its_resource_from_the_request_to_the_end() {
    let rows = Rows::new(noon);
    let name: Name = "c".into();
    rows.want(Kind::Cluster, &name);
    let asked = row(&rows, "c");
    assert_eq!((asked.state, asked.accepted_at, &*asked.version), (ResourceState::Requested, None, ""));
    rows.accept(Kind::Cluster, &name, &"7".into(), &fields(&["metadata"]), Origin::ControlPlane);
    let good = row(&rows, "c");
    assert_eq!((good.state, good.accepted_at, &*good.version), (ResourceState::Accepted, Some(noon()), "7"));
    assert_eq!((good.kind, good.origin, good.unapplied_total), ("cluster", Origin::ControlPlane, 1));
    // A NACK shows both versions and the error, and what serves.
    assert!(rows.refuse((Kind::Cluster, &name), ResourceState::Refused, &"8".into(), "x: bad", true));
    assert!(
        !rows.refuse((Kind::Cluster, &name), ResourceState::Refused, &"8".into(), "x: bad", true),
        "no news"
    );
    let bad = row(&rows, "c");
    assert_eq!((bad.state, &*bad.version, bad.unapplied_total), (ResourceState::Refused, "7", 1));
    let refusal = bad.refused.expect("a refusal");
    assert_eq!((&*refusal.version, &*refusal.reason, refusal.at), ("8", "x: bad", noon()));
    // It is deleted and kept, and comes back.
    rows.miss(Kind::Cluster, &name, true);
    let kept = row(&rows, "c");
    assert_eq!((kept.state, &*kept.version, kept.refused), (ResourceState::DoesNotExist, "7", None));
    rows.accept(Kind::Cluster, &name, &"9".into(), &fields(&[]), Origin::ControlPlane);
    assert_eq!((row(&rows, "c").state, unapplied(&rows)), (ResourceState::Accepted, vec![]));
    rows.miss(Kind::Cluster, &name, false);
    assert_eq!(row(&rows, "c").accepted_at, None);
    rows.forget(Kind::Cluster, &name);
    assert_eq!(rows.status(), []);
    // What is not wanted has no row that a late word could make.
    assert!(!rows.refuse((Kind::Cluster, &name), ResourceState::Refused, &"8".into(), "x", false));
    rows.miss(Kind::Cluster, &name, false);
    rows.note_overrides(&name, Unapplied::clone(&fields(&["a"])));
    assert_eq!(rows.status(), []);
}

#[test]
fn what_is_refused_and_dropped_takes_what_it_had_along() {
    let rows = Rows::new(noon);
    accept(&rows, Kind::Route, "r", &fields(&["vhds"]));
    rows.note_overrides(&"r".into(), Unapplied::clone(&fields(&["typed_per_filter_config"])));
    assert_eq!(unapplied(&rows), ["route r: vhds typed_per_filter_config of 2"]);
    rows.refuse((Kind::Route, &"r".into()), ResourceState::ReceivedError, &"".into(), "no\nsuch", false);
    assert_eq!(refused(&rows), ["route \"r\": no such; nothing serves in its place"]);
    assert_eq!((unapplied(&rows), row(&rows, "r").accepted_at), (vec![], None));
}

#[test]
fn the_reason_of_a_refusal_is_cut_between_characters() {
    let rows = Rows::new(noon);
    rows.want(Kind::Route, &"r".into());
    let long = "ä".repeat(2 * super::MAX_REASON);
    rows.refuse((Kind::Route, &"r".into()), ResourceState::Refused, &"1".into(), &long, false);
    let kept = row(&rows, "r").refused.expect("a refusal").reason;
    assert!(kept.len() <= super::MAX_REASON && long.starts_with(&*kept), "{}", kept.len());
}

#[test]
fn values_of_an_earlier_run_are_told_from_others_until_they_are_replaced() {
    let rows = Rows::new(noon);
    let restored = || rows.status().iter().filter(|row| row.is_restored()).count();
    for name in ["a", "b", "c"] {
        rows.accept(Kind::Cluster, &name.into(), &"".into(), &fields(&[]), Origin::LastRun);
    }
    assert_eq!((restored(), rows.lock().restored), (3, 3));
    accept(&rows, Kind::Cluster, "a", &fields(&[]));
    rows.forget(Kind::Cluster, &"b".into());
    assert_eq!((restored(), rows.lock().restored), (1, 1));
    rows.miss(Kind::Cluster, &"c".into(), false);
    assert_eq!((restored(), rows.lock().restored), (0, 0));
}

#[test]
fn a_resource_without_a_name_and_a_target_that_cannot_use_its_own_are_listed_beside_the_rows() {
    let rows = Rows::new(noon);
    let server = ServerIx::of_test(0);
    rows.refuse_nameless(server, Kind::Route, &"3".into(), "resources[0]: cannot be decoded", true);
    accept(&rows, Kind::Listener, "l", &fields(&[]));
    let error = |problem| ConfigError { kind: "listener", name: "l".into(), problem, node: "n".into() };
    rows.set_target("shop", Some(&error(ConfigProblem::Invalid("not for this side".into()))));
    assert_eq!(
        refused(&rows),
        [
            "listener \"l\": not for this side; its last good value serves",
            "route \"\" in version \"3\": resources[0]: cannot be decoded; its last good value serves",
        ]
    );
    rows.set_target("shop", Some(&error(ConfigProblem::Pending)));
    rows.forget_nameless(server, Kind::Cluster);
    assert_eq!(refused(&rows).len(), 1, "the nameless one");
    rows.forget_nameless(server, Kind::Route);
    rows.set_target("shop", Some(&error(ConfigProblem::Invalid("again".into()))));
    rows.retain_targets(|target| target != "shop");
    assert_eq!(refused(&rows), [""; 0]);
}

#[test]
fn a_kind_of_field_is_told_once_with_how_many_there_are() {
    let rows = Rows::new(noon);
    let routes = |count: usize| {
        let ((), unapplied) = Place::root(|at| {
            for i in 0..count {
                at.at("virtual_hosts").index(i).at("routes").index(3).at("cors").unapplied();
            }
            at.at("metadata").key("a[1]").unapplied();
            Ok(())
        })
        .unwrap();
        Arc::new(unapplied)
    };
    for name in ["r1", "r2", "r3"] {
        accept(&rows, Kind::Route, name, &routes(4));
    }
    accept(&rows, Kind::Cluster, "c", &fields(&["metadata"]));
    assert_eq!(
        told(&rows),
        [
            "route metadata[\"a[]\"] 3 (r1)",
            "route virtual_hosts[].routes[].cors 12 (r1)",
            "cluster metadata 1 (c)"
        ]
    );
    // More of the same is no news: another resource, another value, one that comes back.
    accept(&rows, Kind::Route, "r4", &routes(9));
    accept(&rows, Kind::Route, "r1", &routes(5));
    rows.forget(Kind::Cluster, &"c".into());
    accept(&rows, Kind::Cluster, "c", &fields(&["metadata", "outlier_detection"]));
    assert_eq!(told(&rows), ["cluster outlier_detection 1 (c)"]);
    assert_eq!(told(&rows), Vec::<String>::new());
}

#[test]
fn keys_of_maps_do_not_fill_the_log() {
    let rows = Rows::new(noon);
    for i in 0..2 * MAX_TOLD {
        let key = format!("filter-{}", char::from_u32(0x4e00 + u32::try_from(i).unwrap()).unwrap());
        let ((), unapplied) = Place::root(|at| {
            at.at("typed_per_filter_config").key(&key).unapplied();
            Ok(())
        })
        .unwrap();
        accept(&rows, Kind::Route, "r", &Arc::new(unapplied));
        told(&rows);
    }
    assert_eq!(rows.lock().told.len(), MAX_TOLD);
}
