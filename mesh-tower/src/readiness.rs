//! What is known of a mesh that is ready.

use std::fmt;

use mesh_core::status::RefusedResource;

/// Every target has a configuration. What is refused meanwhile does not change that: the last good one serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Readiness {
    /// What is refused as the control plane, or the file, has it now. Empty where all is in use as it is.
    pub refused: Vec<RefusedResource>,
}

/// `ready`, and a line for each resource that is refused.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ready")?;
        self.refused.iter().try_for_each(|refused| write!(f, "\n{refused}"))
    }
}
