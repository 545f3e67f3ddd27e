//! What is odd with resources that are in force: they name what is not there, or have fields without effect.
//!
//! A client's view is taken into account: a resource may be there for one view, and missing for another. A name of an
//! `xdstp:` authority of which the control plane has nothing is another control plane's, and not judged.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::verdict;
use super::{Checks, Directory, View};
use crate::ads::Kind;
use crate::deferred::{is_server_of, runs_with};
use crate::invalid::Unapplied;
use crate::resource::{Accepted, Checked, Rules};
use crate::server::cache::Cache;
use crate::server::resource::Resource;
use crate::xdstp::{Xdstp, is_xdstp};

/// Something odd with a resource that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file that has the resource.
    pub path: PathBuf,
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// What is odd.
    pub oddity: Oddity,
}

/// What is odd with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oddity {
    /// It names a resource that is not there: a listener its routes, a route a cluster, a cluster its endpoints.
    Dangling {
        /// Kind of what is named.
        kind: Kind,
        /// Name of what is named.
        name: Arc<str>,
        /// The views whose clients miss it, none being clients without a view; empty where nobody has it.
        missing_for: Vec<Option<Arc<str>>>,
    },
    /// Routes that clients take, and servers refuse.
    Refused {
        /// Which field, and why.
        reason: String,
    },
    /// Fields that are set and have no effect on clients of this mesh.
    Unapplied {
        /// Their paths, or the first of them.
        fields: Vec<String>,
        /// How many there are.
        total: usize,
    },
}

/// What the resources are judged against.
struct Surroundings<'a> {
    cache: &'a Cache,
    /// Clients without a view, and the views.
    audiences: BTreeSet<View>,
    /// What views put in the place of what everybody sees.
    overrides: BTreeSet<(&'a str, Kind, &'a str)>,
    authorities: BTreeSet<Cow<'a, str>>,
}

// === impl Directory ===

impl Directory {
    /// What is odd with what is in force: references to nothing, and, where resources are judged as a client would,
    /// fields without effect. In the order of the files.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let cache = self.control.shared.resources();
        let surroundings = self.surroundings(&cache);
        let judged = self.judged();
        let listeners = || {
            judged.iter().filter_map(|(_, _, _, accepted)| match &accepted.resource {
                Checked::Listener(listener) => Some(&**listener),
                Checked::Route(_) | Checked::Cluster(_) | Checked::Endpoints(_) => None,
            })
        };
        let mut findings = Vec::new();
        for (view, path, resource, accepted) in &judged {
            let finding = |oddity| Finding::new(path, resource, oddity);
            findings.extend(surroundings.dangling(view, resource, accepted).into_iter().map(finding));
            if self.checks == Checks::AsClient {
                let (name, deferred) = (resource.name(), &accepted.deferred);
                let runs = |filter: &str| listeners().any(|one| runs_with(one, name, filter));
                let overrides = deferred.without_effect(runs);
                findings.extend(Oddity::unapplied(accepted, Some(&overrides)).map(finding));
                let is_of_server = || listeners().any(|one| is_server_of(one, name));
                let refusal = deferred.refused_by_servers().filter(|_| is_of_server());
                findings
                    .extend(refusal.map(|invalid| finding(Oddity::Refused { reason: invalid.to_string() })));
            }
        }
        findings
    }

    /// What is in force, as a client would take it, in the order of the files.
    fn judged(&self) -> Vec<(&View, &Path, &Resource, Accepted)> {
        let mut judged = Vec::new();
        for ((view, path), file) in &self.files {
            // As when the file was taken: any provider that it names counts as known.
            let mut rules = Rules::default();
            for resource in &file.in_force {
                // Only what is served to clients that know more is not accepted, and that is not for us to judge.
                let (_, Ok(accepted)) = verdict(resource, &mut rules) else { continue };
                judged.push((view, path.as_path(), resource, accepted));
            }
        }
        judged
    }

    fn surroundings<'a>(&'a self, cache: &'a Cache) -> Surroundings<'a> {
        let all = || {
            let each = |((view, _), file): (&'a super::Place, &'a super::file::File)| {
                file.in_force.iter().map(move |resource| (view, resource))
            };
            self.files.iter().flat_map(each)
        };
        let overrides = all()
            .filter_map(|(view, resource)| Some((view.as_deref()?, resource.kind(), &**resource.name())));
        Surroundings {
            cache,
            audiences: self.files.keys().map(|(view, _)| view.clone()).chain([None]).collect(),
            overrides: overrides.collect(),
            authorities: all().filter_map(|(_, resource)| authority(resource.name())).collect(),
        }
    }
}

// === impl Surroundings ===

impl Surroundings<'_> {
    fn dangling(&self, view: &View, resource: &Resource, accepted: &Accepted) -> Vec<Oddity> {
        let audiences: Vec<&View> =
            self.audiences.iter().filter(|one| self.sees(one, view, resource)).collect();
        let named = accepted.resource.references().into_iter().filter(|(_, name)| self.is_ours(name));
        let dangling = named.filter_map(|(kind, name)| {
            let is_missing =
                |audience: &&&View| self.cache.view(audience.as_deref()).get(kind, &name).is_none();
            let missing: Vec<View> =
                audiences.iter().filter(is_missing).map(|view| (*view).clone()).collect();
            let missing_for = if missing.len() < audiences.len() { missing.clone() } else { Vec::new() };
            (!missing.is_empty()).then_some(Oddity::Dangling { kind, name, missing_for })
        });
        dangling.collect()
    }

    /// Whether clients of one view see what is in a file of another.
    fn sees(&self, audience: &View, of: &View, resource: &Resource) -> bool {
        let is_hidden = |view: &str| self.overrides.contains(&(view, resource.kind(), &**resource.name()));
        audience == of || of.is_none() && !audience.as_deref().is_some_and(is_hidden)
    }

    fn is_ours(&self, name: &str) -> bool {
        !is_xdstp(name) || authority(name).is_some_and(|authority| self.authorities.contains(&authority))
    }
}

fn authority(name: &str) -> Option<Cow<'_, str>> {
    Xdstp::parse(name).ok().map(|parts| parts.authority)
}

// === impl Finding ===

impl Finding {
    fn new(path: &Path, resource: &Resource, oddity: Oddity) -> Self {
        Self { path: path.into(), kind: resource.kind(), name: Arc::clone(resource.name()), oddity }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, name, oddity } = self;
        write!(f, "{}: {kind} {name:?} {oddity}", path.display())
    }
}

// === impl Oddity ===

impl Oddity {
    /// What has no effect of a resource, and of its overrides; none where everything has.
    pub(crate) fn unapplied(accepted: &Accepted, overrides: Option<&Unapplied>) -> Option<Self> {
        let all = || [&*accepted.unapplied].into_iter().chain(overrides);
        let fields = all().flat_map(Unapplied::iter).map(ToString::to_string).collect();
        let total = all().map(Unapplied::len).sum();
        (total > 0).then_some(Self::Unapplied { fields, total })
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dangling { kind, name, missing_for } if missing_for.is_empty() => {
                write!(f, "names {kind} {name:?}, which is not there")
            }
            Self::Dangling { kind, name, missing_for } => {
                write!(f, "names {kind} {name:?}, which is not there for ")?;
                for (i, view) in missing_for.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    match view {
                        None => write!(f, "{comma}clients without a view")?,
                        Some(view) => write!(f, "{comma}view {view:?}")?,
                    }
                }
                Ok(())
            }
            Self::Refused { reason } => write!(f, "is refused by servers that take it: {reason}"),
            Self::Unapplied { fields, total } => {
                write!(f, "has fields without effect: {}", fields.join(", "))?;
                match total.saturating_sub(fields.len()) {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more"),
                }
            }
        }
    }
}
