//! Trait implementations for other libraries, each behind its feature. Nothing else imports axum, tonic or mesh-xds.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub(crate) mod tonic;
#[cfg(feature = "xds")]
mod xds;
