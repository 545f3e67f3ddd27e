//! Why a bootstrap was refused: which file, which field, what to do next.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A bootstrap that cannot be used.
///
/// The text names where the bootstrap came from, the field that is wrong, and the next step.
#[derive(Debug)]
pub struct BootstrapError {
    origin: Origin,
    problem: Problem,
}

/// Where a bootstrap came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file, named by an environment variable or by the caller.
    File(PathBuf),
    /// JSON text in an environment variable.
    Variable(&'static str),
    /// JSON text that the caller passed.
    Text,
    /// A value built in code.
    Code,
    /// The process environment, which names no bootstrap at all.
    Environment,
}

/// What is wrong with a bootstrap.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(
        "no bootstrap: set {} to the path of a bootstrap file, or {} to its text",
        super::env::FILE_VARIABLE,
        super::env::TEXT_VARIABLE
    )]
    NotConfigured,
    #[error("cannot be read ({0}); check that the file exists and that this process may read it")]
    Unreadable(#[source] std::io::Error),
    #[error("is not UTF-8 text; a bootstrap is a JSON document in UTF-8")]
    NotUnicode,
    #[error("is not JSON: {0}; correct the document at that place")]
    Syntax(#[source] serde_json::Error),
    #[error("{path}: {reason}; {}", .reason.next_step())]
    Field { path: String, reason: Reason },
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("missing")]
    Missing { next: &'static str },
    #[error("expected {expected}, found {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("empty")]
    Empty { next: &'static str },
    #[error("{uri:?} is not a server address: {problem}")]
    Uri { uri: String, problem: &'static str },
    #[error("the address is {scheme}:// but the credentials are {creds:?}")]
    SchemeAgainstCreds { scheme: &'static str, creds: &'static str },
    #[error("{call_creds:?} would be sent over a connection that is not secured ({channel_creds:?})")]
    UnsecuredCallCreds { call_creds: &'static str, channel_creds: &'static str },
    #[error("none of the credential types {found:?} is supported")]
    NoSupportedCreds { found: Vec<String> },
    #[error("set without {other:?}")]
    Unpaired { other: &'static str },
    #[error("{text:?} is not a duration")]
    Duration { text: String },
    #[error("the duration is not above zero")]
    DurationNotPositive,
    #[error("the template does not begin with {prefix:?}")]
    TemplatePrefix { prefix: String },
    #[error("not supported, and to ignore it would change who is trusted")]
    Unsupported { next: &'static str },
}

// === impl BootstrapError ===

impl BootstrapError {
    pub(crate) fn new(origin: Origin, problem: Problem) -> Self {
        Self { origin, problem }
    }

    /// Where the bootstrap came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The file, where the bootstrap came from one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Variable(_) | Origin::Text | Origin::Code | Origin::Environment => None,
        }
    }

    /// The path of the field that is wrong, such as `xds_servers[0].server_uri`.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        match &self.problem {
            Problem::Field { path, .. } => Some(path),
            Problem::NotConfigured | Problem::Unreadable(_) | Problem::NotUnicode | Problem::Syntax(_) => {
                None
            }
        }
    }

    /// True where the environment names no bootstrap, so that a caller can fall back to another source.
    #[must_use]
    pub fn is_not_configured(&self) -> bool {
        matches!(self.problem, Problem::NotConfigured)
    }
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

impl std::error::Error for BootstrapError {
    /// The problem is part of our text; where it has a cause (an `io::Error`), that is it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "bootstrap file {}", path.display()),
            Self::Variable(name) => write!(f, "bootstrap text in {name}"),
            Self::Text => f.write_str("bootstrap text"),
            Self::Code => f.write_str("bootstrap built in code"),
            Self::Environment => f.write_str("environment"),
        }
    }
}

// === impl Reason ===

impl Reason {
    pub(crate) fn at(self, path: impl Into<String>) -> Problem {
        Problem::Field { path: path.into(), reason: self }
    }

    fn next_step(&self) -> &'static str {
        match self {
            Self::Missing { next } | Self::Empty { next } | Self::Unsupported { next } => next,
            Self::WrongType { .. } => "correct the type of the value",
            Self::Uri { .. } => {
                "write it as host:port, dns:///host:port, unix:///path, http://host:port or https://host:port"
            }
            Self::SchemeAgainstCreds { .. } => {
                "use http:// with \"insecure\", https:// with \"tls\", or leave the scheme out and let the credentials decide"
            }
            Self::UnsecuredCallCreds { .. } => {
                "set the first entry of channel_creds to the type \"tls\", or remove call_creds"
            }
            Self::NoSupportedCreds { .. } => "add an entry of type \"tls\" or \"insecure\"",
            Self::Unpaired { .. } => "set both or neither: a certificate is of use only with its key",
            Self::Duration { .. } => "write seconds with the suffix s, such as \"600s\" or \"0.5s\"",
            Self::DurationNotPositive => "set an interval such as \"600s\", or leave the field out",
            Self::TemplatePrefix { .. } => "begin the template with it (gRFC A47), or leave the field out",
        }
    }
}

/// Reads a duration in the JSON form of protobuf: decimal seconds with up to nine digits of fraction and `s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Reason> {
    let wrong = || Reason::Duration { text: text.to_owned() };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let number = text.strip_suffix('s').ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let seconds: u64 = whole.parse().map_err(|_| wrong())?;
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    Ok(Duration::new(seconds, nanos))
}
