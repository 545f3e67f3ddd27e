//! What fuzz targets and the tests of other crates drive of the inside (feature `testing`): the ADS machine without a
//! stream, the border where resources are validated, and the file of last good configuration.

pub use crate::ads::{
    Ads, Ask, Heartbeat, Name, Received, Reconnect, Request, ResourceError, Response, Update, WILDCARD,
};
pub use crate::deferred::Deferred;
pub use crate::invalid::Unapplied;
pub use crate::last_good::file::{Entry, LastGoodError, LastGoodFile, Owner};
pub use crate::resource::{Accepted, Checked, Decoded, decode};
pub use crate::resource_json::{EncodedResource, parse};
