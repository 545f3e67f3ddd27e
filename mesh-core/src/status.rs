//! What a source says of its configuration beside serving it: a row for each resource. What has no effect, what is
//! refused and what is of an earlier run are views of the rows.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// What a source knows of one resource that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceStatus {
    /// Kind of the resource: `listener`, `route`, `cluster`, `endpoints`; `file` for a static configuration as a whole.
    pub kind: &'static str,
    /// Its name; the path of a file. Empty where not even the name can be read.
    pub name: Arc<str>,
    /// What was last heard of it.
    pub state: ResourceState,
    /// The version of the value that serves; empty where there are none, or nothing serves.
    pub version: Arc<str>,
    /// Since when the value serves; none where nothing does.
    pub accepted_at: Option<SystemTime>,
    /// Where the value that serves is from.
    pub origin: Origin,
    /// What is refused of it as it is now.
    pub refused: Option<Refusal>,
    /// Paths of fields that are set and have no effect, the first ones.
    pub unapplied: Vec<String>,
    /// How many such fields there are, those that are not listed included.
    pub unapplied_total: usize,
}

/// What was last heard of a resource (the client's status in gRFC A40 and Envoy's CSDS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ResourceState {
    /// Nothing yet; it is asked for.
    #[default]
    Requested,
    /// That there is none, or nothing in time. A last good value may serve.
    DoesNotExist,
    /// A valid value, which serves.
    Accepted,
    /// A value that is refused. A last good one may serve.
    Refused,
    /// An error in the place of a value. A last good one may serve.
    ReceivedError,
}

/// Where a value is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origin {
    /// A control plane.
    #[default]
    ControlPlane,
    /// An earlier run of the process, because nobody has answered for it yet.
    LastRun,
    /// A static configuration.
    File,
}

/// What is refused of a resource, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The version that is refused; empty where there are none.
    pub version: Arc<str>,
    /// Which field, and why.
    pub reason: Arc<str>,
    /// When it was first refused.
    pub at: SystemTime,
    /// Whether a last good value goes on serving; if not, what needs the resource fails.
    pub is_serving: bool,
}

/// A resource in use of which some fields have no effect: they decide where or how traffic goes, and are not
/// implemented. (A field that decides who may talk makes its resource invalid instead.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnappliedFields {
    /// Kind of the resource, as in [`ResourceStatus::kind`].
    pub kind: &'static str,
    /// Its name; the path of a file.
    pub name: Arc<str>,
    /// Paths of the fields, the first ones.
    pub fields: Vec<String>,
    /// How many there are, those that are not listed included.
    pub total: usize,
}

/// A resource in use that is refused as the control plane, or a file, has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedResource {
    /// Kind of the resource, as in [`ResourceStatus::kind`].
    pub kind: &'static str,
    /// Its name; the path of a file. Empty where not even the name can be read.
    pub name: Arc<str>,
    /// The version that is refused; empty where there are none.
    pub version: Arc<str>,
    /// Which field, and why.
    pub reason: Arc<str>,
    /// Whether a last good value goes on serving; if not, what needs the resource fails.
    pub is_serving: bool,
}

// === impl ResourceStatus ===

impl ResourceStatus {
    /// A resource that is asked for.
    #[must_use]
    pub fn new(kind: &'static str, name: Arc<str>) -> Self {
        Self {
            kind,
            name,
            state: ResourceState::Requested,
            version: Arc::from(""),
            accepted_at: None,
            origin: Origin::ControlPlane,
            refused: None,
            unapplied: Vec::new(),
            unapplied_total: 0,
        }
    }

    /// Its fields without effect, if it has any.
    #[must_use]
    pub fn unapplied(&self) -> Option<UnappliedFields> {
        let Self { kind, name, unapplied, unapplied_total: total, .. } = self;
        let fields =
            || UnappliedFields { kind, name: name.clone(), fields: unapplied.clone(), total: *total };
        (*total > 0).then(fields)
    }

    /// What is refused of it, if anything is.
    #[must_use]
    pub fn refused(&self) -> Option<RefusedResource> {
        let Self { kind, name, refused, .. } = self;
        let Refusal { version, reason, at: _, is_serving } = refused.clone()?;
        Some(RefusedResource { kind, name: name.clone(), version, reason, is_serving })
    }

    /// Whether the value that serves is of an earlier run.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.accepted_at.is_some() && self.origin == Origin::LastRun
    }
}

// === impl Refusal ===

impl Refusal {
    /// Whether both say the same, whenever they were.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { version, reason, at: _, is_serving } = self;
        (version, reason, is_serving) == (&other.version, &other.reason, &other.is_serving)
    }
}

// === impl RefusedResource ===

/// `route "shop" in version "7": <field and reason>; its last good value serves`.
impl fmt::Display for RefusedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, version, reason, is_serving } = self;
        write!(f, "{kind} {name:?}")?;
        if !version.is_empty() {
            write!(f, " in version {version:?}")?;
        }
        // One line, whatever a control plane writes.
        let line = |c: char| if c.is_control() { ' ' } else { c };
        let reason: String = reason.chars().map(line).collect();
        let what = if *is_serving { "its last good value serves" } else { "nothing serves in its place" };
        write!(f, ": {reason}; {what}")
    }
}
