//! The format: one line of JSON that says whose and how long it is, then the resources, each with its length before it.

use std::collections::BTreeSet;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::ads::{Kind, Name};
use crate::bootstrap::Bootstrap;
use crate::invalid::Invalid;

/// What the first line begins with, and its version.
const FORMAT: &str = "mesh-last-good/1";

/// The longest first line that is looked at.
const HEADER_MAX: usize = 64 << 10;

/// Whose configuration a file holds: another node's, or other control planes', is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node id.
    pub node: String,
    /// Every control plane of the bootstrap, in its order.
    pub servers: Vec<String>,
}

/// The contents of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGoodFile {
    /// Whose it is.
    pub owner: Owner,
    /// The resources, each kind and name once.
    pub entries: Vec<Entry>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which type.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The resource as it came.
    pub bytes: Bytes,
    /// When it was last in use, in seconds since 1970.
    pub used_at: u64,
}

/// Why a file of last good configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// It cannot be read.
    #[error("cannot be read: {0}; check that this process may read it")]
    Read(#[source] io::Error),
    /// It is not such a file.
    #[error("is not a file of last good configuration; name another file, or remove it")]
    Foreign,
    /// A later version of this library wrote it.
    #[error("has the format {0:?}, and this library reads {FORMAT:?}; remove it")]
    Format(String),
    /// It is another process's.
    #[error("belongs to node {:?} of {:?}, and this is node {:?} of {:?}; each process needs a file of its own",
        .found.node, .found.servers, .expected.node, .expected.servers)]
    Owner {
        /// Who wrote it.
        found: Box<Owner>,
        /// Who reads it.
        expected: Box<Owner>,
    },
    /// It ends early, or holds more than it says.
    #[error("holds {found} bytes where {expected} were written: it was cut or appended to; remove it")]
    Length {
        /// Bytes written.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// Its bytes are not those that were written.
    #[error("is damaged: its checksum is not the one that was written; remove it")]
    Checksum,
    /// Its bytes are those that were written, and make no sense.
    #[error("cannot be decoded: {0}; remove it")]
    Decode(#[from] prost::DecodeError),
    /// A resource is of a type that is not used here, or there twice, or more or fewer are there than it says.
    #[error("holds {0}; remove it")]
    Contents(String),
    /// A resource is not valid under the rules of this process.
    #[error("holds {kind} {name:?}, which is not valid here: {invalid}; remove it")]
    Invalid {
        /// Which type.
        kind: Kind,
        /// Its name.
        name: Name,
        /// Which field, and why.
        invalid: Invalid,
    },
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    owner: Owner,
    resources: usize,
    bytes: usize,
    sha256: String,
}

/// An [`Entry`] as it is written.
#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", tag = "3")]
    bytes: Bytes,
    #[prost(uint64, tag = "4")]
    used_at: u64,
}

// === impl Owner ===

impl Owner {
    /// The owner of files of this bootstrap.
    #[must_use]
    pub fn of(bootstrap: &Bootstrap) -> Self {
        let servers = bootstrap.servers().map(|server| server.uri().as_str().to_owned()).collect();
        Self { node: bootstrap.node().id().to_owned(), servers }
    }
}

// === impl LastGoodFile ===

impl LastGoodFile {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for Entry { kind, name, bytes, used_at } in &self.entries {
            let written = Written {
                type_url: kind.type_url().to_owned(),
                name: (**name).to_owned(),
                bytes: bytes.clone(),
                used_at: *used_at,
            };
            body.extend_from_slice(&written.encode_length_delimited_to_vec());
        }
        let header = serde_json::json!({
            "format": FORMAT,
            "owner": self.owner,
            "resources": self.entries.len(),
            "bytes": body.len(),
            "sha256": checksum(&body),
        });
        let mut file = header.to_string().into_bytes();
        file.push(b'\n');
        file.extend_from_slice(&body);
        file
    }

    /// Reads a file's bytes, whosever they are. The resources are not validated.
    ///
    /// # Errors
    /// Whatever is not exactly as it was written.
    pub fn decode(file: &Bytes) -> Result<Self, LastGoodError> {
        let line = file.iter().take(HEADER_MAX).position(|byte| *byte == b'\n');
        let line = line.ok_or(LastGoodError::Foreign)?;
        let body = file.slice(line + 1..);
        let header = header(&file.slice(..line))?;
        if body.len() != header.bytes {
            return Err(LastGoodError::Length { expected: header.bytes, found: body.len() });
        }
        if checksum(&body) != header.sha256 {
            return Err(LastGoodError::Checksum);
        }
        let entries = entries(body)?;
        if entries.len() != header.resources {
            let counts = format!("{} resources and says {}", entries.len(), header.resources);
            return Err(LastGoodError::Contents(counts));
        }
        Ok(Self { owner: header.owner, entries })
    }

    /// Refuses a file that is another process's.
    ///
    /// # Errors
    /// Where the owner is not `expected`.
    pub fn owned_by(self, expected: &Owner) -> Result<Self, LastGoodError> {
        if self.owner == *expected {
            return Ok(self);
        }
        Err(LastGoodError::Owner { found: Box::new(self.owner), expected: Box::new(expected.clone()) })
    }
}

fn header(line: &[u8]) -> Result<Header, LastGoodError> {
    let line: serde_json::Value = serde_json::from_slice(line).map_err(|_| LastGoodError::Foreign)?;
    match line.get("format").and_then(serde_json::Value::as_str) {
        Some(FORMAT) => serde_json::from_value(line).map_err(|_| LastGoodError::Foreign),
        Some(other) => Err(LastGoodError::Format(other.to_owned())),
        None => Err(LastGoodError::Foreign),
    }
}

fn entries(mut body: Bytes) -> Result<Vec<Entry>, LastGoodError> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    while !body.is_empty() {
        let Written { type_url, name, bytes, used_at } = Written::decode_length_delimited(&mut body)?;
        let kind = Kind::from_type_url(&type_url)
            .ok_or_else(|| LastGoodError::Contents(format!("a resource of type {type_url:?}")))?;
        let name: Name = name.into();
        if !seen.insert((kind, name.clone())) {
            return Err(LastGoodError::Contents(format!("{kind} {name:?} twice")));
        }
        entries.push(Entry { kind, name, bytes, used_at });
    }
    Ok(entries)
}

fn checksum(body: &[u8]) -> String {
    digest(&SHA256, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
