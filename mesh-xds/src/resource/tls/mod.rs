//! `UpstreamTlsContext` and `DownstreamTlsContext` (gRFC A29, A82): certificate-provider instances, and nothing else.
//!
//! Every field here decides who may talk, so each is applied, refused, or named below with the reason why ignoring it
//! cannot let anybody in. Both spellings of a provider instance are read; where both are given they must agree.
#![expect(deprecated, reason = "Istio writes the older spellings next to the newer ones")]

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::SystemRootCerts;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    SubjectAltNameMatcher, UpstreamTlsContext,
};
use envoy_types::pb::google::protobuf::Any;
use mesh_core::config::security::{DownstreamTls, ProviderInstance, TrustAnchors, UpstreamTls};
use mesh_core::matcher::san::{SanKind, SanMatcher};
use mesh_core::matcher::string::StringMatcher;
use rustls::pki_types::ServerName;

use super::common::{is_type, unpack};
use super::range::{self, ranged};
use super::{Rules, matcher};
use crate::invalid::{Invalid, Place, Reason, fields};

/// Longest server name (RFC 1035).
const MAX_SNI_BYTES: usize = 255;

/// Longest protocol name, and longest list of them with their lengths (RFC 7301 §3.1).
const MAX_ALPN_BYTES: usize = 255;
const MAX_ALPN_LIST_BYTES: usize = 65_535;

/// What both sides' contexts have in common.
struct Common {
    identity: Option<ProviderInstance>,
    roots: Option<TrustAnchors>,
    sans: Vec<SanMatcher>,
}

/// `transport_socket` of a cluster; none is plaintext.
pub(super) fn upstream(
    pb: Option<TransportSocket>,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<Option<Arc<UpstreamTls>>, Invalid> {
    let Some(any) = typed_config(pb, at)? else { return Ok(None) };
    let at = at.at("typed_config");
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation: _,   // TLS 1.2 renegotiation is never done: stricter
        max_session_keys: _,      // a cache size
        enforce_rsa_key_usage: _, // the verifier always enforces key usage: stricter
    } = unpack(&any, &at)?;
    at.refuse_if(fields![auto_host_sni, auto_sni_san_validation])?;
    if sni.len() > MAX_SNI_BYTES {
        let limit = MAX_SNI_BYTES;
        return at.at("sni").fail(Reason::TooLarge { size: sni.len(), limit });
    }
    if !sni.is_empty() && ServerName::try_from(sni.as_str()).is_err() {
        return at.at("sni").fail(Reason::Text { value: sni, rule: "is not a server name" });
    }
    let at = at.at("common_tls_context");
    let Common { identity, roots, sans } = common(at.required(common_tls_context)?, rules, &at)?;
    // Without roots the server could be anybody.
    let roots = at.at("validation_context").required(roots)?;
    let sni = (!sni.is_empty()).then(|| Arc::from(sni));
    Ok(Some(Arc::new(UpstreamTls { identity, roots, sans, sni })))
}

/// `transport_socket` of a filter chain; none is plaintext.
pub(super) fn downstream(
    pb: Option<TransportSocket>,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<Option<Arc<DownstreamTls>>, Invalid> {
    let Some(any) = typed_config(pb, at)? else { return Ok(None) };
    let at = at.at("typed_config");
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption: _, // names are matched on resumed sessions too
        session_timeout,                        // likewise
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch: _, // there is one certificate
        prefer_client_ciphers: _,           // every suite of the library is a good one
        session_ticket_keys_type,
    } = unpack(&any, &at)?;
    range::check(ranged![session_timeout], &at)?;
    if require_sni.is_some_and(|b| b.value) {
        return at.at("require_sni").fail(Reason::Unsupported);
    }
    if ocsp_staple_policy != OcspStaplePolicy::LenientStapling as i32 {
        return at.at("ocsp_staple_policy").fail(Reason::Unsupported);
    }
    match session_ticket_keys_type {
        // Ticket keys of ours live and die with one (identity, roots) value.
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(_)) => {}
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
            return at.at("session_ticket_keys").fail(Reason::Unsupported);
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return at.at("session_ticket_keys_sds_secret_config").fail(Reason::Unsupported);
        }
    }
    let require_client_certificate = require_client_certificate.is_some_and(|b| b.value);
    let common_at = at.at("common_tls_context");
    let Common { identity, roots, sans } =
        common(common_at.required(common_tls_context)?, rules, &common_at)?;
    let identity = common_at.at("tls_certificate_provider_instance").required(identity)?;
    if roots == Some(TrustAnchors::System) {
        // gRFC A82: whoever has any public certificate would be let in.
        return common_at.at("validation_context").at("system_root_certs").fail(Reason::Unsupported);
    }
    if require_client_certificate && roots.is_none() {
        let reason = Reason::Rule("needs a CA certificate provider in the validation context");
        return at.at("require_client_certificate").fail(reason);
    }
    if roots.is_none() && !sans.is_empty() {
        let reason = Reason::Rule("names to match need a CA certificate provider");
        return common_at.at("validation_context").fail(reason);
    }
    Ok(Some(Arc::new(DownstreamTls {
        identity,
        client_roots: roots,
        require_client_certificate,
        client_sans: sans,
    })))
}

/// The configuration of a TLS transport socket; none for an explicit plaintext one.
fn typed_config(pb: Option<TransportSocket>, at: &Place<'_>) -> Result<Option<Any>, Invalid> {
    // The type decides, not the name, as in Envoy.
    let Some(TransportSocket { name: _, config_type }) = pb else { return Ok(None) };
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return at.at("typed_config").fail(Reason::Missing);
    };
    if is_type::<RawBuffer>(&any) {
        return Ok(None);
    }
    if is_type::<UpstreamTlsContext>(&any) || is_type::<DownstreamTlsContext>(&any) {
        return Ok(Some(any));
    }
    at.at("typed_config").fail(Reason::UnsupportedExtension(any.type_url))
}

fn common(pb: CommonTlsContext, rules: &Rules, at: &Place<'_>) -> Result<Common, Invalid> {
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols, // decided by the HTTP versions that are served or spoken
        custom_handshaker,
        key_log,
        validation_context_type,
    } = pb;
    at.refuse_if(fields![
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        custom_handshaker,
        key_log,
    ])?;
    alpn(&alpn_protocols, &at.at("alpn_protocols"))?;
    let newer =
        provider(tls_certificate_provider_instance, rules, &at.at("tls_certificate_provider_instance"))?;
    let at_older = at.at("tls_certificate_certificate_provider_instance");
    let older = provider(tls_certificate_certificate_provider_instance.map(plugin), rules, &at_older)?;
    let identity = agreed(newer, older, "tls_certificate_provider_instance", &at_older)?;
    let (roots, sans) = match validation_context_type {
        None => (None, Vec::new()),
        Some(ValidationContextType::ValidationContext(pb)) => {
            validation(pb, rules, &at.at("validation_context"))?
        }
        Some(ValidationContextType::CombinedValidationContext(pb)) => {
            combined(pb, rules, &at.at("combined_validation_context"))?
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(pb)) => {
            let at = at.at("validation_context_certificate_provider_instance");
            (provider(Some(plugin(pb)), rules, &at)?.map(TrustAnchors::Provider), Vec::new())
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(_)) => {
            return at.at("validation_context_sds_secret_config").fail(Reason::Unsupported);
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            return at.at("validation_context_certificate_provider").fail(Reason::Unsupported);
        }
    };
    Ok(Common { identity, roots, sans })
}

/// Names that fit into the extension (RFC 7301 §3.1); Envoy splits each entry at its commas.
fn alpn(list: &[String], at: &Place<'_>) -> Result<(), Invalid> {
    for (i, entry) in list.iter().enumerate() {
        let at = at.index(i);
        for name in entry.split(',') {
            match name.len() {
                0 => return at.fail(Reason::Empty),
                1..=MAX_ALPN_BYTES => {}
                size => return at.fail(Reason::TooLarge { size, limit: MAX_ALPN_BYTES }),
            }
        }
    }
    let size: usize = list.iter().map(|entry| entry.len() + 1).sum();
    if size > MAX_ALPN_LIST_BYTES {
        return at.fail(Reason::TooLarge { size, limit: MAX_ALPN_LIST_BYTES });
    }
    Ok(())
}

fn combined(
    pb: CombinedCertificateValidationContext,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<(Option<TrustAnchors>, Vec<SanMatcher>), Invalid> {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = pb;
    at.refuse_if(fields![validation_context_sds_secret_config, validation_context_certificate_provider])?;
    let (newer, sans) = match default_validation_context {
        Some(pb) => validation(pb, rules, &at.at("default_validation_context"))?,
        None => (None, Vec::new()),
    };
    let at_older = at.at("validation_context_certificate_provider_instance");
    let older = provider(validation_context_certificate_provider_instance.map(plugin), rules, &at_older)?;
    let older = older.map(TrustAnchors::Provider);
    let roots =
        agreed(newer, older, "default_validation_context.ca_certificate_provider_instance", &at_older)?;
    Ok((roots, sans))
}

fn validation(
    pb: CertificateValidationContext,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<(Option<TrustAnchors>, Vec<SanMatcher>), Invalid> {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory: _, // of `trusted_ca`
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate: _, // never allowed: stricter
        trust_chain_verification: _,  // always verified: stricter
        custom_validator_config,
        only_verify_leaf_cert_crl: _, // of `crl`
        max_verify_depth,
        suppress_client_ca_list: _, // a hint to clients
    } = pb;
    at.refuse_if(fields![
        trusted_ca,
        verify_certificate_spki,
        verify_certificate_hash,
        require_signed_certificate_timestamp,
        crl,
        custom_validator_config,
        max_verify_depth,
    ])?;
    let instance_at = at.at("ca_certificate_provider_instance");
    let instance = provider(ca_certificate_provider_instance, rules, &instance_at)?;
    let roots = match (instance, system_root_certs) {
        // gRFC A82: the instance is preferred where both are given.
        (Some(instance), _) => Some(TrustAnchors::Provider(instance)),
        (None, Some(SystemRootCerts {})) => Some(TrustAnchors::System),
        (None, None) => None,
    };
    let sans = match (match_typed_subject_alt_names, match_subject_alt_names) {
        (typed, older) if typed.is_empty() => {
            let at = at.at("match_subject_alt_names");
            let any_kind =
                |(i, pb)| Ok(SanMatcher { kind: None, matcher: matcher::string(pb, &at.index(i))? });
            older.into_iter().enumerate().map(any_kind).collect::<Result<_, _>>()?
        }
        (typed, older) if older.is_empty() => {
            let at = at.at("match_typed_subject_alt_names");
            typed
                .into_iter()
                .enumerate()
                .map(|(i, pb)| typed_san(pb, &at.index(i)))
                .collect::<Result<_, _>>()?
        }
        (_, _) => {
            let reason = Reason::Contradiction("match_typed_subject_alt_names");
            return at.at("match_subject_alt_names").fail(reason);
        }
    };
    Ok((roots, sans))
}

fn typed_san(pb: SubjectAltNameMatcher, at: &Place<'_>) -> Result<SanMatcher, Invalid> {
    let SubjectAltNameMatcher { san_type, matcher, oid } = pb;
    let kind = match SanType::try_from(san_type) {
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::IpAddress) => SanKind::Ip,
        Ok(SanType::OtherName) => return at.at("san_type").fail(Reason::Unsupported),
        Ok(SanType::Unspecified) => return at.at("san_type").fail(Reason::Missing),
        Err(_) => return at.at("san_type").fail(Reason::UnknownEnum(san_type)),
    };
    if !oid.is_empty() {
        return at.at("oid").fail(Reason::Unsupported);
    }
    let at = at.at("matcher");
    let matcher: StringMatcher = matcher::string(at.required(matcher)?, &at)?;
    Ok(SanMatcher { kind: Some(kind), matcher })
}

fn provider(
    pb: Option<CertificateProviderPluginInstance>,
    rules: &Rules,
    at: &Place<'_>,
) -> Result<Option<ProviderInstance>, Invalid> {
    let Some(CertificateProviderPluginInstance { instance_name, certificate_name }) = pb else {
        return Ok(None);
    };
    if !rules.certificate_providers.contains(instance_name.as_str()) {
        return at.at("instance_name").fail(Reason::UnknownProvider(instance_name));
    }
    Ok(Some(ProviderInstance {
        instance: Arc::from(instance_name),
        certificate: Arc::from(certificate_name),
    }))
}

fn plugin(pb: CertificateProviderInstance) -> CertificateProviderPluginInstance {
    let CertificateProviderInstance { instance_name, certificate_name } = pb;
    CertificateProviderPluginInstance { instance_name, certificate_name }
}

/// One setting in two spellings: either, or both if they are equal.
fn agreed<T: PartialEq>(
    newer: Option<T>,
    older: Option<T>,
    newer_name: &'static str,
    older_at: &Place<'_>,
) -> Result<Option<T>, Invalid> {
    match (newer, older) {
        (Some(newer), Some(older)) if newer != older => older_at.fail(Reason::Contradiction(newer_name)),
        (newer, older) => Ok(newer.or(older)),
    }
}

#[cfg(test)]
mod tests;
