//! The control plane as a client sees it: a raw ADS client on a loopback socket, and the sans-IO subscriber.

mod ads;
mod directory;
mod subscriber;
