//! Implementations for other people's types, each behind its feature; nothing else imports axum, tonic or mesh-xds.
