//! The Envoy process, and resources in the form in which it wants them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf as wkt;
use envoy_types::util::pack_any;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use mesh_tests::ca::Identity;
use mesh_tests::fleet::Fleet;
use mesh_tests::net::Port;
use mesh_tests::wait::soon;
use mesh_xds::Protocol;
use mesh_xds::server::{Resource, Resources};
use prost::{Message, Name};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::lab::{self, CLIENT_KINDS, Lab};

/// The process. It dies with its handle.
#[derive(Debug)]
pub(crate) struct Envoy {
    admin: Port,
    _child: Child,
    _directory: TempDir,
}

// === impl Envoy ===

impl Envoy {
    /// Starts it as a client of the fleet's control plane, and waits until it has accepted what is there for it.
    pub(crate) async fn start(lab: &Lab, fleet: &Fleet, protocol: Protocol) -> Self {
        let admin = Port::reserve();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("envoy.json");
        let text = bootstrap(protocol, fleet.control_address(), admin.address()).to_string();
        fs::write(&file, text).expect("a file");
        let child = spawn(lab, &file);
        let mut envoy = Self { admin, _child: child, _directory: directory };
        tokio::select! {
            () = lab::accepted(fleet, VIEW, CLIENT_KINDS) => {}
            ended = envoy._child.wait() => panic!("Envoy ended: {ended:?}"),
        }
        envoy
    }

    /// Proves by its own words that it has accepted everything: each kind is updated, nothing was rejected, nothing
    /// in use is in a state of error. Returns the number of updates.
    pub(crate) async fn unharmed(&self) -> u64 {
        let rejected = self.counters("update_rejected").await;
        assert!(rejected.iter().all(|(_, count)| *count == 0), "{rejected:?}");
        let updated = self.counters("update_success").await;
        for kind in ["cluster_manager.cds.", "listener_manager.lds.", ".rds.", "cluster.main."] {
            let of_kind = |(name, count): &&(String, u64)| name.contains(kind) && *count > 0;
            assert!(updated.iter().any(|counter| of_kind(&counter)), "no update of {kind}: {updated:?}");
        }
        let dump = self.admin("/config_dump?include_eds").await;
        assert!(!dump.contains("\"error_state\""), "{dump}");
        for version in [
            "dynamic_active_clusters",
            "dynamic_listeners",
            "dynamic_route_configs",
            "dynamic_endpoint_configs",
        ] {
            assert!(dump.contains(version), "no {version} in {dump}");
        }
        updated.iter().map(|(_, count)| count).sum()
    }

    /// Its counters whose name matches.
    pub(crate) async fn counters(&self, name: &str) -> Vec<(String, u64)> {
        let text = self.admin(&format!("/stats?format=json&filter={name}")).await;
        let stats: Value = serde_json::from_str(&text).expect("JSON");
        let stats = stats["stats"].as_array().expect("a list").iter();
        stats.filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?))).collect()
    }

    /// A page of its admin interface.
    async fn admin(&self, path: &str) -> String {
        soon(async {
            let tcp = TcpStream::connect(self.admin.address()).await.expect("the admin port");
            let (mut send, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.expect("HTTP");
            let request = http::Request::get(path).header("host", "admin").body(Empty::<Bytes>::new());
            let exchange = async {
                let response = send.send_request(request.expect("a path")).await.expect("a response");
                assert!(response.status().is_success(), "{path}: {}", response.status());
                response.into_body().collect().await.expect("a body").to_bytes()
            };
            // The connection ends after the exchange, if at all.
            let body = tokio::select! {
                body = exchange => body,
                ended = connection => panic!("the admin port hung up: {ended:?}"),
            };
            String::from_utf8(body.to_vec()).expect("text")
        })
        .await
    }
}

/// The process, of this bootstrap. It dies with its handle.
pub(crate) fn spawn(lab: &Lab, bootstrap: &Path) -> Child {
    Command::new(&lab.envoy)
        .arg("--config-path")
        .arg(bootstrap)
        .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "error"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Envoy starts")
}

/// Sets resources that Envoys see, and nobody else.
pub(crate) fn set(fleet: &Fleet, resources: impl Resources) {
    fleet.control.edit(|edit| edit.view(VIEW).set(resources));
}

/// Clusters with TLS by files instead of provider instances, which Envoy does not have: it shows an identity, and
/// expects another.
pub(crate) fn with_upstream_tls(clusters: impl Resources, shown: &Identity, expected: &str) -> Vec<Resource> {
    let san = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(expected.into())),
        }),
        ..Default::default()
    };
    let context =
        tls::UpstreamTlsContext { common_tls_context: Some(common(shown, vec![san])), ..Default::default() };
    patched(clusters, |cluster: &mut cluster::Cluster| {
        cluster.transport_socket = Some(transport_socket(&context));
    })
}

/// Listeners with mTLS by files, which tell the application who called in `x-forwarded-client-cert`.
pub(crate) fn with_downstream_tls(listeners: impl Resources, shown: &Identity) -> Vec<Resource> {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(shown, Vec::new())),
        require_client_certificate: Some(wkt::BoolValue { value: true }),
        ..Default::default()
    };
    patched(listeners, |listener: &mut listener::Listener| {
        for chain in &mut listener.filter_chains {
            chain.transport_socket = Some(transport_socket(&context));
            for filter in &mut chain.filters {
                let Some(listener::filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else {
                    continue;
                };
                let mut manager =
                    hcm::HttpConnectionManager::decode(config.value.as_slice()).expect("a manager");
                manager.set_forward_client_cert_details(
                    hcm::http_connection_manager::ForwardClientCertDetails::SanitizeSet,
                );
                manager.set_current_client_cert_details =
                    Some(hcm::http_connection_manager::SetCurrentClientCertDetails {
                        uri: true,
                        ..Default::default()
                    });
                *config = pack_any(manager);
            }
        }
    })
}

fn common(shown: &Identity, san: Vec<tls::SubjectAltNameMatcher>) -> tls::CommonTlsContext {
    let file = |path: std::path::PathBuf| core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.display().to_string())),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_certificates: vec![tls::TlsCertificate {
            certificate_chain: Some(file(shown.certificate_file())),
            private_key: Some(file(shown.key_file())),
            ..Default::default()
        }],
        validation_context_type: Some(tls::common_tls_context::ValidationContextType::ValidationContext(
            tls::CertificateValidationContext {
                trusted_ca: Some(file(shown.ca_file())),
                match_typed_subject_alt_names: san,
                ..Default::default()
            },
        )),
        alpn_protocols: vec!["h2".into()],
        ..Default::default()
    }
}

fn transport_socket<M: Message + Name + Clone>(context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack_any(context.clone()))),
    }
}

/// Changes the resources of one type, and leaves the others as they are.
fn patched<M: Message + Name + Default>(resources: impl Resources, patch: impl Fn(&mut M)) -> Vec<Resource> {
    let url = M::type_url();
    let change = |resource: Resource| {
        if resource.kind().type_url() != url {
            return resource;
        }
        let mut message = M::decode(resource.bytes()).expect("it was encoded");
        patch(&mut message);
        Resource::decode(&url, &message.encode_to_vec()).expect("it was decoded")
    };
    resources.into_resources().into_iter().map(change).collect()
}

fn bootstrap(protocol: Protocol, control: SocketAddr, admin: SocketAddr) -> Value {
    let api = match protocol {
        Protocol::StateOfTheWorld => "GRPC",
        Protocol::Incremental => "DELTA_GRPC",
    };
    let address = |at: SocketAddr| serde_json::json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } });
    let by_ads = serde_json::json!({ "resource_api_version": "V3", "ads": {} });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    serde_json::json!({
        "node": { "id": VIEW, "cluster": VIEW },
        "admin": { "address": address(admin) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": api,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }],
            },
            "cds_config": by_ads,
            "lds_config": by_ads,
        },
        "static_resources": { "clusters": [{
            "name": "control",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": { options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": { "http2_protocol_options": {} },
            }},
            "load_assignment": { "cluster_name": "control", "endpoints": [
                { "lb_endpoints": [{ "endpoint": { "address": address(control) } }] },
            ]},
        }]},
    })
}

/// `node.id` and `node.cluster` of an Envoy, and by that its view.
pub(crate) const VIEW: &str = "envoy";
