//! The fields that are applied, each with the behaviour test that fails when the field is ignored.
//!
//! A row is the test (`file::function`), the scope, the message and its fields (`field=VALUE` for a value of an
//! enumeration or the type of an extension). A message that is used in several places is judged by one validator, so it
//! has its rows once in each scope; that a place uses it is shown by the row of the field that holds it.

mod access;
mod clusters;
mod endpoints;
mod listeners;
mod routes;
mod same;
mod tls;

/// A test (or, of what changes no behaviour, the reason), a scope, a message, its fields.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

pub(super) const ROWS: &[&[Row]] =
    &[access::ROWS, clusters::ROWS, endpoints::ROWS, listeners::ROWS, routes::ROWS, tls::ROWS];

pub(super) const SAME: &[Row] = same::SAME;
