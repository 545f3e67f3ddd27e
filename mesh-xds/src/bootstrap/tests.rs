use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ISTIO: &str = r#"{
  "xds_servers": [{
    "server_uri": "unix:///etc/istio/proxy/XDS",
    "channel_creds": [{"type": "insecure"}],
    "server_features": ["xds_v3"]
  }],
  "node": {
    "id": "sidecar~10.1.2.3~pod1.ns~ns.svc.cluster.local",
    "metadata": {"GENERATOR": "grpc", "LABELS": {"app": "reviews"}},
    "locality": {},
    "UserAgentVersionType": null
  },
  "certificate_providers": {
    "default": {"plugin_name": "file_watcher", "config": {
      "certificate_file": "/var/lib/istio/data/cert-chain.pem",
      "private_key_file": "/var/lib/istio/data/key.pem",
      "ca_certificate_file": "/var/lib/istio/data/root-cert.pem",
      "refresh_interval": "900s"}}
  },
  "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s"
}"#;

/// A document that is valid, with the server and the top-level members that a case needs.
fn document(server: impl Into<Value>, more: Value) -> String {
    let mut document = json!({"xds_servers": [server.into()]});
    if let (Some(document), Value::Object(more)) = (document.as_object_mut(), more) {
        document.extend(more);
    }
    document.to_string()
}

fn plain_server() -> Value {
    json!({"server_uri": "xds:443", "channel_creds": [{"type": "insecure"}]})
}

fn refusal(text: &str) -> String {
    text.parse::<Bootstrap>().unwrap_err().to_string()
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_document_of_istios_agent_is_understood() {
    let bootstrap: Bootstrap = ISTIO.parse().unwrap();
    assert_eq!(bootstrap.servers().count(), 1);
    let server = bootstrap.first_server();
    assert_eq!(server.uri().address(), &ServerAddress::Unix("/etc/istio/proxy/XDS".into()));
    assert_eq!(server.creds(), &ChannelCreds::Insecure);
    assert_eq!(bootstrap.node().metadata().get("GENERATOR"), Some(&json!("grpc")));
    assert_eq!(bootstrap.node().locality(), Some(&Locality::default()));
    let watcher = FileWatcher::identity_only(IdentityFiles::new(
        "/var/lib/istio/data/cert-chain.pem",
        "/var/lib/istio/data/key.pem",
    ))
    .with_ca_file("/var/lib/istio/data/root-cert.pem")
    .with_refresh_interval(Duration::from_secs(900));
    assert_eq!(
        bootstrap.certificate_providers().get("default"),
        Some(&CertificateProvider::FileWatcher(watcher))
    );
    let template = bootstrap.server_listener_template().unwrap();
    let address: SocketAddr = "[::1]:9080".parse().unwrap();
    assert_eq!(template.for_address(&address.into()), "xds.istio.io/grpc/lds/inbound/[::1]:9080");
    assert_eq!(bootstrap.client_listener_template().for_target("a.b:80"), "a.b:80");
}

#[test]
fn the_file_wins_over_the_text() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, document(plain_server(), json!({"node": {"id": "f"}})).as_bytes())
        .unwrap();
    let path = file.path().to_str().unwrap();
    let text = document(plain_server(), json!({"node": {"id": "t"}}));
    let both = env(&[(env::FILE_VARIABLE, path), (env::TEXT_VARIABLE, &text)]);
    assert_eq!(Bootstrap::from_strings(&both).unwrap().node().id(), "f");
    let only_text = env(&[(env::FILE_VARIABLE, ""), (env::TEXT_VARIABLE, &text)]);
    assert_eq!(Bootstrap::from_strings(&only_text).unwrap().node().id(), "t");
}

#[test]
fn an_environment_without_bootstrap_says_which_variables_to_set() {
    let error = Bootstrap::from_strings(&env(&[])).unwrap_err();
    assert!(error.is_not_configured());
    let text = error.to_string();
    assert!(text.contains("GRPC_XDS_BOOTSTRAP ") && text.contains("GRPC_XDS_BOOTSTRAP_CONFIG"), "{text}");
}

#[test]
fn an_unreadable_file_is_named() {
    let error =
        Bootstrap::from_strings(&env(&[(env::FILE_VARIABLE, "/no/such/bootstrap.json")])).unwrap_err();
    assert_eq!(error.file(), Some(std::path::Path::new("/no/such/bootstrap.json")));
    assert!(
        error.to_string().starts_with("bootstrap file /no/such/bootstrap.json: cannot be read (No such file"),
        "{error}"
    );
}

#[test]
fn the_place_of_a_syntax_error_is_named() {
    let error = refusal("{\n \"xds_servers\": [,]}");
    assert!(error.starts_with("bootstrap text: is not JSON: expected value at line 2 column 18"), "{error}");
}

#[test]
fn each_refusal_names_its_field_and_the_next_step() {
    let tls =
        |config: Value| json!({"server_uri": "x:1", "channel_creds": [{"type": "tls", "config": config}]});
    let provider = |config: Value| json!({"certificate_providers": {"d": {"plugin_name": "file_watcher", "config": config}}});
    let cases = [
        ("{}".to_owned(), "xds_servers: missing; list at least"),
        (
            r#"{"xds_servers": {}}"#.to_owned(),
            "xds_servers: expected an array, found an object; correct the type",
        ),
        ("[]".to_owned(), "document: expected an object, found an array"),
        (document(json!({}), json!({})), "xds_servers[0].server_uri: missing; set it to the address"),
        (
            document(json!({"server_uri": 5}), json!({})),
            "xds_servers[0].server_uri: expected a string, found a number",
        ),
        (
            document(json!({"server_uri": "x:1"}), json!({})),
            "xds_servers[0].channel_creds: missing; add an entry",
        ),
        (
            document(json!({"server_uri": "x:1", "channel_creds": [{"type": "google_default"}]}), json!({})),
            "xds_servers[0].channel_creds: none of the credential types [\"google_default\"] is supported; add",
        ),
        (
            document(json!({"server_uri": "https://x", "channel_creds": [{"type": "insecure"}]}), json!({})),
            "xds_servers[0].server_uri: the address is https:// but the credentials are \"insecure\"; use http://",
        ),
        (
            document(json!({"server_uri": "http://x", "channel_creds": [{"type": "tls"}]}), json!({})),
            "xds_servers[0].server_uri: the address is http:// but the credentials are \"tls\"",
        ),
        (
            document(tls(json!({"certificate_file": "c"})), json!({})),
            "xds_servers[0].channel_creds[0].config.certificate_file: set without \"private_key_file\"; set both",
        ),
        (
            document(tls(json!({"refresh_interval": "10m"})), json!({})),
            "xds_servers[0].channel_creds[0].config.refresh_interval: \"10m\" is not a duration; write seconds",
        ),
        (
            document(tls(json!({"refresh_interval": "0s"})), json!({})),
            "config.refresh_interval: the duration is not above zero",
        ),
        (
            document(plain_server(), provider(json!({}))),
            "certificate_providers.d.config: missing; name certificate_file with private_key_file",
        ),
        (
            document(plain_server(), provider(json!({"private_key_file": "k"}))),
            "certificate_providers.d.config.private_key_file: set without \"certificate_file\"",
        ),
        (
            document(
                plain_server(),
                provider(json!({"ca_certificate_file": "c", "spiffe_trust_bundle_map_file": "m"})),
            ),
            "certificate_providers.d.config.spiffe_trust_bundle_map_file: not supported, and to ignore it would",
        ),
        (
            document(plain_server(), json!({"certificate_providers": {"d": {}}})),
            "certificate_providers.d.plugin_name: missing; name the plugin",
        ),
        (
            document(
                plain_server(),
                json!({"authorities": {"a": {"client_listener_resource_name_template": "xdstp://b/%s"}}}),
            ),
            "authorities.a.client_listener_resource_name_template: the template does not begin with \"xdstp://a/\"",
        ),
        (document(plain_server(), json!({"node": {"id": 1}})), "node.id: expected a string, found a number"),
    ];
    for (text, expected) in cases {
        let error = refusal(&text);
        assert!(error.contains(expected), "{error}\n  should hold\n{expected}");
        assert!(error.starts_with("bootstrap text: "), "{error}");
    }
}

#[test]
fn server_uris_of_every_form_are_understood() {
    let tcp = |host: &str, port| ServerAddress::Tcp { host: host.to_owned(), port };
    let cases = [
        ("127.0.0.1:18000", tcp("127.0.0.1", 18000), "127.0.0.1:18000"),
        ("xds.example.com", tcp("xds.example.com", 443), "xds.example.com:443"),
        (
            "dns:///istiod.istio-system.svc:15010",
            tcp("istiod.istio-system.svc", 15010),
            "istiod.istio-system.svc:15010",
        ),
        ("dns:xds:1", tcp("xds", 1), "xds:1"),
        ("ipv4:10.0.0.1:5", tcp("10.0.0.1", 5), "10.0.0.1:5"),
        ("ipv6:[::1]:5", tcp("::1", 5), "[::1]:5"),
        ("[::1]:5", tcp("::1", 5), "[::1]:5"),
        ("::1", tcp("::1", 443), "[::1]:443"),
        ("http://xds:18000", tcp("xds", 18000), "xds:18000"),
        ("http://xds/", tcp("xds", 80), "xds:80"),
        ("https://xds", tcp("xds", 443), "xds:443"),
        ("unix:///run/xds.sock", ServerAddress::Unix("/run/xds.sock".into()), "localhost"),
        ("unix:run/xds.sock", ServerAddress::Unix("run/xds.sock".into()), "localhost"),
        ("unix:/run/xds.sock", ServerAddress::Unix("/run/xds.sock".into()), "localhost"),
    ];
    for (text, address, authority) in cases {
        let uri = ServerUri::parse(text).unwrap();
        assert_eq!(uri.address(), &address, "{text}");
        assert_eq!(uri.authority(), authority, "{text}");
        assert_eq!(uri.to_string(), text);
    }
}

#[test]
fn what_is_no_address_is_refused_with_the_reason() {
    let cases = [
        ("xds:0", "the port is not between 1 and 65535"),
        ("xds:65536", "the port is not between 1 and 65535"),
        ("xds:http", "the port is not a number"),
        (":80", "the host is empty"),
        ("[::1", "the bracket is not closed"),
        ("[xds]:1", "the brackets hold no IPv6 address"),
        ("[::1]1", "only a port may follow the bracket"),
        ("xds\n:1", "white space"),
        ("ftp://xds:1", "its scheme is not known"),
        ("http://xds:1/path", "only a host and a port"),
        ("dns://8.8.8.8/xds:1", "a DNS server of its own"),
        ("dns://xds:1", "a third slash"),
        ("unix://run/x", "unix:// needs an absolute path"),
        ("unix:", "the path is empty"),
        ("a/b:1", "neither a name nor an IP address"),
    ];
    for (text, expected) in cases {
        let error = ServerConfig::insecure(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.starts_with("bootstrap built in code: server_uri: "), "{error}");
    }
}

#[test]
fn the_first_supported_credentials_are_taken() {
    let server = json!({"server_uri": "x:1", "channel_creds": [
        {"type": "google_default"},
        {"type": "tls", "config": {"ca_certificate_file": "ca.pem", "certificate_file": "c", "private_key_file": "k"}},
        {"type": "insecure"}
    ]});
    let bootstrap: Bootstrap = document(server, json!({})).parse().unwrap();
    let expected =
        TlsCreds::system_roots().with_ca_file("ca.pem").with_identity(IdentityFiles::new("c", "k"));
    assert_eq!(bootstrap.first_server().creds(), &ChannelCreds::Tls(expected));
}

#[test]
fn an_unknown_plugin_is_kept_by_name_and_no_error() {
    let more = json!({"certificate_providers": {"spire": {"plugin_name": "spiffe", "config": {"any": 1}}}});
    let bootstrap: Bootstrap = document(plain_server(), more).parse().unwrap();
    let expected = CertificateProvider::Unknown { plugin_name: "spiffe".to_owned() };
    assert_eq!(bootstrap.certificate_providers().get("spire"), Some(&expected));
}

#[test]
fn server_features_are_read_and_unknown_ones_ignored() {
    let mut server = plain_server();
    server["server_features"] =
        json!(["xds_v3", "fail_on_data_errors", 7, {"x": 1}, "ignore_resource_deletion"]);
    let bootstrap: Bootstrap = document(server, json!({})).parse().unwrap();
    let expected = ServerFeatures {
        ignore_resource_deletion: true,
        fail_on_data_errors: true,
        ..ServerFeatures::default()
    };
    assert_eq!(bootstrap.first_server().features(), expected);
}

#[test]
fn the_protocol_is_chosen_by_a_server_feature_or_in_code() {
    let mut server = plain_server();
    let bootstrap: Bootstrap = document(server.clone(), json!({})).parse().unwrap();
    assert_eq!(bootstrap.first_server().protocol(), Protocol::StateOfTheWorld, "unless it is chosen");
    let bootstrap = bootstrap.with_protocol(Protocol::Incremental);
    assert_eq!(bootstrap.first_server().protocol(), Protocol::Incremental);
    server["server_features"] = json!(["xds.delta"]);
    let bootstrap: Bootstrap = document(server, json!({})).parse().unwrap();
    assert_eq!(bootstrap.first_server().protocol(), Protocol::Incremental);
    let server = ServerConfig::insecure("xds:1").unwrap().with_protocol(Protocol::Incremental);
    assert_eq!(server.protocol(), Protocol::Incremental);
}

#[test]
fn only_an_xdstp_template_is_percent_encoded() {
    let target = "a b/c:80[é]%";
    assert_eq!(ListenerTemplate::new("plain/%s").for_target(target), "plain/a b/c:80[é]%");
    assert_eq!(
        ListenerTemplate::new("xdstp://x/envoy.config.listener.v3.Listener/%s").for_target(target),
        "xdstp://x/envoy.config.listener.v3.Listener/a%20b/c:80%5B%C3%A9%5D%25"
    );
}

/// istiod knows a server by the address as it is printed (istio/istio#36150).
#[test]
fn a_server_on_every_address_of_both_families_is_named_by_it() {
    let template = ListenerTemplate::new("xds.istio.io/grpc/lds/inbound/%s");
    for address in ["[::]:17070", "0.0.0.0:17070", "[fd00::1]:17070"] {
        let named = template.for_address(&address.parse::<SocketAddr>().unwrap().into());
        assert_eq!(named, format!("xds.istio.io/grpc/lds/inbound/{address}"));
    }
}

#[test]
fn an_authority_without_template_names_listeners_within_itself() {
    let bootstrap: Bootstrap = document(plain_server(), json!({"authorities": {"a": {}}})).parse().unwrap();
    let authority = bootstrap.authority("a").unwrap();
    assert_eq!(
        authority.client_listener_template().for_target("svc"),
        "xdstp://a/envoy.config.listener.v3.Listener/svc"
    );
    assert!(authority.servers().is_empty());
    assert!(bootstrap.authority("b").is_none());
}

#[test]
fn a_bootstrap_in_code_equals_the_same_document() {
    let built = Bootstrap::builder("n")
        .server(ServerConfig::insecure("xds:443").unwrap())
        .cluster("reviews")
        .metadata("A", 1)
        .locality(Locality { zone: "z".to_owned(), ..Locality::default() })
        .server_listener_template("s/%s")
        .certificate_provider("d", CertificateProvider::FileWatcher(FileWatcher::roots_only("ca.pem")))
        .build()
        .unwrap();
    let more = json!({
        "node": {"id": "n", "cluster": "reviews", "metadata": {"A": 1}, "locality": {"zone": "z", "subZone": ""}},
        "server_listener_resource_name_template": "s/%s",
        "certificate_providers": {"d": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "ca.pem"}}}
    });
    assert_eq!(built, document(plain_server(), more).parse().unwrap());
}

#[test]
fn a_bootstrap_in_code_needs_a_control_plane() {
    let error = Bootstrap::builder("n").build().unwrap_err();
    assert_eq!(error.field(), Some("xds_servers"));
    assert_eq!(error.origin(), &Origin::Code);
}

#[test]
fn durations_are_read_to_the_nanosecond() {
    assert_eq!(error::parse_duration("600s"), Ok(Duration::from_secs(600)));
    assert_eq!(error::parse_duration("0.5s"), Ok(Duration::from_millis(500)));
    assert_eq!(error::parse_duration("1.000000001s"), Ok(Duration::new(1, 1)));
    for wrong in ["", "s", "1", "-1s", ".5s", "1.s", "1.0000000001s", "1e3s", "99999999999999999999s", "+1s"]
    {
        assert!(error::parse_duration(wrong).is_err(), "{wrong}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z:/%.\\[\\]0-9s]{0,12}".prop_map(Value::from),
        Just(json!("insecure")),
        Just(json!("file_watcher")),
    ];
    let key = prop::sample::select(vec![
        "xds_servers",
        "server_uri",
        "channel_creds",
        "type",
        "config",
        "node",
        "id",
        "metadata",
        "locality",
        "certificate_providers",
        "plugin_name",
        "authorities",
        "refresh_interval",
        "certificate_file",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_is_a_bootstrap_with_a_server_or_an_error_with_text(document in any_json()) {
        match document.to_string().parse::<Bootstrap>() {
            Ok(bootstrap) => prop_assert!(bootstrap.servers().next().is_some()),
            Err(error) => prop_assert!(error.to_string().starts_with("bootstrap text: ")),
        }
    }

    #[test]
    fn any_server_uri_is_an_address_with_an_authority_or_an_error(text in ".{0,40}") {
        if let Ok(uri) = ServerUri::parse(&text) {
            prop_assert!(uri.authority().parse::<http::uri::Authority>().is_ok(), "{}", uri.authority());
        }
    }
}

#[test]
fn a_jwt_file_is_read_and_other_call_credentials_are_skipped() {
    let server = json!({
        "server_uri": "xds:443",
        "channel_creds": [{"type": "tls"}],
        "call_creds": [{"type": "mystery"}, {"type": "jwt_token_file", "config": {"jwt_token_file": "/token"}}],
    });
    let bootstrap: Bootstrap = document(server, json!({})).parse().unwrap();
    assert_eq!(bootstrap.first_server().call_creds(), [CallCreds::JwtTokenFile("/token".into())]);
    let tls = ChannelCreds::Tls(TlsCreds::system_roots());
    let in_code = ServerConfig::new("xds:443", tls).unwrap();
    let in_code = in_code.with_call_creds(CallCreds::JwtTokenFile("/token".into())).unwrap();
    assert_eq!(bootstrap.first_server(), &in_code);
}

#[test]
fn call_credentials_that_cannot_be_used_are_refused_by_field() {
    let server = |channel: &str, call: Value| {
        json!({
            "server_uri": "xds:443", "channel_creds": [{"type": channel}], "call_creds": call,
        })
    };
    let jwt = |config: Value| json!([{"type": "jwt_token_file", "config": config}]);
    let cases = [
        (
            server("insecure", jwt(json!({"jwt_token_file": "/token"}))),
            "xds_servers[0].call_creds: \"jwt_token_file\" would be sent over a connection that is not secured",
        ),
        (
            server("tls", jwt(json!({}))),
            "xds_servers[0].call_creds[0].config.jwt_token_file: missing; set it to",
        ),
        (
            server("tls", jwt(json!({"jwt_token_file": ""}))),
            "xds_servers[0].call_creds[0].config.jwt_token_file: empty",
        ),
        (server("tls", json!([{}])), "xds_servers[0].call_creds[0].type: missing"),
        (server("tls", json!({})), "xds_servers[0].call_creds: expected an array"),
    ];
    for (server, expected) in cases {
        let text = refusal(&document(server, json!({})));
        assert!(text.contains(expected), "{text}");
    }
}
