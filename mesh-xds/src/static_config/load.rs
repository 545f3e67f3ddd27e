//! From a text to validated resources, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mesh_core::config::endpoints::Address;
use mesh_core::config::listener::ListenerConfig;

use crate::ads::{Kind, Name};
use crate::deferred::{is_server_of, runs_with};
use crate::invalid::{Invalid, Reason, Unapplied};
use crate::resource::{Accepted, Checked, Decoded, Rules, decode};
use crate::resource_json::{
    ApplicationText, EncodedResource, Format, InvalidText, LOCATED, Position, locate, parse_own,
};

/// The valid resources of a text.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) resources: BTreeMap<(Kind, Name), Accepted>,
    /// Sections of the text without effect.
    pub(crate) without_effect: Vec<String>,
    /// Which listener serves an address.
    pub(super) addresses: BTreeMap<Address, Name>,
    /// Where each resource stands in the text.
    pub(super) places: BTreeMap<(Kind, Name), TextPlace>,
}

/// A static configuration that is not used, with everything that is wrong with it.
///
/// Its source is the [`io::Error`] of a file that cannot be read.
#[derive(Debug, Clone)]
pub struct InvalidFile {
    file: Option<Arc<Path>>,
    problems: Vec<FileProblem>,
    unread: Option<Arc<io::Error>>,
}

/// One thing that is wrong with a static configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileProblem {
    /// The file cannot be read.
    Read(io::ErrorKind),
    /// The file is not text.
    NotUtf8,
    /// The text holds no resources, or one of them does not read.
    Text(InvalidText),
    /// A resource is of a kind that means nothing in a file.
    Kind {
        /// Where it stands in the text.
        place: TextPlace,
        /// Type URL of the resource.
        type_url: String,
    },
    /// A resource is invalid.
    Resource {
        /// Where it stands in the text; the position is that of the field.
        place: TextPlace,
        /// Its name, where it has one.
        name: Option<Name>,
        /// Which field, and why.
        invalid: Invalid,
    },
    /// Two resources have the same kind and name.
    Duplicate {
        /// Where the second stands in the text.
        place: TextPlace,
        /// Kind of both.
        kind: Kind,
        /// Name of both.
        name: Name,
    },
    /// Two listeners serve the same address.
    Address {
        /// Where the second stands in the text.
        place: TextPlace,
        /// The address.
        address: Address,
    },
}

/// Where a resource stands in a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextPlace {
    /// Its path: `static_resources.listeners[0]`; empty for a text that is one resource.
    pub path: Arc<str>,
    /// Line and column, for the first problems of a text, as far as they are known.
    pub position: Option<Position>,
}

/// Number of the field `name` of a listener.
const LISTENER_NAME: u32 = 1;

/// How many problems an error's text holds.
const SHOWN: usize = 8;

/// Reads and validates every resource of a text.
pub(super) fn load(text: &str, format: Format, rules: &Rules) -> Result<Loaded, InvalidFile> {
    let read = parse_own(text, format).map_err(|e| InvalidFile::from(FileProblem::Text(e)))?;
    let ApplicationText { resources, invalid, without_effect } = read;
    let mut loaded = Loaded { without_effect, ..Loaded::default() };
    let mut problems = Vec::new();
    for resource in resources {
        if let Err(problem) = loaded.add(resource, rules) {
            problems.push(problem);
        }
    }
    problems.extend(loaded.refused_by_servers());
    problems.iter_mut().take(LOCATED).for_each(|problem| problem.locate(text));
    if !invalid.is_empty() {
        problems.extend(invalid.into_iter().map(FileProblem::Text));
        problems.sort_by_key(|problem| (problem.position().is_none(), problem.position()));
    }
    if problems.is_empty() { Ok(loaded) } else { Err(InvalidFile { file: None, problems, unread: None }) }
}

// === impl Loaded ===

impl Loaded {
    fn add(&mut self, resource: EncodedResource, rules: &Rules) -> Result<(), FileProblem> {
        let EncodedResource { place: path, type_url, name, mut value } = resource;
        let place = TextPlace { path: path.into(), position: None };
        let Some(kind) = Kind::from_type_url(&type_url) else {
            return Err(FileProblem::Kind { place, type_url });
        };
        let is_nameless = kind == Kind::Listener && name.is_none();
        if is_nameless {
            // Found by its address; the place is the name under which it is known, as Envoy makes one up.
            prost::encoding::string::encode(LISTENER_NAME, &place.path.to_string(), &mut value);
        }
        let Decoded { name, verdict } = decode(kind, &type_url, &value, rules);
        let (name, accepted) = match (name, verdict) {
            (Some(name), Ok(accepted)) => (name, accepted),
            (name, Err(invalid)) => {
                let name = name.filter(|_| !is_nameless);
                return Err(FileProblem::Resource { place, name, invalid });
            }
            // Validation refuses a resource without a name.
            (None, Ok(_)) => return Err(FileProblem::Kind { place, type_url }),
        };
        if is_nameless
            && matches!(&accepted.resource, Checked::Listener(l) if matches!(**l, ListenerConfig::Client(_)))
        {
            // A client target is found by its name alone.
            let invalid = Invalid::of_field("name", Reason::Empty);
            return Err(FileProblem::Resource { place, name: None, invalid });
        }
        if self.resources.contains_key(&(kind, name.clone())) {
            return Err(FileProblem::Duplicate { place, kind, name });
        }
        if let Checked::Listener(listener) = &accepted.resource
            && let ListenerConfig::Server(server) = &**listener
        {
            if self.addresses.contains_key(&server.address) {
                return Err(FileProblem::Address { place, address: server.address.clone() });
            }
            self.addresses.insert(server.address.clone(), name.clone());
        }
        self.places.insert((kind, name.clone()), place);
        self.resources.insert((kind, name), accepted);
        Ok(())
    }

    fn listeners(&self) -> impl Iterator<Item = &ListenerConfig> {
        self.resources.values().filter_map(|accepted| match &accepted.resource {
            Checked::Listener(listener) => Some(&**listener),
            Checked::Route(_) | Checked::Cluster(_) | Checked::Endpoints(_) => None,
        })
    }

    fn routes(&self) -> impl Iterator<Item = (&Name, &Accepted)> {
        let routes = self.resources.iter().filter(|((kind, _), _)| *kind == Kind::Route);
        routes.map(|((_, name), accepted)| (name, accepted))
    }

    /// The routes that a server takes, and refuses.
    fn refused_by_servers(&self) -> Vec<FileProblem> {
        let is_of_server = |name: &Name| self.listeners().any(|listener| is_server_of(listener, name));
        let refused = self.routes().filter_map(|(name, accepted)| {
            let invalid = accepted.deferred.refused_by_servers().filter(|_| is_of_server(name))?.clone();
            let place = self.places.get(&(Kind::Route, name.clone())).cloned().unwrap_or_default();
            Some(FileProblem::Resource { place, name: Some(name.clone()), invalid })
        });
        refused.collect()
    }

    /// Overrides of filters that no listener of the text runs, by route.
    pub(crate) fn overrides_without_effect(&self) -> BTreeMap<Name, Unapplied> {
        let of_route = |(name, accepted): (&Name, &Accepted)| {
            let runs = |filter: &str| self.listeners().any(|listener| runs_with(listener, name, filter));
            (name.clone(), accepted.deferred.without_effect(runs))
        };
        self.routes().map(of_route).filter(|(_, unapplied)| !unapplied.is_empty()).collect()
    }
}

// === impl InvalidFile ===

impl InvalidFile {
    /// Everything that is wrong, in the order of the text. Not empty.
    #[must_use]
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }

    /// Names of certificate providers that validation did not know.
    #[cfg(feature = "control-plane")]
    pub(super) fn unknown_providers(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().filter_map(|problem| match problem {
            FileProblem::Resource { invalid, .. } => match invalid.reason() {
                Reason::UnknownProvider(name) if !name.is_empty() => Some(name.as_str()),
                _ => None,
            },
            _ => None,
        })
    }

    pub(super) fn unread(error: io::Error) -> Self {
        let problem = FileProblem::Read(error.kind());
        Self { unread: Some(Arc::new(error)), ..Self::from(problem) }
    }

    pub(super) fn of_file(self, path: &Path) -> Self {
        Self { file: Some(path.into()), ..self }
    }
}

impl From<FileProblem> for InvalidFile {
    fn from(problem: FileProblem) -> Self {
        Self { file: None, problems: vec![problem], unread: None }
    }
}

impl fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        for (i, problem) in self.problems.iter().take(SHOWN).enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for InvalidFile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.unread.as_deref().map(|error| error as _)
    }
}

/// By what is wrong; an error of the system is there by its kind.
impl PartialEq for InvalidFile {
    fn eq(&self, other: &Self) -> bool {
        let Self { file, problems, unread: _ } = self;
        (file, problems) == (&other.file, &other.problems)
    }
}

impl Eq for InvalidFile {}

// === impl FileProblem ===

impl FileProblem {
    fn position(&self) -> Option<Position> {
        match self {
            Self::Read(_) | Self::NotUtf8 => None,
            Self::Text(invalid) => invalid.position,
            Self::Kind { place, .. }
            | Self::Resource { place, .. }
            | Self::Duplicate { place, .. }
            | Self::Address { place, .. } => place.position,
        }
    }

    fn locate(&mut self, text: &str) {
        let (place, path) = match self {
            Self::Read(_) | Self::NotUtf8 | Self::Text(_) => return,
            Self::Resource { place, invalid, .. } => {
                let path = place.within(invalid.path().as_str()).path;
                (place, path)
            }
            Self::Kind { place, .. } | Self::Duplicate { place, .. } => {
                let path = place.path.clone();
                (place, path)
            }
            Self::Address { place, .. } => {
                let path = place.within("address").path;
                (place, path)
            }
        };
        place.position = locate(text, &path);
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(kind) => write!(f, "cannot be read: {kind}"),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::Text(invalid) => invalid.fmt(f),
            Self::Kind { place, type_url } => {
                write!(f, "{place}{type_url:?} is not a listener, route, cluster or endpoints")
            }
            Self::Resource { place, name, invalid } => {
                match invalid.path().as_str() {
                    "" => write!(f, "{place}{}", invalid.reason())?,
                    field => write!(f, "{}{}", place.within(field), invalid.reason())?,
                }
                name.as_ref().map_or(Ok(()), |name| write!(f, " (in {name:?})"))
            }
            Self::Duplicate { place, kind, name } => write!(f, "{place}{kind} {name:?} is given twice"),
            Self::Address { place, address } => {
                write!(f, "{place}another listener has the address {address}")
            }
        }
    }
}

// === impl TextPlace ===

impl TextPlace {
    fn within(&self, field: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{field}", self.path).into(), position: self.position }
    }
}

/// What precedes what is said of it.
impl fmt::Display for TextPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, position } = self;
        if let Some(Position { line, column }) = position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if path.is_empty() { Ok(()) } else { write!(f, "{path}: ") }
    }
}
