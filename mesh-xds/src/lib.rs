//! xDS for the mesh: the bytes of a control plane become validated, immutable snapshots.
//!
//! ```text
//! ADS bytes ─► ads (sans-IO): version, nonce, ACK/NACK, timers
//!           ─► resource: proto → mesh_core::config, or Invalid (protobuf ends here)
//!           ─► store: last good value and last error per name ─► graph: what is reachable, what to subscribe
//!           ─► assemble: one complete Snapshot per target ─► SnapshotCell
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | [`bootstrap`] | which control plane to ask, as whom (gRFC A27) |
//! | `ads` | the ADS protocol as a sans-IO machine |
//! | `resource` | resource bytes → validated values, or the path of the field that is wrong |
//! | `resource_json` | resources written as JSON or YAML → the bytes that travel over xDS |
//! | [`invalid`] | what is wrong, and where |
//! | `store`, `graph`, `assemble` | last good values, what is reachable, complete snapshots (gRFC A74) |
//! | `last_good` | the last accepted configuration on disk |
//! | `deferred` | what of routes only the listener that takes them can judge |
//! | `rows` | what is known of each resource: what serves, what is refused of it, what of it has no effect |
//! | `outage` | why control planes cannot be asked |
//! | `resolve` | from a target to the resource it starts from: the shape of the configuration |
//! | `authority`, `xdstp` | which control planes a resource comes from (gRFC A47) |
//! | [`transport`], `driver` | the only async parts: one ADS stream for each control plane of a source |
//! | `source` | the entry: [`XdsSource`], a [`mesh_core::snapshot::ConfigSource`] |
//! | [`static_config`] | the same from a YAML or JSON file: [`StaticSource`] |
//! | `server` | the embedded control plane (feature `control-plane`) |
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]
#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "some of what is inside is public in `testing`")
)]

mod ads;
mod assemble;
mod authority;
pub mod bootstrap;
mod deferred;
mod driver;
mod graph;
pub mod invalid;
mod last_good;
mod outage;
mod resolve;
mod resource;
mod resource_json;
mod rows;
#[cfg(feature = "control-plane")]
pub mod server;
mod source;
pub mod static_config;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
mod xdstp;

pub use self::ads::{Kind, Protocol};
pub use self::resource::Rules;
pub use self::resource_json::{Format, InvalidText, Position};
pub use self::source::{XdsSource, XdsSourceBuilder};
pub use self::static_config::StaticSource;
