use std::net::SocketAddr;
use std::sync::LazyLock;

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::identity::{CertificateNames, Peer, TlsPeer};
use crate::matcher::header::{HeaderRule, MatchedHeader};
use crate::matcher::regex::SafeRegex;
use crate::request::RequestHead;
use crate::testing::{TestRequest, mtls_peer, plaintext_peer};

fn policy(name: &str, permission: Permission, principal: Principal) -> Policy {
    Policy { name: name.into(), permissions: vec![permission], principals: vec![principal] }
}

fn rules(action: RbacAction, policies: Vec<Policy>) -> RbacConfig {
    RbacConfig { action, policies }
}

fn header(name: &'static str, rule: HeaderRule) -> HeaderMatcher {
    let name = match name {
        ":method" => MatchedHeader::Method,
        ":path" => MatchedHeader::Path,
        "host" => MatchedHeader::Authority,
        other => MatchedHeader::Name(http::HeaderName::from_static(other)),
    };
    HeaderMatcher { name, rule, invert: false, missing_as_empty: false }
}

fn value(name: &'static str, value: &str) -> HeaderMatcher {
    header(name, HeaderRule::Value(StringMatcher::exact(value)))
}

fn regex(pattern: &str) -> StringMatcher {
    StringMatcher::Regex(SafeRegex::new(pattern).unwrap())
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Whether a single permission lets a request in under ALLOW, and whether it keeps it out under DENY.
fn permits(permission: &Permission, peer: &Peer, head: Option<&RequestHead<'_>>) -> (bool, bool) {
    let of = |action| rules(action, vec![policy("p", permission.clone(), Principal::Any)]);
    let allowed = check(&of(RbacAction::Allow), peer, head).is_allowed();
    let denied = !check(&of(RbacAction::Deny), peer, head).is_allowed();
    (allowed, denied)
}

fn principal_matches(principal: Principal, peer: &Peer) -> bool {
    let rules = rules(RbacAction::Allow, vec![policy("p", Permission::Any, principal)]);
    check(&rules, peer, Some(&TestRequest::get("/").head())).is_allowed()
}

#[test]
fn the_action_says_what_a_match_means() {
    let request = TestRequest::get("/admin?x=1");
    let head = request.head();
    let peer = plaintext_peer();
    let admin = || policy("admin", Permission::UrlPath(StringMatcher::exact("/admin")), Principal::Any);
    let other = || policy("other", Permission::UrlPath(StringMatcher::exact("/x")), Principal::Any);
    let decide = |action, policies| {
        let rules = rules(action, policies);
        format!("{:?}", check(&rules, &peer, Some(&head)))
    };
    assert_eq!(decide(RbacAction::Allow, vec![other(), admin()]), "Allow");
    assert_eq!(decide(RbacAction::Allow, vec![other()]), "Deny { policy: None }");
    assert_eq!(decide(RbacAction::Allow, vec![]), "Deny { policy: None }");
    assert_eq!(decide(RbacAction::Deny, vec![other(), admin()]), r#"Deny { policy: Some("admin") }"#);
    assert_eq!(decide(RbacAction::Deny, vec![other()]), "Allow");
    assert_eq!(decide(RbacAction::Deny, vec![]), "Allow");
    assert_eq!(decide(RbacAction::Log, vec![admin()]), r#"Shadow { policy: Some("admin") }"#);
    assert_eq!(decide(RbacAction::Log, vec![other()]), "Shadow { policy: None }");
}

#[test]
fn a_policy_needs_one_permission_and_one_principal() {
    let peer = plaintext_peer();
    let decide = |permissions: Vec<Permission>, principals: Vec<Principal>| {
        let policy = Policy { name: "p".into(), permissions, principals };
        check(&rules(RbacAction::Allow, vec![policy]), &peer, None).is_allowed()
    };
    let no = || Permission::Not(Box::new(Permission::Any));
    let nobody = || Principal::Not(Box::new(Principal::Any));
    assert!(decide(vec![no(), Permission::Any], vec![nobody(), Principal::Any]));
    assert!(!decide(vec![no()], vec![Principal::Any]));
    assert!(!decide(vec![Permission::Any], vec![nobody()]));
    assert!(!decide(vec![], vec![Principal::Any]) && !decide(vec![Permission::Any], vec![]));
}

#[test]
fn a_rule_about_the_path_sees_it_without_the_query_and_a_header_rule_with_it() {
    let request = TestRequest::get("/a?b=/c");
    let head = request.head();
    let peer = plaintext_peer();
    let yes = (true, true);
    let no = (false, false);
    let url = |text: &str| Permission::UrlPath(StringMatcher::exact(text));
    assert_eq!(permits(&url("/a"), &peer, Some(&head)), yes);
    assert_eq!(permits(&url("/a?b=/c"), &peer, Some(&head)), no);
    assert_eq!(permits(&Permission::Header(value(":path", "/a?b=/c")), &peer, Some(&head)), yes);
    assert_eq!(permits(&Permission::Header(value(":path", "/a")), &peer, Some(&head)), no);
    assert_eq!(permits(&Permission::Header(value(":method", "GET")), &peer, Some(&head)), yes);
    assert_eq!(permits(&Permission::Header(value("host", "test.example")), &peer, Some(&head)), yes);
    // Nothing is decoded or normalised: the application sees the same bytes.
    let encoded = TestRequest::get("/%61//../a");
    assert_eq!(permits(&url("/a"), &peer, Some(&encoded.head())), no);
    assert_eq!(permits(&url("/%61//../a"), &peer, Some(&encoded.head())), yes);
}

#[test]
fn addresses_and_ports_are_those_of_the_connection() {
    let mut peer = plaintext_peer();
    let at = |permission: Permission, peer: &Peer| permits(&permission, peer, None);
    let yes = (true, true);
    let no = (false, false);
    assert_eq!(at(Permission::DestinationIp(net("10.0.0.0/24")), &peer), yes);
    assert_eq!(at(Permission::DestinationIp(net("10.0.1.0/24")), &peer), no);
    assert_eq!(at(Permission::DestinationIp(net("::/0")), &peer), no, "a range has a family");
    assert_eq!(at(Permission::DestinationPort(443), &peer), yes);
    assert_eq!(at(Permission::DestinationPort(80), &peer), no);
    assert_eq!(at(Permission::DestinationPortRange(443..444), &peer), yes);
    assert_eq!(at(Permission::DestinationPortRange(440..443), &peer), no, "the end is excluded");
    assert!(principal_matches(Principal::DirectRemoteIp(net("10.0.0.1/32")), &peer));
    assert!(!principal_matches(Principal::DirectRemoteIp(net("10.0.0.2/32")), &peer));
    // An IPv4 peer of a socket of both families must not slip past a rule about IPv4.
    peer.remote = Some("[::ffff:10.0.0.1]:5".parse::<SocketAddr>().unwrap());
    assert!(principal_matches(Principal::DirectRemoteIp(net("10.0.0.0/8")), &peer));
}

#[test]
fn an_authenticated_peer_is_matched_by_each_kind_of_name_it_has() {
    let peer = |certificate: Option<CertificateNames>| Peer {
        tls: Some(Arc::new(TlsPeer { certificate, server_name: None })),
        ..plaintext_peer()
    };
    let names = |uris: &[&str], dns: &[&str], subject: &str| CertificateNames {
        uris: uris.iter().map(|u| (*u).into()).collect(),
        dns: dns.iter().map(|u| (*u).into()).collect(),
        subject: subject.into(),
        spiffe: None,
    };
    let is = |matcher: StringMatcher, peer: &Peer| {
        principal_matches(Principal::Authenticated(Some(matcher)), peer)
    };
    let exact = |text: &str| StringMatcher::exact(text);
    let all = peer(Some(names(&["spiffe://td/a", "spiffe://td/b"], &["a.test"], "CN=a")));
    assert!(is(exact("spiffe://td/a"), &all) && is(exact("spiffe://td/b"), &all));
    assert!(is(exact("a.test"), &all) && is(exact("CN=a"), &all) && !is(exact(""), &all));
    assert!(is(exact(""), &peer(Some(names(&["spiffe://td/a"], &["a.test"], "")))), "the subject is one");
    let dns = peer(Some(names(&[], &["a.test", "b.test"], "CN=a")));
    assert!(is(exact("b.test"), &dns) && is(exact("CN=a"), &dns) && !is(exact("c.test"), &dns));
    let subject = peer(Some(names(&[], &[], "CN=a")));
    assert!(is(exact("CN=a"), &subject));

    let anonymous = peer(None);
    assert!(principal_matches(Principal::Authenticated(None), &anonymous));
    assert!(!principal_matches(Principal::Authenticated(None), &plaintext_peer()));
    assert!(is(exact(""), &anonymous) && is(regex(".*"), &anonymous) && !is(regex(".+"), &anonymous));
    assert!(!is(exact(""), &plaintext_peer()) && !is(regex(".*"), &plaintext_peer()));
}

#[test]
fn metadata_matches_only_inverted_and_not_is_still_evaluated_over_it() {
    let peer = mtls_peer("spiffe://td/a");
    let of = |invert| Permission::Metadata { invert };
    assert_eq!(permits(&of(false), &peer, None), (false, false));
    assert_eq!(permits(&of(true), &peer, None), (true, true));
    assert_eq!(permits(&Permission::Not(Box::new(of(false))), &peer, None), (true, true));
    assert!(!principal_matches(Principal::Metadata { invert: false }, &peer));
    assert!(principal_matches(Principal::Metadata { invert: true }, &peer));
}

#[test]
fn no_server_name_is_an_empty_one() {
    let of = |text: &str| Permission::RequestedServerName(StringMatcher::exact(text));
    assert_eq!(permits(&of(""), &plaintext_peer(), None), (true, true));
    let mut peer = mtls_peer("spiffe://td/a");
    assert_eq!(permits(&of(""), &peer, None), (true, true));
    let tls = TlsPeer { server_name: Some("a.test".into()), ..TlsPeer::default() };
    peer.tls = Some(tls.into());
    assert_eq!(permits(&of("a.test"), &peer, None), (true, true));
    assert_eq!(permits(&of(""), &peer, None), (false, false));
}

#[test]
fn what_is_not_there_never_widens_access() {
    let peer = Peer::default(); // a unix socket: no addresses
    let refused = (false, true);
    for rule in [
        Permission::UrlPath(regex(".*")),
        Permission::Header(value("x-a", "b")),
        Permission::DestinationIp(net("0.0.0.0/0")),
        Permission::DestinationPort(1),
        Permission::DestinationPortRange(0..65_536),
    ] {
        assert_eq!(permits(&rule, &peer, None), refused, "{rule:?}");
        let not = Permission::Not(Box::new(rule));
        assert_eq!(permits(&not, &peer, None), refused, "{not:?}");
        let twice = Permission::Not(Box::new(Permission::And(vec![Permission::Any, not])));
        assert_eq!(permits(&twice, &peer, None), refused);
    }
    assert!(!principal_matches(Principal::DirectRemoteIp(net("0.0.0.0/0")), &peer));
    let elsewhere = Principal::Not(Box::new(Principal::DirectRemoteIp(net("10.0.0.0/8"))));
    assert!(!principal_matches(elsewhere, &peer));
}

#[test]
fn a_caller_cannot_choose_the_reading_of_a_header_that_lets_it_in() {
    let peer = plaintext_peer();
    let grpc = TestRequest::grpc("/s/m").header("x-role", "guest").header("x-role", "admin");
    let http = TestRequest::get("/").header("x-role", "guest").header("x-role", "admin");
    let rule = |text| Permission::Header(value("x-role", text));
    // Its own reading lets in; either one keeps out.
    assert_eq!(permits(&rule("guest,admin"), &peer, Some(&grpc.head())), (true, true));
    assert_eq!(permits(&rule("admin"), &peer, Some(&grpc.head())), (false, true));
    assert_eq!(permits(&rule("admin"), &peer, Some(&http.head())), (true, true));
    assert_eq!(permits(&rule("guest,admin"), &peer, Some(&http.head())), (false, true));
    let not = Permission::Not(Box::new(rule("admin")));
    assert_eq!(permits(&not, &peer, Some(&grpc.head())), (false, true));
}

#[test]
fn binary_headers_are_matched_in_base64_and_hop_by_hop_ones_are_absent_for_grpc() {
    let peer = plaintext_peer();
    let call = TestRequest::grpc("/s/m").header("x-token-bin", "AAE=");
    let rule = |name, text| Permission::Header(value(name, text));
    assert_eq!(permits(&rule("x-token-bin", "AAE="), &peer, Some(&call.head())), (true, true));
    assert!(!permits(&rule("te", "trailers"), &peer, Some(&call.head())).0);
    let absent = Permission::Header(header("te", HeaderRule::Present(false)));
    assert!(permits(&absent, &peer, Some(&call.head())).0);
    assert_eq!(permits(&rule("content-type", "application/grpc"), &peer, Some(&call.head())), (true, true));
}

// --- property: the engine decides as a naive evaluator does ---

/// A rule as small as the property needs: atoms that are true or false of one fixed request.
#[derive(Debug, Clone)]
enum Rule {
    Atom(usize),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
}

static ATOMS: LazyLock<Vec<(Permission, bool)>> = LazyLock::new(|| {
    vec![
        (Permission::Any, true),
        (Permission::UrlPath(StringMatcher::prefix("/a")), true),
        (Permission::UrlPath(StringMatcher::exact("/b")), false),
        (Permission::Header(value("x-one", "1")), true),
        (Permission::Header(value("x-none", "1")), false),
        (Permission::Header(header("x-none", HeaderRule::Present(false))), true),
        (Permission::Header(header("x-one", HeaderRule::Range(1..2))), true),
        (Permission::Header(header("x-one", HeaderRule::Range(0..1))), false),
        (Permission::DestinationPort(443), true),
        (Permission::DestinationIp(net("192.168.0.0/16")), false),
        (Permission::Metadata { invert: false }, false),
        (Permission::RequestedServerName(StringMatcher::exact("")), true),
    ]
});

fn build(rule: &Rule) -> Permission {
    match rule {
        Rule::Atom(at) => ATOMS[*at].0.clone(),
        Rule::And(rules) => Permission::And(rules.iter().map(build).collect()),
        Rule::Or(rules) => Permission::Or(rules.iter().map(build).collect()),
        Rule::Not(rule) => Permission::Not(Box::new(build(rule))),
    }
}

fn naive(rule: &Rule) -> bool {
    match rule {
        Rule::Atom(at) => ATOMS[*at].1,
        Rule::And(rules) => !rules.iter().any(|r| !naive(r)),
        Rule::Or(rules) => rules.iter().any(naive),
        Rule::Not(rule) => !naive(rule),
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let atom = (0..ATOMS.len()).prop_map(Rule::Atom);
    atom.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::And),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Rule::Or),
            inner.prop_map(|r| Rule::Not(Box::new(r))),
        ]
    })
}

proptest! {
    #[test]
    fn the_engine_decides_as_plain_logic_does_where_everything_is_known(
        policies in prop::collection::vec(any_rule(), 0..4),
    ) {
        let request = TestRequest::get("/a/b?c").header("x-one", "1").method(Method::PUT);
        let head = request.head();
        let peer = plaintext_peer();
        let built = |action| rules(
            action,
            policies.iter().map(|rule| policy("p", build(rule), Principal::Any)).collect(),
        );
        let any = policies.iter().any(naive);
        prop_assert_eq!(check(&built(RbacAction::Allow), &peer, Some(&head)).is_allowed(), any);
        prop_assert_eq!(check(&built(RbacAction::Deny), &peer, Some(&head)).is_allowed(), !any);
    }

    #[test]
    fn knowing_less_never_lets_more_in(
        policies in prop::collection::vec(any_rule(), 0..4),
        deny in any::<bool>(),
        unix in any::<bool>(),
        with_request in any::<bool>(),
    ) {
        let request = TestRequest::get("/a/b?c").header("x-one", "1");
        let head = request.head();
        let action = if deny { RbacAction::Deny } else { RbacAction::Allow };
        let rules = rules(
            action,
            policies.iter().map(|rule| policy("p", build(rule), Principal::Any)).collect(),
        );
        let whole = check(&rules, &plaintext_peer(), Some(&head)).is_allowed();
        let peer = if unix { Peer::default() } else { plaintext_peer() };
        let part = check(&rules, &peer, with_request.then_some(&head)).is_allowed();
        prop_assert!(whole || !part);
    }
}
