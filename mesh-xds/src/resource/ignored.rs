//! The named list of fields that are accepted and have no meaning here, in one place.
//!
//! Everything else is applied, refused, or listed as not applied. `tests::every_field_is_decided` sets each field of
//! these messages in turn and holds the validators to this list.

/// Fields by message: setting one changes nothing, is not refused, and is not listed as not applied.
pub const IGNORED: &[(&str, &[&str])] = &[];
