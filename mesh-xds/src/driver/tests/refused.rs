//! What is refused as it is now is listed, for as long as it is; and what only the listener can judge of routes is judged
//! whenever one of both changes (gRFC A39, A36).

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::config::listener::{FilterChain, HttpConfig, ListenerConfig, RouteSource, ServerListener};
use mesh_core::snapshot::Resolution;
use mesh_core::status::{RefusedResource, ResourceStatus};
use mesh_core::testing;

use super::engine::{World, chain, cluster, endpoints, failed, listener, ready, route, summary};
use super::keeps;
use crate::ads::{ABSENT_AFTER, Kind};
use crate::resource::tests::accepted;
use crate::resource::{Accepted, Checked};
use crate::store::OnDataError;

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const RBAC: &str =
    "typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}";
const ROUTER: &str = "{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// Routes `r` to a cluster, or of a server, with an override of the filter `f` of this type.
fn overriding(action: &str, kind: &str) -> Accepted {
    accepted(
        Kind::Route,
        &format!(
            "name: r\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, {action}, typed_per_filter_config: {{f: {{\"@type\": {HTTP}.{kind}}}}}}}]}}]"
        ),
    )
}

const FIELD: &str = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
const CORS: &str = "cors.v3.CorsPolicy";
const PER_ROUTE: &str = "rbac.v3.RBACPerRoute";

fn manager(filters: &str) -> String {
    format!(
        "{{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, rds: {{config_source: {{ads: {{}}}}, route_config_name: r}}, http_filters: [{filters}{ROUTER}]}}"
    )
}

/// A server's listener with routes `r`, and these filters before the router.
fn serving(at: SocketAddr, filters: &str) -> Accepted {
    accepted(
        Kind::Listener,
        &format!(
            "name: l\naddress: {{socket_address: {{address: {}, port_value: {}}}}}\nfilter_chains: [{{filters: [{{name: hcm, typed_config: {}}}]}}]",
            at.ip(),
            at.port(),
            manager(filters)
        ),
    )
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 8080).into()
}

fn refused_of(world: &World) -> Vec<RefusedResource> {
    world.engine.reports().rows.status().iter().filter_map(ResourceStatus::refused).collect()
}

fn refused(world: &World) -> Vec<String> {
    refused_of(world).iter().map(RefusedResource::to_string).collect()
}

fn unapplied(world: &World) -> Vec<String> {
    let status = world.engine.reports().rows.status();
    let listed = status.iter().filter_map(ResourceStatus::unapplied);
    listed.flat_map(|one| one.fields.into_iter().map(move |f| format!("{}: {f}", one.name))).collect()
}

#[test]
fn a_refused_resource_is_listed_until_it_is_valid_deleted_or_not_wanted() {
    let (mut world, target) = keeps::serving();
    assert_eq!(refused(&world), [""; 0]);
    world.respond(Kind::Route, vec![], &[("r", "virtual_hosts[0].domains: must not be empty")]);
    let line = "route \"r\" in version \"5\": virtual_hosts[0].domains: must not be empty; its last good value serves";
    assert_eq!(refused(&world), [line]);
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    // The same again is the same line; another reason, or another version, is another.
    world.respond(Kind::Route, vec![], &[("r", "name: must not be empty")]);
    assert!(refused(&world)[0].contains("name: must not be empty"));
    world.respond(Kind::Route, vec![("r", route("r", &["a"]))], &[]);
    assert_eq!(refused(&world), [""; 0], "it is valid");
    // Each kind of resource, and several at once.
    world.respond(Kind::Listener, vec![], &[("l", "x: 1")]);
    world.respond(Kind::Cluster, vec![], &[("a", "x: 2")]);
    world.respond(Kind::Endpoints, vec![], &[("eds-a", "x: 3")]);
    assert_eq!(refused(&world).len(), 3);
    world.respond(Kind::Listener, vec![], &[]);
    assert_eq!(refused(&world).len(), 2, "the listener is deleted");
    drop(target);
    world.sync();
    assert_eq!(refused(&world), [""; 0], "nobody wants it");
}

#[test]
fn what_never_was_valid_is_listed_as_serving_nothing() {
    let mut world = World::new();
    let target = world.client("l");
    world.respond(Kind::Listener, vec![], &[("l", "api_listener: is required")]);
    assert_eq!(
        refused(&world),
        ["listener \"l\" in version \"1\": api_listener: is required; nothing serves in its place"]
    );
    assert!(failed(&target).contains("api_listener: is required"));
    // An error of the control plane in the place of a resource is one, too.
    world.respond_error(Kind::Listener, "l", true);
    assert!(refused(&world)[0].contains("an error instead: NotFound: no"), "{:?}", refused(&world));
}

#[test]
fn a_rule_that_drops_what_is_refused_says_so() {
    let mut world = World::with(OnDataError::Drop);
    let target = world.client("l");
    world.routes(&["a"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    world.respond(Kind::Endpoints, vec![("eds-a", endpoints([1]))], &[]);
    world.respond(Kind::Route, vec![], &[("r", "x: y")]);
    assert_eq!(refused(&world), ["route \"r\" in version \"5\": x: y; nothing serves in its place"]);
    assert!(failed(&target).contains("x: y"));
}

#[test]
fn a_client_follows_routes_with_overrides_of_filters_that_it_does_not_have() {
    for (kind, is_known) in [(CORS, false), ("jwt_authn.v3.PerRouteConfig", false), (PER_ROUTE, true)] {
        let (mut world, target) = keeps::serving();
        world.respond_whole(Kind::Route, vec![("r", overriding("route: {cluster: b}", kind))]);
        assert_eq!(unapplied(&world), [format!("r: {FIELD}")], "{kind}");
        world.respond(Kind::Cluster, vec![("a", cluster("a")), ("b", cluster("b"))], &[]);
        world.respond(Kind::Endpoints, vec![("eds-b", endpoints([2]))], &[]);
        assert_eq!(summary(&ready(&target)), ["b: 2"], "{kind}: the edit is followed");
        assert_eq!(refused(&world), [""; 0]);
        // Its listener gets other filters, and loses them: no client runs one.
        world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
        assert_eq!(unapplied(&world), [format!("r: {FIELD}")], "{kind}, {is_known}");
        world.respond(Kind::Route, vec![("r", route("r", &["b"]))], &[]);
        assert_eq!(unapplied(&world), [""; 0], "{kind}: without it nothing is listed");
    }
}

#[test]
fn whether_an_override_has_an_effect_follows_the_filters_of_the_listener() {
    let mut world = World::new();
    let target = world.server(address());
    let name = "servers/127.0.0.1:8080";
    let filter = format!("{{name: f, {RBAC}}}, ");
    world.respond_whole(Kind::Listener, vec![(name, serving(address(), ""))]);
    world.respond_whole(Kind::Route, vec![("r", overriding("non_forwarding_action: {}", PER_ROUTE))]);
    ready(&target);
    assert_eq!(unapplied(&world), [format!("r: {FIELD}")]);
    world.respond_whole(Kind::Listener, vec![(name, serving(address(), &filter))]);
    assert_eq!(unapplied(&world), [""; 0], "the listener has the filter");
    world.respond_whole(
        Kind::Listener,
        vec![(name, serving(address(), &filter.replace("name: f", "name: g")))],
    );
    assert_eq!(unapplied(&world), [format!("r: {FIELD}")], "it is called otherwise");
    drop(target);
    world.sync();
    assert_eq!(unapplied(&world), [""; 0]);
}

#[test]
fn a_server_refuses_routes_with_overrides_of_unknown_types_and_keeps_the_last_good_ones() {
    let mut world = World::new();
    let target = world.server(address());
    let name = "servers/127.0.0.1:8080";
    world.respond_whole(Kind::Listener, vec![(name, serving(address(), ""))]);
    world.respond_whole(Kind::Route, vec![("r", overriding("non_forwarding_action: {}", CORS))]);
    let why = format!("{FIELD}: extension \"{HTTP}.{CORS}\" is not supported");
    assert_eq!(
        refused(&world),
        [format!("route \"r\" in version \"2\": {why}; nothing serves in its place")]
    );
    let chains = || {
        ready(&target).routes.iter().map(|chain| chain.clone().map_err(|e| e.to_string())).collect::<Vec<_>>()
    };
    assert!(chains()[0].as_ref().unwrap_err().contains(&why));
    let good = accepted(
        Kind::Route,
        "name: r\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, non_forwarding_action: {}}]}]",
    );
    world.respond_whole(Kind::Route, vec![("r", good.clone())]);
    assert_eq!(refused(&world), [""; 0]);
    let before = chains()[0].clone().unwrap();
    world.respond_whole(Kind::Route, vec![("r", overriding("non_forwarding_action: {}", CORS))]);
    assert!(refused(&world)[0].ends_with("its last good value serves"), "{:?}", refused(&world));
    assert!(Arc::ptr_eq(&before, chains()[0].as_ref().unwrap()));
    // It was acknowledged, but it is not what is held: the next stream does not claim it.
    world.disconnect("gone");
    world.connect();
    assert_ne!(world.claims(Kind::Route), "4");
    world.respond_whole(Kind::Route, vec![("r", good)]);
    assert_eq!(refused(&world), [""; 0]);
}

/// A client has taken them, then a server does: none of their values is known to be good for it.
#[test]
fn routes_that_a_server_comes_to_share_are_judged_for_it() {
    let mut world = World::new();
    let client = world.client("l");
    world.respond(Kind::Listener, vec![("l", listener("r"))], &[]);
    world.respond_whole(Kind::Route, vec![("r", overriding("direct_response: {status: 200}", CORS))]);
    ready(&client);
    let server = world.server(address());
    let name = "servers/127.0.0.1:8080";
    let (listener, serving) = (listener("r"), serving(address(), ""));
    let listener = Accepted { resource: listener, ..serving.clone() };
    world.respond_whole(Kind::Listener, vec![("l", listener), (name, serving)]);
    assert_eq!(refused(&world).len(), 1);
    assert!(ready(&server).routes[0].as_ref().unwrap_err().to_string().contains("CorsPolicy"));
}

fn at(address: SocketAddr) -> Checked {
    let routes = Arc::new(testing::route_config("r", vec![]));
    let chain = FilterChain { http: HttpConfig::new(RouteSource::Inline(routes)), ..chain("c", "r") };
    let server = ServerListener { address: address.into(), chains: vec![chain], default_chain: None };
    Checked::Listener(Arc::new(ListenerConfig::Server(server)))
}

#[test]
fn a_listener_for_another_address_is_not_the_servers() {
    let bound: SocketAddr = ([10, 1, 2, 3], 8080).into();
    for (socket, listener, is_fit) in [
        (bound, bound, true),
        (bound, ([0, 0, 0, 0], 8080).into(), true),
        (bound, "[::]:8080".parse().unwrap(), true),
        (bound, "[::ffff:10.1.2.3]:8080".parse().unwrap(), true),
        (bound, ([10, 1, 2, 3], 8081).into(), false),
        (bound, ([10, 1, 2, 4], 8080).into(), false),
        (([0, 0, 0, 0], 8080).into(), ([127, 0, 0, 1], 8080).into(), false),
        ("[::]:8080".parse().unwrap(), ([0, 0, 0, 0], 8080).into(), true),
    ] {
        let mut world = World::new();
        let target = world.server(socket);
        let name = format!("servers/{socket}");
        world.respond(Kind::Listener, vec![(&name, at(listener))], &[]);
        if is_fit {
            ready(&target);
            continue;
        }
        let why = failed(&target);
        assert!(why.contains(&socket.to_string()) && why.contains(&listener.to_string()), "{why}");
    }
}

#[test]
fn a_listener_that_moves_to_another_address_leaves_the_last_good_one_and_is_listed() {
    let mut world = World::new();
    let target = world.server(address());
    let name = "servers/127.0.0.1:8080";
    world.respond(Kind::Listener, vec![(name, at(address()))], &[]);
    let before = ready(&target);
    world.respond(Kind::Listener, vec![(name, at(([127, 0, 0, 1], 9090).into()))], &[]);
    assert!(matches!(&*target.cell().load(), Resolution::Ready(now) if Arc::ptr_eq(now, &before)));
    let listed = refused(&world);
    assert!(
        listed.len() == 1 && listed[0].contains("127.0.0.1:9090") && listed[0].contains("127.0.0.1:8080"),
        "{listed:?}"
    );
    world.respond(Kind::Listener, vec![(name, at(address()))], &[]);
    assert_eq!(refused(&world), [""; 0]);
    // A target that is closed has nothing to say.
    world.respond(Kind::Listener, vec![(name, at(([127, 0, 0, 1], 9090).into()))], &[]);
    drop((target, before));
    world.sync();
    assert_eq!(refused(&world), [""; 0]);
}

#[test]
fn a_resource_that_did_not_come_is_missing_and_not_refused() {
    let mut world = World::new();
    let _target = world.client("l");
    world.advance(ABSENT_AFTER);
    assert_eq!(refused(&world), [""; 0]);
}

/// Bytes that are no message have no name: that they were refused is told until the next response of that kind.
#[test]
fn what_has_no_name_is_listed_until_the_next_answer() {
    let (mut world, target) = keeps::serving();
    world.respond_nameless(Kind::Route, "cannot be decoded");
    assert_eq!(
        refused(&world),
        ["route \"\" in version \"5\": resources[0]: cannot be decoded; its last good value serves"]
    );
    assert_eq!(summary(&ready(&target)), ["a: 1"]);
    world.respond(Kind::Cluster, vec![("a", cluster("a"))], &[]);
    assert_eq!(refused(&world).len(), 1, "another kind says nothing of it");
    world.respond(Kind::Route, vec![("r", route("r", &["a"]))], &[]);
    assert_eq!(refused(&world), [""; 0]);
}
