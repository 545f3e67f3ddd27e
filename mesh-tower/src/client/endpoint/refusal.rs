//! What a failure below the balancer means to the layers above it.

use std::sync::Arc;

use mesh_core::error::{Reason, Rejection};
use mesh_core::retry::Untouched;

use crate::client::pin::PinnedCluster;
use crate::client::request::AttemptError;
use crate::transport::error::{ConnectError, FailureKind, Progress, SendError};

/// No connection could be had.
pub(super) fn connect_failed(cluster: &PinnedCluster, error: ConnectError) -> Rejection {
    let detail = format!("cluster {:?}: {error}", cluster.config.name);
    Rejection::new(Reason::ConnectFailed).with_detail(detail).with_source(Arc::new(error))
}

/// The request stays in its place, to be sent to another endpoint: whoever picked this one did so before its last
/// connection was lost.
pub(super) fn unsent(rejection: Rejection) -> AttemptError {
    let untouched = (rejection.reason() == Reason::ConnectFailed).then_some(Untouched::NeverSent);
    AttemptError { rejection, untouched }
}

/// The request got no response.
pub(super) fn send_failed(error: &SendError, can_repeat: bool) -> AttemptError {
    let untouched = match error.progress() {
        Progress::NotSent => Some(Untouched::NeverSent),
        Progress::Unprocessed if error.kind() == FailureKind::GoAway => Some(Untouched::GoneAway),
        Progress::Unprocessed => Some(Untouched::ByPeer),
        // The peer closed an idle connection under our request: once, and only where repeating changes nothing.
        Progress::ReusedEnded { written } if !written || can_repeat => Some(Untouched::Reused),
        _ => None,
    };
    let reason = match error.kind() {
        FailureKind::RequestBody => Reason::RequestBody,
        FailureKind::InvalidRequest => Reason::BadRequest,
        FailureKind::HeadTooLarge => Reason::UpstreamHeadersTooLarge,
        _ if untouched.is_some() => Reason::UpstreamRefused,
        FailureKind::Protocol => Reason::UpstreamProtocol,
        FailureKind::Reset(code) => Reason::of_reset(code),
        _ => Reason::UpstreamReset,
    };
    let untouched = untouched.filter(|_| reason == Reason::UpstreamRefused);
    let detail = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut rejection = Rejection::new(reason).with_detail(detail);
    if let Some(cause) = error.cause() {
        rejection = rejection.with_source(cause.clone());
    }
    AttemptError { rejection, untouched }
}
