//! What is wrong with a resource, and where: `virtual_hosts[2].routes[0].match.safe_regex: invalid regular expression: …`.
//!
//! A `Place` is a linked list on the stack: it costs nothing while validation succeeds, and becomes a [`FieldPath`]
//! when a field is refused (`Place::fail`) or found set but not implemented (`Place::unapplied`).

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, LazyLock};

use mesh_core::config::units::{InvalidDuration, OutOfRange};
use mesh_core::matcher::cidr::InvalidCidr;
use mesh_core::matcher::domain::InvalidDomain;
use mesh_core::matcher::regex::InvalidRegex;

use crate::deferred::Deferred;

/// A refused field: the resource that holds it is not used (NACK).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    path: FieldPath,
    reason: Reason,
}

/// Where a field is, from the resource down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldPath(Arc<str>);

/// Why a field is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes are not the message they should be.
    #[error("cannot be decoded: {0}")]
    Decode(prost::DecodeError),
    /// The resource is larger than this library accepts.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// More entries than this library accepts.
    #[error("more than {0} entries")]
    TooMany(usize),
    /// The field is required.
    #[error("is required")]
    Missing,
    /// The message is of another type.
    #[error("type {actual:?} where {expected:?} is expected")]
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        actual: String,
    },
    /// The field is not implemented, and ignoring it could let somebody in, or make the resource mean something else.
    #[error("is not supported")]
    Unsupported,
    /// The value is not implemented.
    #[error("{0:?} is not supported")]
    UnsupportedValue(String),
    /// An extension that is not implemented.
    #[error("extension {0:?} is not supported")]
    UnsupportedExtension(String),
    /// A number that names no value of the enumeration.
    #[error("{0} is not a known value")]
    UnknownEnum(i32),
    /// Something else has the same value.
    #[error("{0:?} is given twice")]
    Duplicate(String),
    /// A certificate provider that the bootstrap does not have.
    #[error("certificate provider {0:?} is not in the bootstrap; add it to certificate_providers")]
    UnknownProvider(String),
    /// Two spellings of one setting that do not agree.
    #[error("differs from {0}, which means the same")]
    Contradiction(&'static str),
    /// Not an IP address.
    #[error("{0:?} is not an IP address")]
    NotAnIp(String),
    /// Not the name of a header.
    #[error("{0:?} is not a header name that can be matched")]
    HeaderName(String),
    /// A text that would match everything, where something was to be matched.
    #[error("must not be empty")]
    Empty,
    /// A text that breaks a rule of its field.
    #[error("{value:?} {rule}")]
    Text {
        /// The text.
        value: String,
        /// What it should be.
        rule: &'static str,
    },
    /// A rule between several fields is broken.
    #[error("{0}")]
    Rule(&'static str),
    /// Every weight is 0.
    #[error("the weights add up to {0}, which is not within 1..=4294967295")]
    WeightSum(u64),
    /// A priority without endpoints below one with endpoints.
    #[error("priority {0} is missing")]
    PriorityGap(u32),
    /// A number out of its range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// A number that is not within its range, with a fraction.
    #[error("{0} is not within 0..=100")]
    Percent(String),
    /// A duration out of its range.
    #[error(transparent)]
    Duration(#[from] InvalidDuration),
    /// Not a regular expression.
    #[error(transparent)]
    Regex(#[from] InvalidRegex),
    /// A regular expression that Envoy's RE2 would read another way.
    #[error("invalid regular expression: {0}")]
    RegexSyntax(&'static str),
    /// Not a domain.
    #[error(transparent)]
    Domain(#[from] InvalidDomain),
    /// Not an address range.
    #[error(transparent)]
    Cidr(#[from] InvalidCidr),
}

/// Fields that are set and have no effect here: traffic fields that are not implemented. At most
/// [`Unapplied::MAX`] are kept, the rest are counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unapplied {
    fields: Vec<FieldPath>,
    more: usize,
}

/// Where validation is, as a linked list on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    notes: &'a Notes,
}

/// What validation found on its way, beside the value.
#[derive(Default)]
struct Notes {
    unapplied: RefCell<Unapplied>,
    deferred: RefCell<Deferred>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'static str),
    Index(usize),
    Key(&'a str),
}

/// Whether a field of a message is set.
pub(crate) trait Present {
    /// Differs from protobuf's default.
    fn is_present(&self) -> bool;
}

// === impl Invalid ===

impl Invalid {
    /// The field that is refused; empty when it is the resource as a whole.
    #[must_use]
    pub fn path(&self) -> &FieldPath {
        &self.path
    }

    /// Why it is refused.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// A field of the resource itself.
    pub(crate) fn of_field(field: &'static str, reason: impl Into<Reason>) -> Self {
        Self { path: FieldPath(field.into()), reason: reason.into() }
    }

    /// A resource that is refused as a whole.
    pub(crate) fn whole(reason: impl Into<Reason>) -> Self {
        Self { path: FieldPath::default(), reason: reason.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason } = self;
        if path.0.is_empty() { reason.fmt(f) } else { write!(f, "{path}: {reason}") }
    }
}

impl std::error::Error for Invalid {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.reason)
    }
}

// === impl FieldPath ===

impl FieldPath {
    /// The path as protobuf text writes it: `a.b[2].c["key"]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Unapplied ===

impl Unapplied {
    /// How many paths are kept.
    pub const MAX: usize = 256;

    /// The fields, in the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &FieldPath> {
        self.fields.iter()
    }

    /// How many there are, those beyond [`Self::MAX`] included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len() + self.more
    }

    /// Whether every field that is set has an effect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shares it. Nearly all are empty: those are one.
    pub(crate) fn shared(self) -> Arc<Self> {
        static EMPTY: LazyLock<Arc<Unapplied>> = LazyLock::new(Arc::default);
        if self.is_empty() { EMPTY.clone() } else { Arc::new(self) }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        for path in &other.fields {
            self.push(|| path.clone());
        }
        self.more += other.more;
    }

    fn push(&mut self, path: impl FnOnce() -> FieldPath) {
        if self.fields.len() < Self::MAX {
            self.fields.push(path());
        } else {
            self.more += 1;
        }
    }
}

impl FromIterator<FieldPath> for Unapplied {
    fn from_iter<I: IntoIterator<Item = FieldPath>>(paths: I) -> Self {
        let mut unapplied = Self::default();
        paths.into_iter().for_each(|path| unapplied.push(|| path));
        unapplied
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    /// Validates a resource from its root, and collects what it does not apply.
    pub(crate) fn root<T>(
        validate: impl FnOnce(&Place<'_>) -> Result<T, Invalid>,
    ) -> Result<(T, Unapplied), Invalid> {
        let notes = Notes::default();
        let value = validate(&Place { parent: None, step: Step::Root, notes: &notes })?;
        Ok((value, notes.unapplied.into_inner()))
    }

    /// A field of this message.
    pub(crate) fn at<'b>(&'b self, field: &'static str) -> Place<'b> {
        Place { parent: Some(self), step: Step::Field(field), notes: self.notes }
    }

    /// An element of this list.
    pub(crate) fn index<'b>(&'b self, index: usize) -> Place<'b> {
        Place { parent: Some(self), step: Step::Index(index), notes: self.notes }
    }

    /// An entry of this map.
    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Place<'b> {
        Place { parent: Some(self), step: Step::Key(key), notes: self.notes }
    }

    /// Refuses what is here.
    pub(crate) fn fail<T>(&self, reason: impl Into<Reason>) -> Result<T, Invalid> {
        Err(self.invalid(reason))
    }

    /// What is here is invalid.
    pub(crate) fn invalid(&self, reason: impl Into<Reason>) -> Invalid {
        Invalid { path: self.path(), reason: reason.into() }
    }

    /// Places an error.
    pub(crate) fn check<T, E: Into<Reason>>(&self, result: Result<T, E>) -> Result<T, Invalid> {
        result.map_err(|e| self.invalid(e))
    }

    /// The value, which must be there.
    pub(crate) fn required<T>(&self, value: Option<T>) -> Result<T, Invalid> {
        value.ok_or_else(|| self.invalid(Reason::Missing))
    }

    /// Lists what is here as not applied.
    pub(crate) fn unapplied(&self) {
        self.notes.unapplied.borrow_mut().push(|| self.path());
    }

    /// Lists fields of this resource as not applied.
    pub(crate) fn unapplied_too(&self, fields: &Unapplied) {
        self.notes.unapplied.borrow_mut().extend(fields);
    }

    /// What is here overrides a filter. It is for the listener to say whether that has an effect.
    pub(crate) fn is_override_of(&self, filter: &str) {
        self.notes.deferred.borrow_mut().override_of(filter, self.path());
    }

    /// A server refuses what is here; a client can do without it.
    pub(crate) fn refused_by_servers(&self, reason: impl Into<Reason>) {
        self.notes.deferred.borrow_mut().refuse(self.invalid(reason));
    }

    /// What has been left to the listener so far.
    pub(crate) fn take_deferred(&self) -> Deferred {
        self.notes.deferred.take()
    }

    /// Lists those fields of this message that are set as not applied.
    pub(crate) fn unapplied_if(&self, fields: &[(&'static str, bool)]) {
        for (field, _) in fields.iter().filter(|(_, present)| *present) {
            self.at(field).unapplied();
        }
    }

    /// Refuses the first field of this message that is set.
    pub(crate) fn refuse_if(&self, fields: &[(&'static str, bool)]) -> Result<(), Invalid> {
        match fields.iter().find(|(_, present)| *present) {
            Some((field, _)) => self.at(field).fail(Reason::Unsupported),
            None => Ok(()),
        }
    }

    fn path(&self) -> FieldPath {
        let mut text = String::new();
        self.write(&mut text);
        FieldPath(text.into())
    }

    fn write(&self, text: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(text);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => text.push_str(&format!("[{key:?}]")),
        }
    }
}

impl fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.path().as_str()).finish()
    }
}

// === impl Present ===

impl<T> Present for Option<T> {
    fn is_present(&self) -> bool {
        self.is_some()
    }
}

impl<T> Present for Vec<T> {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> Present for std::collections::HashMap<K, V> {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl Present for String {
    fn is_present(&self) -> bool {
        !self.is_empty()
    }
}

impl Present for bool {
    fn is_present(&self) -> bool {
        *self
    }
}

impl Present for i32 {
    fn is_present(&self) -> bool {
        *self != 0
    }
}

impl Present for u32 {
    fn is_present(&self) -> bool {
        *self != 0
    }
}

impl Present for i64 {
    fn is_present(&self) -> bool {
        *self != 0
    }
}

/// Names each variable with whether it is set, for [`Place::unapplied_if`] and [`Place::refuse_if`].
macro_rules! fields {
    ($($field:ident),+ $(,)?) => {
        &[$((stringify!($field), $crate::invalid::Present::is_present(&$field))),+]
    };
}
pub(crate) use fields;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_resource() {
        let failed = Place::root(|at| -> Result<(), Invalid> {
            at.at("virtual_hosts")
                .index(2)
                .at("typed_per_filter_config")
                .key("rbac")
                .at("rules")
                .fail(Reason::Missing)
        });
        let text = failed.unwrap_err().to_string();
        assert_eq!(text, r#"virtual_hosts[2].typed_per_filter_config["rbac"].rules: is required"#);
        assert_eq!(Invalid::whole(Reason::Missing).to_string(), "is required");
    }

    #[test]
    fn what_is_set_and_not_applied_is_listed_up_to_a_bound() {
        let ((), unapplied) = Place::root(|at| {
            for i in 0..Unapplied::MAX + 3 {
                at.at("filters").index(i).unapplied();
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((unapplied.len(), unapplied.iter().count()), (Unapplied::MAX + 3, Unapplied::MAX));
        assert_eq!(unapplied.iter().nth(1).map(FieldPath::as_str), Some("filters[1]"));
    }

    #[test]
    fn the_first_set_field_is_refused_by_its_name() {
        let (crl, vhds) = (Some(()), String::new());
        let failed = Place::root(|at| at.refuse_if(fields![vhds, crl]));
        assert_eq!(failed.unwrap_err().to_string(), "crl: is not supported");
    }
}
