//! Who is at the other end of a connection: certificates, roots and names, on both sides.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_tests::fault::{BadPeer, Manner};
use mesh_tests::net::Port;
use mesh_tests::wait::{beside, soon};
use mesh_tower::tls::{
    CertificateProvider, CertificateProviders, CryptoBackend, Identity, NoMaterial, Roots,
};
use mesh_xds::{Format, Rules, StaticSource};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::clusters::pings;
use crate::{OPEN, Server, ask, channel, cluster, listening, locality, manager, request, to, typed};

const UPSTREAM: &str = "@envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "@envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const NETWORK: &str = "@envoy.extensions.filters.network.rbac.v3.RBAC";
const HTTP: &str = "@envoy.extensions.filters.http.rbac.v3.RBAC";

/// An authority, and the two identities that it made; of the default one the names are in each form that there is.
#[derive(Debug)]
struct Vault {
    main: Arc<Identity>,
    second: Arc<Identity>,
    roots: Arc<Roots>,
    foreign: Arc<Roots>,
}

impl Vault {
    fn new(name: &str) -> Arc<Self> {
        let (issuer, roots) = authority(name);
        let (_, foreign) = authority("foreign");
        let text = |text: &str| Ia5String::try_from(text).expect("an ASCII name");
        let main = vec![
            SanType::URI(text("spiffe://td/a")),
            SanType::DnsName(text("a.example")),
            SanType::Rfc822Name(text("a@example")),
            SanType::IpAddress(IpAddr::from([10, 1, 2, 3])),
        ];
        let second = vec![SanType::DnsName(text("b.example"))];
        Arc::new(Self { main: identity(&issuer, main), second: identity(&issuer, second), roots, foreign })
    }
}

/// `second` is the certificate of another name, `foreign` the roots of another authority.
impl CertificateProvider for Vault {
    fn identity(&self, certificate: &str) -> Result<Arc<Identity>, NoMaterial> {
        Ok(if certificate == "second" { self.second.clone() } else { self.main.clone() })
    }

    fn roots(&self, certificate: &str) -> Result<Arc<Roots>, NoMaterial> {
        Ok(if certificate == "foreign" { self.foreign.clone() } else { self.roots.clone() })
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, Arc<Roots>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let roots = Roots::from_pem(certificate.pem().as_bytes()).expect("roots");
    (Issuer::new(params, key), Arc::new(roots))
}

fn identity(issuer: &Issuer<'static, KeyPair>, names: Vec<SanType>) -> Arc<Identity> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let crypto = CryptoBackend::Auto.provider().expect("cryptography");
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    Arc::new(Identity::from_pem(chain.as_bytes(), key.as_bytes(), &crypto).expect("an identity"))
}

/// The providers `default`, and `other` of another authority.
#[derive(Clone)]
struct Trust(CertificateProviders);

impl Trust {
    fn new() -> Self {
        Self(CertificateProviders::new().with("default", Vault::new("one")).with("other", Vault::new("two")))
    }

    fn mesh(&self, resources: &[String]) -> mesh_tower::Mesh {
        let list: Vec<String> = resources.iter().map(|fields| format!("- {{{fields}}}\n")).collect();
        let text = typed(&format!("resources:\n{}", list.concat()));
        let rules = Rules::with_providers(self.0.names().cloned());
        let source =
            StaticSource::from_text(&text, Format::Yaml, rules).unwrap_or_else(|e| panic!("{e}\n{text}"));
        mesh_tower::Mesh::builder(source).certificate_providers(self.0.clone()).build().expect("a mesh")
    }

    /// A server with this TLS context, and these filters before its manager.
    fn serve(&self, context: &str, network: &str, http: &str) -> Server {
        let port = Port::reserve();
        let socket = format!("transport_socket: {{name: tls, typed_config: {{{DOWNSTREAM}, {context}}}}}");
        let filters = format!("{network}{}", manager(OPEN, http));
        let listener =
            listening(port.address(), &format!("filter_chains: [{{{socket}, filters: [{filters}]}}]"));
        Server::serve(self.mesh(&[listener]), port)
    }

    /// Whether a request of a client with this TLS context gets through.
    async fn reaches(&self, server: &Server, context: &str) -> bool {
        let socket = format!(", transport_socket: {{name: tls, typed_config: {{{UPSTREAM}, {context}}}}}");
        let mesh = self.mesh(&[to("main"), cluster("main", &locality(&[server.address]), &socket)]);
        ask(&channel(&mesh), "GET /").await.0 == 200
    }
}

/// `common_tls_context` with an identity, and these fields of a validation context beside the default roots.
fn mutual(validation: &str) -> String {
    let identity = "tls_certificate_provider_instance: {instance_name: default}";
    format!(
        "common_tls_context: {{{identity}, validation_context: {{ca_certificate_provider_instance: {{instance_name: default}}{validation}}}}}"
    )
}

/// What is asked of the names of the default identity, and whether it has them.
const NAMES: &[(&str, bool)] = &[
    ("match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a.example}}]", true),
    ("match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: b.example}}]", false),
    ("match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://td/a'}}]", true),
    ("match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: a.example}}]", false),
    ("match_typed_subject_alt_names: [{san_type: EMAIL, matcher: {exact: 'a%example'}}]", true),
    ("match_typed_subject_alt_names: [{san_type: EMAIL, matcher: {exact: a.example}}]", false),
    ("match_typed_subject_alt_names: [{san_type: IP_ADDRESS, matcher: {exact: 10.1.2.3}}]", true),
    ("match_typed_subject_alt_names: [{san_type: IP_ADDRESS, matcher: {exact: a.example}}]", false),
    ("match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: 'spiffe://td/a'}}]", false),
    ("match_subject_alt_names: [{exact: a.example}]", true),
    ("match_subject_alt_names: [{exact: b.example}]", false),
    ("match_subject_alt_names: [{prefix: a.ex}]", true),
    ("match_subject_alt_names: [{prefix: ex}]", false),
    ("match_subject_alt_names: [{suffix: td/a}]", true),
    ("match_subject_alt_names: [{suffix: td/}]", false),
    ("match_subject_alt_names: [{contains: '//td'}]", true),
    ("match_subject_alt_names: [{contains: '//dt'}]", false),
    ("match_subject_alt_names: [{safe_regex: {regex: 'spiffe://[a-z]+/a'}}]", true),
    ("match_subject_alt_names: [{safe_regex: {regex: 'spiffe://[a-z]+/b'}}]", false),
    ("match_subject_alt_names: [{prefix: 'SPIFFE://', ignore_case: true}]", true),
    ("match_subject_alt_names: [{prefix: 'SPIFFE://'}]", false),
];

/// `@` has a meaning of its own in these texts.
fn names() -> impl Iterator<Item = (String, bool)> {
    NAMES.iter().map(|(text, has)| (format!(", {}", text.replace('%', "\\x40").replace('\'', "\"")), *has))
}

#[tokio::test]
async fn names_of_servers() {
    let trust = Trust::new();
    let server = trust.serve(
        "common_tls_context: {tls_certificate_provider_instance: {instance_name: default}}",
        "",
        "",
    );
    for (asked, expected) in names() {
        assert_eq!(trust.reaches(&server, &mutual(&asked)).await, expected, "{asked}");
    }
}

#[tokio::test]
async fn names_of_clients() {
    let trust = Trust::new();
    for (asked, expected) in names() {
        let context = format!("require_client_certificate: true, {}", mutual(&asked));
        let server = trust.serve(&context, "", "");
        assert_eq!(trust.reaches(&server, &mutual("")).await, expected, "{asked}");
    }
}

#[tokio::test]
async fn clients_without_a_certificate() {
    let trust = Trust::new();
    let anonymous = "common_tls_context: {validation_context: {ca_certificate_provider_instance: {instance_name: default}}}";
    for (required, expected) in [("false", true), ("true", false)] {
        let server = trust.serve(&format!("require_client_certificate: {required}, {}", mutual("")), "", "");
        assert_eq!(trust.reaches(&server, anonymous).await, expected, "{required}");
        assert!(trust.reaches(&server, &mutual("")).await, "{required}");
    }
}

/// Each spelling of the roots, with what stands for the instance in it.
const ROOTS: [&str; 4] = [
    "validation_context: {ca_certificate_provider_instance: {INSTANCE}}",
    "validation_context_certificate_provider_instance: {INSTANCE}",
    "combined_validation_context: {default_validation_context: {ca_certificate_provider_instance: {INSTANCE}}}",
    "combined_validation_context: {default_validation_context: {}, validation_context_certificate_provider_instance: {INSTANCE}}",
];

const IDENTITIES: [&str; 2] = [
    "tls_certificate_provider_instance: {INSTANCE}",
    "tls_certificate_certificate_provider_instance: {INSTANCE}",
];

/// An instance, and whether its roots are those of the default identity.
const INSTANCES: [(&str, bool); 4] = [
    ("instance_name: default", true),
    ("instance_name: other", false),
    ("instance_name: default, certificate_name: foreign", false),
    ("instance_name: default, certificate_name: x", true),
];

#[tokio::test]
async fn roots_of_both_sides() {
    let trust = Trust::new();
    let identity = "tls_certificate_provider_instance: {instance_name: default}";
    let open = trust.serve(&format!("common_tls_context: {{{identity}}}"), "", "");
    for spelling in ROOTS {
        for (instance, expected) in INSTANCES {
            let roots = spelling.replace("INSTANCE", instance);
            let context = format!("common_tls_context: {{{identity}, {roots}}}");
            assert_eq!(trust.reaches(&open, &context).await, expected, "of a client: {roots}");
            let server = trust.serve(&format!("require_client_certificate: true, {context}"), "", "");
            assert_eq!(trust.reaches(&server, &mutual("")).await, expected, "of a server: {roots}");
        }
    }
    let system = "common_tls_context: {validation_context: {system_root_certs: {}}}";
    assert!(!trust.reaches(&open, system).await, "our authority is not one of the system's");
}

#[tokio::test]
async fn identities_of_both_sides() {
    let trust = Trust::new();
    let a = ", match_subject_alt_names: [{exact: a.example}]";
    for spelling in IDENTITIES {
        for (instance, expected) in [
            ("instance_name: default", true),
            ("instance_name: other", false),
            ("instance_name: default, certificate_name: second", false),
        ] {
            let identity = spelling.replace("INSTANCE", instance);
            let server = trust.serve(&format!("common_tls_context: {{{identity}}}"), "", "");
            assert_eq!(trust.reaches(&server, &mutual(a)).await, expected, "of a server: {identity}");
            let server = trust.serve(&format!("require_client_certificate: true, {}", mutual(a)), "", "");
            let context = format!(
                "common_tls_context: {{{identity}, {}}}",
                ROOTS[0].replace("INSTANCE", "instance_name: default")
            );
            assert_eq!(trust.reaches(&server, &context).await, expected, "of a client: {identity}");
        }
    }
}

/// Principals by the names of the caller's certificate, on requests and on connections.
#[tokio::test]
async fn principals() {
    let trust = Trust::new();
    for (name, expected) in [
        ("{exact: \"spiffe://td/a\"}", true),
        ("{exact: \"spiffe://td/b\"}", false),
        ("{prefix: \"spiffe://td\"}", true),
        ("{prefix: td}", false),
        ("{suffix: td/a}", true),
        ("{suffix: td/}", false),
        ("{contains: \"//td\"}", true),
        ("{contains: \"//dt\"}", false),
        ("{safe_regex: {regex: \"spiffe://[a-z]+/a\"}}", true),
        ("{safe_regex: {regex: \"spiffe://[a-z]+/b\"}}", false),
        ("{exact: \"SPIFFE://td/A\", ignore_case: true}", true),
        ("{exact: \"SPIFFE://td/A\"}", false),
    ] {
        let rules = format!(
            "rules: {{policies: {{p: {{permissions: [{{any: true}}], principals: [{{authenticated: {{principal_name: {name}}}}}]}}}}}}"
        );
        for (network, http) in [
            (format!("{{name: rbac, typed_config: {{{NETWORK}, {rules}}}}}, "), String::new()),
            (String::new(), format!("{{name: rbac, typed_config: {{{HTTP}, {rules}}}}}, ")),
        ] {
            let server =
                trust.serve(&format!("require_client_certificate: true, {}", mutual("")), &network, &http);
            assert_eq!(trust.reaches(&server, &mutual("")).await, expected, "{network}{http}");
        }
    }
}

#[tokio::test]
async fn the_server_name_of_a_cluster() {
    let trust = Trust::new();
    for (sni, expected) in [("", None), ("sni: a.example, ", Some("a.example"))] {
        let port = Port::reserve();
        let listener = port.listen();
        let socket =
            format!(", transport_socket: {{name: tls, typed_config: {{{UPSTREAM}, {sni}{}}}}}", mutual(""));
        let mesh = trust.mesh(&[to("main"), cluster("main", &locality(&[port.address()]), &socket)]);
        let channel = channel(&mesh);
        let calling = beside(async move { tower::ServiceExt::oneshot(channel, request("GET /")).await });
        let (tcp, _) = soon(listener.accept()).await.expect("a connection");
        let start =
            soon(LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp)).await.expect("a hello");
        assert_eq!(start.client_hello().server_name(), expected);
        calling.abort();
    }
}

/// Under TLS the peer chooses the version; where it chooses HTTP/2, it is asked whether it still lives.
#[tokio::test]
async fn keepalive_where_the_version_is_chosen() {
    let ca = mesh_tests::ca::Ca::new("td");
    let server = ca.identity("server");
    let (issuer, _) = authority("unused");
    let roots = Roots::from_pem(&std::fs::read(server.ca_file()).expect("a file")).expect("roots");
    let main = identity(&issuer, vec![]);
    let vault = Vault { second: main.clone(), main, foreign: Arc::new(roots), roots: authority("unused").1 };
    let trust = Trust(CertificateProviders::new().with("default", Arc::new(vault)));
    let context = "common_tls_context: {validation_context: {ca_certificate_provider_instance: {instance_name: default, certificate_name: foreign}}}";
    for choice in ["auto_config", "use_downstream_protocol_config"] {
        let port = Port::reserve();
        let listener = port.listen();
        let fields = format!(
            ", transport_socket: {{name: tls, typed_config: {{{UPSTREAM}, {context}}}}}, typed_extension_protocol_options: {{o: {{@envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {choice}: {{http2_protocol_options: {{connection_keepalive: {{interval: 0.1s, timeout: 0.1s}}}}}}}}}}"
        );
        let mesh = trust.mesh(&[to("main"), cluster("main", &locality(&[port.address()]), &fields)]);
        let channel = channel(&mesh);
        let calling = beside(async move { tower::ServiceExt::oneshot(channel, request("GET /")).await });
        let (tcp, _) = soon(listener.accept()).await.expect("a connection");
        let acceptor = TlsAcceptor::from(ca.server_config(&server, false));
        let mut tls = soon(acceptor.accept(tcp)).await.expect("a handshake");
        tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("SETTINGS are written");
        tls.read_exact(&mut [0; 24]).await.expect("the preface of HTTP/2");
        assert!(soon(pings(&mut tls)).await, "{choice}");
        calling.abort();
    }
}

/// A peer that accepts and then says nothing costs as long as the cluster allows, which is five seconds otherwise.
#[tokio::test]
async fn the_time_to_connect() {
    let trust = Trust::new();
    let peer = BadPeer::start(Manner::Silence);
    let fields = format!(
        ", connect_timeout: 0.1s, transport_socket: {{name: tls, typed_config: {{{UPSTREAM}, {}}}}}",
        mutual("")
    );
    let mesh = trust.mesh(&[to("main"), cluster("main", &locality(&[peer.address()]), &fields)]);
    let channel = channel(&mesh);
    let answered = tokio::time::timeout(Duration::from_secs(4), ask(&channel, "GET /")).await;
    assert_eq!(answered.expect("an answer well before five seconds").0, 503);
}

/// Where TLS is configured nothing is spoken in plaintext, and the other way round.
#[tokio::test]
async fn transport_sockets() {
    let trust = Trust::new();
    let raw = "transport_socket: {name: raw, typed_config: {@envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";
    let plain = {
        let port = Port::reserve();
        let listener = listening(
            port.address(),
            &format!("filter_chains: [{{{raw}, filters: [{}]}}]", manager(OPEN, "")),
        );
        Server::serve(trust.mesh(&[listener]), port)
    };
    let secure = trust.serve(
        "common_tls_context: {tls_certificate_provider_instance: {instance_name: default}}",
        "",
        "",
    );
    assert!(!trust.reaches(&plain, &mutual("")).await);
    assert!(trust.reaches(&secure, &mutual("")).await);
    for (server, expected) in [(&plain, true), (&secure, false)] {
        let mesh =
            trust.mesh(&[to("main"), cluster("main", &locality(&[server.address]), &format!(", {raw}"))]);
        assert_eq!(ask(&channel(&mesh), "GET /").await.0 == 200, expected);
    }
}
