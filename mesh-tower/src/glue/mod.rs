//! Trait implementations for other libraries, each behind its feature. Nothing else imports axum or tonic.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "tonic")]
mod tonic;
