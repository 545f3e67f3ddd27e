//! The names in a certificate: who the peer is, and whether it is whom the configuration wants.
//!
//! `match_subject_alt_names` (gRFC A29): one matching name is enough; an empty list accepts any certificate that
//! the roots vouch for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mesh_core::identity::{CertificateNames, SpiffeId};
use mesh_core::matcher::san::{SanKind, SanMatcher};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Name;

use super::TlsError;

/// The names of the leaf certificate of a verified chain.
///
/// # Errors
/// When there is no leaf or it cannot be read.
pub(crate) fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<CertificateNames, TlsError> {
    let leaf = parse_leaf(chain)?;
    let mut names = CertificateNames { subject: subject_text(leaf.subject()).into(), ..Default::default() };
    for_each_name(&leaf, |kind, name| match kind {
        SanKind::Uri => names.uris.push(name.into()),
        SanKind::Dns => names.dns.push(name.into()),
        SanKind::Email | SanKind::Ip => {}
    })?;
    if let [only] = names.uris.as_slice() {
        names.spiffe = SpiffeId::parse(only).ok();
    }
    Ok(names)
}

/// Whether the leaf of this chain has a name that one of `matchers` accepts.
pub(super) fn check_sans(chain: &[CertificateDer<'_>], matchers: &[SanMatcher]) -> Result<(), TlsError> {
    if matchers.is_empty() {
        return Ok(());
    }
    let leaf = parse_leaf(chain)?;
    let mut accepted = false;
    let mut seen = Vec::new();
    for_each_name(&leaf, |kind, name| {
        accepted = accepted || matchers.iter().any(|matcher| matcher.is_match(kind, name));
        seen.push(name.to_owned());
    })?;
    if accepted {
        return Ok(());
    }
    let text = format!("none of its names {seen:?} is accepted by match_subject_alt_names");
    Err(TlsError::PeerMismatch(text.into()))
}

/// A resumed session is not verified again by TLS; its certificate must still be in its time.
pub(super) fn check_validity(chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
    let leaf = parse_leaf(chain)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp() {
        return Ok(());
    }
    Err(TlsError::PeerMismatch("the certificate of the resumed session has expired".into()))
}

fn parse_leaf<'a>(chain: &'a [CertificateDer<'_>]) -> Result<X509Certificate<'a>, TlsError> {
    let leaf = chain.first().ok_or_else(|| TlsError::PeerMismatch("it showed no certificate".into()))?;
    let (_, certificate) = parse_x509_certificate(leaf).map_err(unreadable)?;
    Ok(certificate)
}

/// Calls `f` with each name that can be matched. Names of other kinds are skipped: nothing can name them.
fn for_each_name(leaf: &X509Certificate<'_>, mut f: impl FnMut(SanKind, &str)) -> Result<(), TlsError> {
    let Some(extension) = leaf.subject_alternative_name().map_err(unreadable)? else { return Ok(()) };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => f(SanKind::Dns, name),
            GeneralName::URI(name) => f(SanKind::Uri, name),
            GeneralName::RFC822Name(name) => f(SanKind::Email, name),
            GeneralName::IPAddress(bytes) => {
                if let Some(ip) = ip_address(bytes) {
                    f(SanKind::Ip, &ip.to_string());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b)));
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))))
}

/// RFC 2253: the most specific part first, with its special characters escaped.
fn subject_text(subject: &X509Name<'_>) -> String {
    let parts: Vec<String> = subject
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let oid = attribute.attr_type();
                    let name =
                        oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
                    format!("{name}={}", escape(attribute.as_str().unwrap_or_default()))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.iter().rev().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (i == 0 && matches!(c, '#' | ' '))
            || (i == last && c == ' ');
        if special {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn unreadable(error: impl std::fmt::Display) -> TlsError {
    let text: Arc<str> = format!("the certificate cannot be read: {error}").into();
    TlsError::PeerMismatch(text)
}
