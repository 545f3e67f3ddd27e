//! Credentials: of the channel and of calls to the control plane (gRFC A27, A65, A97), and certificate providers (gRFC A29).
//!
//! Only file names are kept here, never their contents: certificates and keys are read where they are used.
//! Deviations: `google_default` is skipped like any unknown type. A SPIFFE trust-bundle map (gRFC A87) is refused,
//! because the roots it replaces would otherwise decide who is trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Problem, Reason};
use super::json::Field;

/// How often certificate files are read again where the bootstrap does not say.
pub const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(600);

/// How the connection to a control plane is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelCreds {
    /// Plaintext.
    Insecure,
    /// TLS, mutual where there is an identity.
    Tls(TlsCreds),
}

/// TLS towards a control plane (gRFC A65).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCreds {
    ca_certificate_file: Option<PathBuf>,
    identity: Option<IdentityFiles>,
    refresh_interval: Duration,
}

/// What is sent with every call to a control plane (gRFC A97).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallCreds {
    /// A JWT, read from this file when a stream is opened, and sent as `authorization: Bearer`.
    JwtTokenFile(PathBuf),
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    certificate: PathBuf,
    private_key: PathBuf,
}

/// A named source of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProvider {
    /// PEM files, read again when they change.
    FileWatcher(FileWatcher),
    /// A plugin that is not known here. It is an error only when a resource names the instance.
    Unknown {
        /// What the bootstrap calls the plugin.
        plugin_name: String,
    },
}

/// Configuration of the `file_watcher` plugin. There is an identity, or a CA file, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWatcher {
    identity: Option<IdentityFiles>,
    ca_certificate_file: Option<PathBuf>,
    refresh_interval: Duration,
}

// === impl ChannelCreds ===

impl ChannelCreds {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
            Self::Tls(_) => "tls",
        }
    }

    /// The first entry of a supported type, as gRFC A27 has it.
    pub(super) fn parse(list: &Field<'_>) -> Result<Self, Problem> {
        const NEXT: &str = "add an entry of type \"tls\" or \"insecure\"";
        let entries = list.items()?;
        if entries.is_empty() {
            return Err(list.fail(Reason::Missing { next: NEXT }));
        }
        let mut found = Vec::new();
        for entry in entries {
            match entry.get("type")?.required(NEXT)? {
                "insecure" => return Ok(Self::Insecure),
                "tls" => return Ok(Self::Tls(TlsCreds::parse(&entry.get("config")?)?)),
                other => found.push(other.to_owned()),
            }
        }
        Err(list.fail(Reason::NoSupportedCreds { found }))
    }
}

// === impl CallCreds ===

impl CallCreds {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::JwtTokenFile(_) => "jwt_token_file",
        }
    }

    /// All entries of supported types; others are skipped, as gRFC A97 has it.
    pub(super) fn parse(list: &Field<'_>) -> Result<Vec<Self>, Problem> {
        const NEXT: &str = "name the kind of credentials, such as \"jwt_token_file\"";
        let mut found = Vec::new();
        for entry in list.items()? {
            if entry.get("type")?.required(NEXT)? == "jwt_token_file" {
                let file = entry.get("config")?.get("jwt_token_file")?;
                let file = file.required("set it to the path of a file that holds a JWT")?;
                found.push(Self::JwtTokenFile(PathBuf::from(file)));
            }
        }
        Ok(found)
    }
}

// === impl TlsCreds ===

impl TlsCreds {
    /// TLS with the roots of the system and no client certificate.
    #[must_use]
    pub fn system_roots() -> Self {
        Self { ca_certificate_file: None, identity: None, refresh_interval: DEFAULT_REFRESH_INTERVAL }
    }

    /// Trusts the certificates of `file` instead of the system's.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certificate_file = Some(file.into());
        self
    }

    /// Presents a certificate to the control plane, as long as it has not expired.
    #[must_use]
    pub fn with_identity(mut self, identity: IdentityFiles) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The roots that sign the control plane's certificate; the system's where absent.
    #[must_use]
    pub fn ca_certificate_file(&self) -> Option<&Path> {
        self.ca_certificate_file.as_deref()
    }

    /// The certificate that this client presents.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityFiles> {
        self.identity.as_ref()
    }

    /// How often the files are read again.
    #[must_use]
    pub fn refresh_interval(&self) -> Duration {
        self.refresh_interval
    }

    fn parse(config: &Field<'_>) -> Result<Self, Problem> {
        refuse_bundle_map(config)?;
        Ok(Self {
            ca_certificate_file: config.get("ca_certificate_file")?.file()?,
            identity: IdentityFiles::parse(config)?,
            refresh_interval: config.get("refresh_interval")?.interval(DEFAULT_REFRESH_INTERVAL)?,
        })
    }
}

// === impl IdentityFiles ===

impl IdentityFiles {
    /// A certificate chain and its key.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), private_key: private_key.into() }
    }

    /// The certificate chain, leaf first.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The key of the leaf.
    #[must_use]
    pub fn private_key(&self) -> &Path {
        &self.private_key
    }

    fn parse(config: &Field<'_>) -> Result<Option<Self>, Problem> {
        let certificate = config.get("certificate_file")?;
        let private_key = config.get("private_key_file")?;
        match (certificate.file()?, private_key.file()?) {
            (Some(certificate), Some(private_key)) => Ok(Some(Self { certificate, private_key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(certificate.fail(Reason::Unpaired { other: "private_key_file" })),
            (None, Some(_)) => Err(private_key.fail(Reason::Unpaired { other: "certificate_file" })),
        }
    }
}

// === impl CertificateProvider ===

impl CertificateProvider {
    pub(super) fn parse(instance: &Field<'_>) -> Result<Self, Problem> {
        let plugin = instance.get("plugin_name")?.required("name the plugin, such as \"file_watcher\"")?;
        match plugin {
            "file_watcher" => Ok(Self::FileWatcher(FileWatcher::parse(&instance.get("config")?)?)),
            other => Ok(Self::Unknown { plugin_name: other.to_owned() }),
        }
    }
}

// === impl FileWatcher ===

impl FileWatcher {
    /// Watches a certificate with its key; add roots with [`FileWatcher::with_ca_file`].
    #[must_use]
    pub fn identity_only(identity: IdentityFiles) -> Self {
        let refresh_interval = DEFAULT_REFRESH_INTERVAL;
        Self { identity: Some(identity), ca_certificate_file: None, refresh_interval }
    }

    /// Watches roots only.
    #[must_use]
    pub fn roots_only(ca_file: impl Into<PathBuf>) -> Self {
        let refresh_interval = DEFAULT_REFRESH_INTERVAL;
        Self { identity: None, ca_certificate_file: Some(ca_file.into()), refresh_interval }
    }

    /// Adds roots.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_certificate_file = Some(file.into());
        self
    }

    /// Changes how often the files are read again.
    #[must_use]
    pub fn with_refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// The certificate and its key.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityFiles> {
        self.identity.as_ref()
    }

    /// The roots.
    #[must_use]
    pub fn ca_certificate_file(&self) -> Option<&Path> {
        self.ca_certificate_file.as_deref()
    }

    /// How often the files are read again.
    #[must_use]
    pub fn refresh_interval(&self) -> Duration {
        self.refresh_interval
    }

    fn parse(config: &Field<'_>) -> Result<Self, Problem> {
        const NEXT: &str = "name certificate_file with private_key_file, or ca_certificate_file";
        refuse_bundle_map(config)?;
        let identity = IdentityFiles::parse(config)?;
        let ca_certificate_file = config.get("ca_certificate_file")?.file()?;
        if identity.is_none() && ca_certificate_file.is_none() {
            return Err(config.fail(Reason::Missing { next: NEXT }));
        }
        let refresh_interval = config.get("refresh_interval")?.interval(DEFAULT_REFRESH_INTERVAL)?;
        Ok(Self { identity, ca_certificate_file, refresh_interval })
    }
}

fn refuse_bundle_map(config: &Field<'_>) -> Result<(), Problem> {
    const NEXT: &str = "leave it out and set ca_certificate_file";
    let map = config.get("spiffe_trust_bundle_map_file")?;
    if map.file()?.is_some() { Err(map.fail(Reason::Unsupported { next: NEXT })) } else { Ok(()) }
}
