//! Trait implementations for other libraries, each behind its feature. Nothing else imports axum or tonic.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tonic")]
pub(crate) mod tonic;
