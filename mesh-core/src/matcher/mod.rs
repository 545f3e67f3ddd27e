//! Compiled matchers: built once at the border, called on every request, never failing.

pub mod cidr;
pub mod domain;
pub mod header;
pub mod path;
pub mod query;
mod re2;
pub mod regex;
pub mod san;
pub mod string;
#[cfg(test)]
mod tests;
