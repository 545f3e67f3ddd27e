//! Every field is decided.
