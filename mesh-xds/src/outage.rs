//! Why control planes cannot be asked.

use std::fmt;
use std::sync::Arc;

use mesh_core::snapshot::ConfigProblem;

/// The last error of one control plane, or of all that an authority has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    why: Arc<str>,
    /// No name could be resolved: nobody was there to be reached, or not.
    of_name: bool,
}

// === impl Outage ===

impl Outage {
    /// A name that cannot be resolved.
    pub(crate) fn of_name(why: impl Into<Arc<str>>) -> Self {
        Self { why: why.into(), of_name: true }
    }

    /// The same, of this control plane.
    pub(crate) fn at(&self, server: &str) -> Self {
        Self { why: format!("{server}: {}", self.why).into(), of_name: self.of_name }
    }

    /// Several as one.
    pub(crate) fn all<'a>(outages: impl Iterator<Item = &'a Self>) -> Self {
        let outages: Vec<&Self> = outages.collect();
        let whys: Vec<&str> = outages.iter().map(|outage| &*outage.why).collect();
        Self { why: whys.join("; ").into(), of_name: outages.iter().all(|outage| outage.of_name) }
    }

    /// What a resource has meanwhile.
    pub(crate) fn problem(&self) -> ConfigProblem {
        match self.of_name {
            true => ConfigProblem::Unresolved(format!("control plane {}", self.why).into()),
            false => ConfigProblem::Unreachable(self.why.clone()),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<&str> for Outage {
    fn from(why: &str) -> Self {
        Self { why: why.into(), of_name: false }
    }
}

impl From<String> for Outage {
    fn from(why: String) -> Self {
        Self { why: why.into(), of_name: false }
    }
}

impl From<Arc<str>> for Outage {
    fn from(why: Arc<str>) -> Self {
        Self { why, of_name: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_no_name_at_all_can_be_resolved_it_is_not_a_matter_of_reaching() {
        let (name, away) = (Outage::of_name("no such name").at("a"), Outage::from("refused").at("b"));
        let text = |outages: &[&Outage]| format!("x {}", Outage::all(outages.iter().copied()).problem());
        assert_eq!(text(&[&name]), "x is not available: control plane a: no such name");
        assert_eq!(text(&[&away]), "x is not available: control plane unreachable: b: refused");
        assert_eq!(
            text(&[&name, &away]),
            "x is not available: control plane unreachable: a: no such name; b: refused"
        );
        assert_eq!(
            text(&[&name, &name]),
            "x is not available: control plane a: no such name; a: no such name"
        );
    }
}
