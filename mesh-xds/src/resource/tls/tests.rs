//! TLS contexts, seen through clusters and filter chains: every field that decides who may talk.

use std::sync::Arc;

use mesh_core::config::security::{DownstreamTls, ProviderInstance, TrustAnchors, UpstreamTls};
use mesh_core::matcher::san::{SanKind, SanMatcher};
use mesh_core::matcher::string::StringMatcher;

use crate::ads::Kind;
use crate::resource::tests::{cluster, refusals, server, unapplied};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const RAW: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const ROOTS: &str = "validation_context: {ca_certificate_provider_instance: {instance_name: default, certificate_name: ROOTCA}}";
const OWN: &str = "tls_certificate_provider_instance: {instance_name: default}";

fn socket(config: &str) -> String {
    format!(
        "name: c\ntype: EDS\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}\ntransport_socket: {{name: envoy.transport_sockets.tls{config}}}"
    )
}

/// A cluster with this `UpstreamTlsContext`.
fn upstream(fields: &str) -> String {
    socket(&format!(", typed_config: {{\"@type\": {TLS}.UpstreamTlsContext, {fields}}}"))
}

fn up_common(fields: &str) -> String {
    upstream(&format!("common_tls_context: {{{fields}}}"))
}

fn up_validation(fields: &str) -> String {
    up_common(&format!(
        "validation_context: {{ca_certificate_provider_instance: {{instance_name: default}}, {fields}}}"
    ))
}

/// A server with this `DownstreamTlsContext`.
fn downstream(fields: &str) -> String {
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    format!(
        "
name: l
address: {{socket_address: {{address: 0.0.0.0, port_value: 80}}}}
filter_chains:
- transport_socket: {{name: tls, typed_config: {{\"@type\": {TLS}.DownstreamTlsContext, {fields}}}}}
  filters: [{{name: hcm, typed_config: {{\"@type\": {hcm}, route_config: {{}}, http_filters: [{{name: router, typed_config: {{\"@type\": {router}}}}}]}}}}]
"
    )
}

fn down_common(fields: &str) -> String {
    downstream(&format!("common_tls_context: {{{OWN}, {fields}}}"))
}

fn up(yaml: &str) -> Arc<UpstreamTls> {
    cluster(yaml).tls.clone().expect("a TLS context")
}

fn down(yaml: &str) -> Arc<DownstreamTls> {
    server(yaml).chains[0].tls.clone().expect("a TLS context")
}

fn default_instance(certificate: &str) -> ProviderInstance {
    ProviderInstance { instance: "default".into(), certificate: certificate.into() }
}

fn refused_at(at: &str, within: impl Fn(&str) -> String, kind: Kind, table: &[(&str, &str)]) {
    for (fragment, rest) in table {
        refusals(kind, &within, &[(fragment, &format!("{at}{rest}"))]);
    }
}

#[test]
fn no_transport_socket_or_a_raw_buffer_is_plaintext() {
    assert_eq!(cluster("name: c\nload_assignment: {}").tls, None);
    assert_eq!(cluster(&socket(&format!(", typed_config: {{\"@type\": {RAW}}}"))).tls, None);
}

#[test]
fn protocol_names_that_no_handshake_can_carry_are_refused_on_both_sides() {
    let long = "a".repeat(256);
    let many = vec!["a".repeat(255); 256].join("\", \"");
    let table = [
        (format!("\"{long}\""), "[0]: 256 bytes are more than the limit of 255"),
        (format!("h2, \"{long}\""), "[1]: 256 bytes are more than the limit of 255"),
        (format!("\"h2,{long}\""), "[0]: 256 bytes are more than the limit of 255"),
        ("''".to_owned(), "[0]: must not be empty"),
        ("'h2,'".to_owned(), "[0]: must not be empty"),
        (format!("\"{many}\""), ": 65536 bytes are more than the limit of 65535"),
    ];
    for (list, rest) in &table {
        let fields = format!("alpn_protocols: [{list}]");
        let up = |fields: &str| up_common(&format!("{ROOTS}, {fields}"));
        let at = "transport_socket.typed_config.common_tls_context.alpn_protocols";
        refusals(Kind::Cluster, up, &[(&fields, &format!("{at}{rest}"))]);
        refusals(Kind::Listener, down_common, &[(&fields, &format!("filter_chains[0].{at}{rest}"))]);
    }
    let longest = format!("alpn_protocols: [h2, 'http/1.1,{}']", "a".repeat(255));
    assert!(unapplied(Kind::Cluster, &up_common(&format!("{ROOTS}, {longest}"))).is_empty());
}

#[test]
fn a_session_that_ends_before_it_begins_is_refused() {
    let with = |value: &str| {
        down_common("")
            .replace("common_tls_context", &format!("session_timeout: {value}, common_tls_context"))
    };
    let at = "filter_chains[0].transport_socket.typed_config.session_timeout";
    refusals(
        Kind::Listener,
        with,
        &[("-1s", &format!("{at}: duration of -1 s and 0 ns is negative or out of range"))],
    );
}

#[test]
fn a_client_context_names_roots_identity_names_and_server_name() {
    let plain = up(&up_common(ROOTS));
    let wanted = UpstreamTls {
        identity: None,
        roots: TrustAnchors::Provider(default_instance("ROOTCA")),
        sans: Vec::new(),
        sni: None,
    };
    assert_eq!(*plain, wanted);
    let full = up(&upstream(&format!("sni: a.test, common_tls_context: {{{OWN}, {ROOTS}}}")));
    assert_eq!(full.identity, Some(default_instance("")));
    assert_eq!(full.sni.as_deref(), Some("a.test"));
    let system = up(&up_common("validation_context: {system_root_certs: {}}"));
    assert_eq!(system.roots, TrustAnchors::System);
    let both = "validation_context: {system_root_certs: {}, ca_certificate_provider_instance: {instance_name: default}}";
    assert_eq!(up(&up_common(both)).roots, TrustAnchors::Provider(default_instance("")));
}

#[test]
fn istios_two_spellings_side_by_side_are_one_context() {
    let found = up(&up_common(
        "tls_certificate_provider_instance: {instance_name: default, certificate_name: default}, \
         tls_certificate_certificate_provider_instance: {instance_name: default, certificate_name: default}, \
         combined_validation_context: {\
           default_validation_context: {\
             ca_certificate_provider_instance: {instance_name: default, certificate_name: ROOTCA}, \
             match_subject_alt_names: [{exact: 'spiffe://td/ns/a/sa/b'}]}, \
           validation_context_certificate_provider_instance: {instance_name: default, certificate_name: ROOTCA}}",
    ));
    assert_eq!(found.identity, Some(default_instance("default")));
    assert_eq!(found.roots, TrustAnchors::Provider(default_instance("ROOTCA")));
    let san = SanMatcher { kind: None, matcher: StringMatcher::exact("spiffe://td/ns/a/sa/b") };
    assert_eq!(found.sans, [san]);
}

#[test]
fn the_older_spellings_alone_are_read() {
    let found = up(&up_common(
        "tls_certificate_certificate_provider_instance: {instance_name: default, certificate_name: own}, \
         combined_validation_context: {validation_context_certificate_provider_instance: {instance_name: default}}",
    ));
    assert_eq!(found.identity, Some(default_instance("own")));
    assert_eq!(found.roots, TrustAnchors::Provider(default_instance("")));
    let alone = up(&up_common("validation_context_certificate_provider_instance: {instance_name: default}"));
    assert_eq!((&alone.roots, alone.sans.len()), (&TrustAnchors::Provider(default_instance("")), 0));
}

#[test]
fn names_may_be_tied_to_their_kind() {
    for (kind, wanted) in
        [("DNS", SanKind::Dns), ("URI", SanKind::Uri), ("EMAIL", SanKind::Email), ("IP_ADDRESS", SanKind::Ip)]
    {
        let list = format!("match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{exact: a}}}}]");
        let found = up(&up_validation(&list));
        assert_eq!(found.sans, [SanMatcher { kind: Some(wanted), matcher: StringMatcher::exact("a") }]);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table, a row for each field")]
fn a_client_context_that_cannot_be_honoured_is_refused() {
    let at = "transport_socket.typed_config";
    refused_at(
        "transport_socket.typed_config",
        socket,
        Kind::Cluster,
        &[
            ("", ": is required"),
            (
                ", typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts}",
                ": extension \"type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts\" is not supported",
            ),
            (
                &format!(", typed_config: {{\"@type\": {TLS}.DownstreamTlsContext}}"),
                &format!(": type \"{TLS}.DownstreamTlsContext\" where \"UpstreamTlsContext\" is expected"),
            ),
        ],
    );
    let long = format!("sni: {}, common_tls_context: {{{ROOTS}}}", "a".repeat(256));
    refused_at(
        at,
        upstream,
        Kind::Cluster,
        &[
            ("", ".common_tls_context: is required"),
            ("common_tls_context: {}", ".common_tls_context.validation_context: is required"),
            ("auto_host_sni: true", ".auto_host_sni: is not supported"),
            ("auto_sni_san_validation: true", ".auto_sni_san_validation: is not supported"),
            (&long, ".sni: 256 bytes are more than the limit of 255"),
            (
                &format!("sni: \"a\\nb\", common_tls_context: {{{ROOTS}}}"),
                ".sni: \"a\\nb\" is not a server name",
            ),
            (
                &format!("sni: '*.a.test', common_tls_context: {{{ROOTS}}}"),
                ".sni: \"*.a.test\" is not a server name",
            ),
        ],
    );
    refused_at(
        &format!("{at}.common_tls_context"),
        up_common,
        Kind::Cluster,
        &[
            ("tls_params: {}", ".tls_params: is not supported"),
            ("tls_certificates: [{}]", ".tls_certificates: is not supported"),
            (
                "tls_certificate_sds_secret_configs: [{name: a}]",
                ".tls_certificate_sds_secret_configs: is not supported",
            ),
            (
                "custom_tls_certificate_selector: {name: a}",
                ".custom_tls_certificate_selector: is not supported",
            ),
            (
                "tls_certificate_certificate_provider: {name: a}",
                ".tls_certificate_certificate_provider: is not supported",
            ),
            ("custom_handshaker: {name: a}", ".custom_handshaker: is not supported"),
            ("key_log: {path: /k}", ".key_log: is not supported"),
            (
                "tls_certificate_provider_instance: {instance_name: x}",
                ".tls_certificate_provider_instance.instance_name: certificate provider \"x\" is not in the bootstrap; add it to certificate_providers",
            ),
            (
                "tls_certificate_certificate_provider_instance: {}",
                ".tls_certificate_certificate_provider_instance.instance_name: certificate provider \"\" is not in the bootstrap; add it to certificate_providers",
            ),
            (
                "tls_certificate_provider_instance: {instance_name: default, certificate_name: a}, tls_certificate_certificate_provider_instance: {instance_name: default, certificate_name: b}",
                ".tls_certificate_certificate_provider_instance: differs from tls_certificate_provider_instance, which means the same",
            ),
            (
                "validation_context_sds_secret_config: {name: a}",
                ".validation_context_sds_secret_config: is not supported",
            ),
            (
                "validation_context_certificate_provider: {name: a}",
                ".validation_context_certificate_provider: is not supported",
            ),
            (
                "validation_context_certificate_provider_instance: {instance_name: x}",
                ".validation_context_certificate_provider_instance.instance_name: certificate provider \"x\" is not in the bootstrap; add it to certificate_providers",
            ),
            (
                "combined_validation_context: {validation_context_sds_secret_config: {name: a}}",
                ".combined_validation_context.validation_context_sds_secret_config: is not supported",
            ),
            (
                "combined_validation_context: {validation_context_certificate_provider: {name: a}}",
                ".combined_validation_context.validation_context_certificate_provider: is not supported",
            ),
            (
                "combined_validation_context: {default_validation_context: {ca_certificate_provider_instance: {instance_name: default, certificate_name: a}}, validation_context_certificate_provider_instance: {instance_name: default}}",
                ".combined_validation_context.validation_context_certificate_provider_instance: differs from default_validation_context.ca_certificate_provider_instance, which means the same",
            ),
            ("combined_validation_context: {}", ".validation_context: is required"),
            ("validation_context: {}", ".validation_context: is required"),
        ],
    );
    refused_at(
        &format!("{at}.common_tls_context.validation_context"),
        up_validation,
        Kind::Cluster,
        &[
            ("trusted_ca: {filename: /ca}", ".trusted_ca: is not supported"),
            ("verify_certificate_spki: [a]", ".verify_certificate_spki: is not supported"),
            ("verify_certificate_hash: [a]", ".verify_certificate_hash: is not supported"),
            (
                "require_signed_certificate_timestamp: true",
                ".require_signed_certificate_timestamp: is not supported",
            ),
            ("crl: {filename: /crl}", ".crl: is not supported"),
            ("custom_validator_config: {name: a}", ".custom_validator_config: is not supported"),
            ("max_verify_depth: 2", ".max_verify_depth: is not supported"),
            ("match_subject_alt_names: [{exact: a}, {}]", ".match_subject_alt_names[1]: is required"),
            (
                "match_subject_alt_names: [{exact: a}], match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]",
                ".match_subject_alt_names: differs from match_typed_subject_alt_names, which means the same",
            ),
            (
                "match_typed_subject_alt_names: [{matcher: {exact: a}}]",
                ".match_typed_subject_alt_names[0].san_type: is required",
            ),
            (
                "match_typed_subject_alt_names: [{san_type: OTHER_NAME, matcher: {exact: a}, oid: '1'}]",
                ".match_typed_subject_alt_names[0].san_type: is not supported",
            ),
            (
                "match_typed_subject_alt_names: [{san_type: 9}]",
                ".match_typed_subject_alt_names[0].san_type: 9 is not a known value",
            ),
            (
                "match_typed_subject_alt_names: [{san_type: DNS}]",
                ".match_typed_subject_alt_names[0].matcher: is required",
            ),
            (
                "match_typed_subject_alt_names: [{san_type: DNS, oid: '1'}]",
                ".match_typed_subject_alt_names[0].oid: is not supported",
            ),
        ],
    );
}

#[test]
fn what_ignoring_only_makes_stricter_is_ignored() {
    let yaml = upstream(
        "allow_renegotiation: true, max_session_keys: 3, enforce_rsa_key_usage: false, common_tls_context: {\
         alpn_protocols: [h2], validation_context: {ca_certificate_provider_instance: {instance_name: default}, \
         allow_expired_certificate: true, trust_chain_verification: ACCEPT_UNTRUSTED, watched_directory: {path: /a}, \
         only_verify_leaf_cert_crl: true, suppress_client_ca_list: true}}",
    );
    assert_eq!(up(&yaml).roots, TrustAnchors::Provider(default_instance("")));
    assert!(unapplied(Kind::Cluster, &yaml).is_empty());
}

#[test]
fn a_server_context_names_its_identity_and_whom_it_lets_in() {
    let plain = down(&down_common(""));
    assert_eq!((&plain.identity, &plain.client_roots), (&default_instance(""), &None));
    assert!(!plain.require_client_certificate && plain.client_sans.is_empty());
    let mutual = down(&downstream(&format!(
        "require_client_certificate: true, common_tls_context: {{{OWN}, combined_validation_context: {{default_validation_context: {{match_subject_alt_names: [{{prefix: 'spiffe://td/'}}]}}, validation_context_certificate_provider_instance: {{instance_name: default}}}}}}"
    )));
    assert!(mutual.require_client_certificate);
    assert_eq!(mutual.client_roots, Some(TrustAnchors::Provider(default_instance(""))));
    assert_eq!(
        mutual.client_sans,
        [SanMatcher { kind: None, matcher: StringMatcher::prefix("spiffe://td/") }]
    );
    // Asked for and verified if shown, not required.
    let optional = down(&down_common(ROOTS));
    assert!(optional.client_roots.is_some() && !optional.require_client_certificate);
}

#[test]
fn a_server_context_that_cannot_be_honoured_is_refused() {
    let at = "filter_chains[0].transport_socket.typed_config";
    refused_at(
        at,
        downstream,
        Kind::Listener,
        &[
            ("", ".common_tls_context: is required"),
            ("common_tls_context: {}", ".common_tls_context.tls_certificate_provider_instance: is required"),
            ("require_sni: true", ".require_sni: is not supported"),
            ("ocsp_staple_policy: STRICT_STAPLING", ".ocsp_staple_policy: is not supported"),
            ("ocsp_staple_policy: MUST_STAPLE", ".ocsp_staple_policy: is not supported"),
            ("session_ticket_keys: {}", ".session_ticket_keys: is not supported"),
            (
                "session_ticket_keys_sds_secret_config: {name: a}",
                ".session_ticket_keys_sds_secret_config: is not supported",
            ),
            (
                &format!("require_client_certificate: true, common_tls_context: {{{OWN}}}"),
                ".require_client_certificate: needs a CA certificate provider in the validation context",
            ),
        ],
    );
    refused_at(
        &format!("{at}.common_tls_context"),
        down_common,
        Kind::Listener,
        &[
            (
                "validation_context: {system_root_certs: {}}",
                ".validation_context.system_root_certs: is not supported",
            ),
            (
                "validation_context: {match_subject_alt_names: [{exact: a}]}",
                ".validation_context: names to match need a CA certificate provider",
            ),
            ("validation_context: {crl: {filename: /crl}}", ".validation_context.crl: is not supported"),
        ],
    );
}

#[test]
fn what_tunes_a_server_is_ignored() {
    let yaml = downstream(&format!(
        "require_client_certificate: false, require_sni: false, session_timeout: 1s, disable_stateful_session_resumption: true, \
         disable_stateless_session_resumption: true, full_scan_certs_on_sni_mismatch: true, prefer_client_ciphers: true, \
         common_tls_context: {{{OWN}}}"
    ));
    assert!(!down(&yaml).require_client_certificate);
    assert!(unapplied(Kind::Listener, &yaml).is_empty());
}
