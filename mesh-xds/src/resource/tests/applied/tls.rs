//! Fields of TLS contexts.

use super::Row;

pub(super) const ROWS: &[Row] = &[
    (
        "tests/tests/fields/tls::names_of_servers",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &["match_subject_alt_names"],
    ),
    (
        "tests/tests/fields/tls::names_of_servers",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        &["san_type=DNS", "san_type=EMAIL", "san_type=IP_ADDRESS", "san_type=URI", "matcher"],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &["ca_certificate_provider_instance", "system_root_certs"],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        &[
            "validation_context",
            "combined_validation_context",
            "validation_context_certificate_provider_instance",
        ],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        &["validation_context_certificate_provider_instance"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        &["tls_certificate_provider_instance", "tls_certificate_certificate_provider_instance"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance",
        &["instance_name", "certificate_name"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CertificateProviderInstance",
        &["instance_name", "certificate_name"],
    ),
    (
        "tests/tests/fields/tls::transport_sockets",
        "cluster",
        "envoy.config.core.v3.TransportSocket",
        &["typed_config=envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"],
    ),
    (
        "tests/tests/fields/tls::names_of_clients",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &["match_subject_alt_names"],
    ),
    (
        "tests/tests/fields/tls::names_of_clients",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        &["san_type=DNS", "san_type=EMAIL", "san_type=IP_ADDRESS", "san_type=URI", "matcher"],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        &["ca_certificate_provider_instance"],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        &[
            "validation_context",
            "combined_validation_context",
            "validation_context_certificate_provider_instance",
        ],
    ),
    (
        "tests/tests/fields/tls::roots_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        &["validation_context_certificate_provider_instance"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        &["tls_certificate_provider_instance", "tls_certificate_certificate_provider_instance"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CertificateProviderPluginInstance",
        &["instance_name", "certificate_name"],
    ),
    (
        "tests/tests/fields/tls::identities_of_both_sides",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CertificateProviderInstance",
        &["instance_name", "certificate_name"],
    ),
    (
        "tests/tests/fields/tls::transport_sockets",
        "server",
        "envoy.config.core.v3.TransportSocket",
        &["typed_config=envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"],
    ),
    (
        "tests/tests/fields/tls::names_of_servers",
        "cluster",
        "envoy.type.matcher.v3.StringMatcher",
        &["exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"],
    ),
    ("tests/tests/fields/tls::names_of_servers", "cluster", "envoy.type.matcher.v3.RegexMatcher", &["regex"]),
    (
        "tests/tests/fields/tls::principals",
        "network",
        "envoy.type.matcher.v3.StringMatcher",
        &["exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"],
    ),
    ("tests/tests/fields/tls::principals", "network", "envoy.type.matcher.v3.RegexMatcher", &["regex"]),
    (
        "tests/tests/fields/tls::principals",
        "server",
        "envoy.config.rbac.v3.Principal.Authenticated",
        &["principal_name"],
    ),
    (
        "tests/tests/fields/tls::clients_without_a_certificate",
        "server",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        &["require_client_certificate"],
    ),
    (
        "tests/tests/fields/tls::the_server_name_of_a_cluster",
        "cluster",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        &["sni"],
    ),
    (
        "tests/tests/fields/tls::the_time_to_connect",
        "cluster",
        "envoy.config.cluster.v3.Cluster",
        &["connect_timeout"],
    ),
    (
        "tests/tests/fields/tls::keepalive_where_the_version_is_chosen",
        "cluster",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        &["http2_protocol_options"],
    ),
    (
        "tests/tests/fields/tls::keepalive_where_the_version_is_chosen",
        "cluster",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        &["http2_protocol_options"],
    ),
];
