//! The process environment: the only place of the workspace's xDS side that reads it (gRFC A27).
//!
//! The file named by `GRPC_XDS_BOOTSTRAP` wins over the text in `GRPC_XDS_BOOTSTRAP_CONFIG`. A variable that is
//! set to nothing counts as not set, as it does in every gRPC implementation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{BootstrapError, Origin, Problem};

/// Names the bootstrap file.
pub(crate) const FILE_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP";

/// Holds the bootstrap as text.
pub(crate) const TEXT_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP_CONFIG";

/// Where variables come from: the process in production, a map in tests.
pub(super) trait Strings {
    /// The value of the variable `name`, if it is set.
    fn string(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProcessEnv;

/// The document and its origin, as the environment gives them.
pub(super) struct Found {
    pub(super) origin: Origin,
    pub(super) text: String,
}

pub(super) fn find(env: &impl Strings) -> Result<Found, BootstrapError> {
    let set = |name| env.string(name).filter(|value| !value.is_empty());
    if let Some(path) = set(FILE_VARIABLE) {
        return read(PathBuf::from(path));
    }
    let Some(text) = set(TEXT_VARIABLE) else {
        return Err(BootstrapError::new(Origin::Environment, Problem::NotConfigured));
    };
    let origin = Origin::Variable(TEXT_VARIABLE);
    match text.into_string() {
        Ok(text) => Ok(Found { origin, text }),
        Err(_) => Err(BootstrapError::new(origin, Problem::NotUnicode)),
    }
}

pub(super) fn read(path: PathBuf) -> Result<Found, BootstrapError> {
    let bytes = std::fs::read(&path);
    let origin = Origin::File(path);
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return Err(BootstrapError::new(origin, Problem::Unreadable(error))),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Found { origin, text }),
        Err(_) => Err(BootstrapError::new(origin, Problem::NotUnicode)),
    }
}

// === impl Strings ===

impl Strings for ProcessEnv {
    fn string(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl Strings for BTreeMap<String, String> {
    fn string(&self, name: &str) -> Option<OsString> {
        self.get(name).map(OsString::from)
    }
}
