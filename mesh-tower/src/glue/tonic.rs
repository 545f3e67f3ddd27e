//! tonic's own server over our listener: `serve_with_incoming(mesh.listen(tcp))`.

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Code, Status};
use tower_service::Service;

use crate::body::Body;
use crate::error::Error;
use crate::server::{Peer, ServerRuntime};
use crate::transport::listen::{ListeningSocket, MeshIo};
use crate::transport::serve::serve_app;

/// The largest window of RFC 9113.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Bytes that one request may have in flight unread, so that tonic's 200 streams of a connection hold 50 MiB at most.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The router within tonic's `Routes`. What [`Routes`] adds to it is one more box around each response body.
#[derive(Debug, Clone)]
struct InnerRouter<R>(R);

/// Returns tonic's server with HTTP/2 settings under which the streams of one connection do not harm each other.
///
/// By its own settings a handler that does not read stops every other stream of its connection, and some cancelled calls
/// end it. What tonic has no setting for stays: empty DATA frames are counted over the life of a connection, and cancelled
/// calls are not bounded by a rate. [`Mesh::serve`](crate::Mesh::serve) has neither limit.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .initial_connection_window_size(LARGEST_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_concurrent_streams(200)
        .http2_max_pending_accept_reset_streams(Some(4_096))
        .http2_max_local_error_reset_streams(Some(usize::MAX))
}

/// tonic's `Routes`, if an application is just that.
pub(crate) fn routes<S: 'static>(app: S) -> Result<Routes, S> {
    let mut app = Some(app);
    let any: &mut dyn Any = &mut app;
    match any.downcast_mut::<Option<Routes>>().and_then(Option::take) {
        Some(routes) => Ok(routes),
        None => Err(app.expect("it was not taken, because it is of another type")),
    }
}

/// Whether an application is one of tonic alone.
pub(super) fn is_routes<S: 'static>() -> bool {
    // axum's router, which has no name here without the feature of that name.
    fn inner<R: 'static>(_: fn(Routes) -> R) -> TypeId {
        TypeId::of::<InnerRouter<R>>()
    }
    TypeId::of::<S>() == inner(Routes::into_axum_router)
}

/// Serves tonic's `Routes` without the box that they put around each response body, which pays for the address of the
/// caller in the extensions of each request.
pub(crate) async fn serve_routes(server: Arc<ServerRuntime>, socket: ListeningSocket, routes: Routes) {
    serve_app(server, socket, InnerRouter(routes.prepare().into_axum_router())).await;
}

// === impl InnerRouter ===

impl<R: Service<Request<Body>>> Service<Request<Body>> for InnerRouter<R> {
    type Response = R::Response;
    type Error = R::Error;
    type Future = R::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> R::Future {
        self.0.call(request)
    }
}

/// The status that the error has on the wire, with a short text; the error itself is its source.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = status_of(&error);
        status.set_source(Arc::new(error));
        status
    }
}

/// The same error, with its status first among its sources, where tonic's client looks for one.
pub(crate) fn with_status(error: Error) -> Error {
    let mut status = status_of(&error);
    if let Some(cause) = error.cause() {
        status.set_source(cause);
    }
    error.with_status(Arc::new(status))
}

fn status_of(error: &Error) -> Status {
    Status::new(Code::from_i32(error.grpc_code().get().into()), error.public_text())
}

impl Connected for MeshIo {
    /// In the extensions of each request, where the server layer and handlers find it.
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use mesh_core::error::{Reason, Rejection};

    use super::*;

    #[test]
    fn an_error_is_the_status_that_it_has_on_the_wire_and_no_more() {
        for (reason, code, message) in [
            (Reason::ConnectFailed, Code::Unavailable, "UF: no connection to the upstream"),
            (Reason::DeadlineExceeded, Code::DeadlineExceeded, "UT: deadline exceeded"),
            (Reason::Denied, Code::PermissionDenied, "UAEX: denied by policy"),
            (Reason::Cancelled, Code::Cancelled, "DC: the caller went away"),
            (Reason::BadRequest, Code::Internal, "malformed request"),
        ] {
            let error = Error::from(Rejection::new(reason).with_detail("10.0.0.1:80"));
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, message), "{reason:?}");
            let source = status.source().and_then(|source| source.downcast_ref::<Error>());
            assert!(source.is_some_and(|error| error.to_string().ends_with(": 10.0.0.1:80")));
        }
    }

    #[test]
    fn what_tonic_finds_in_an_error_does_not_hide_the_cause() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let rejection = Rejection::new(Reason::ConnectFailed).with_source(Arc::new(refused));
        let status = Status::from_error(Box::new(with_status(Error::from(rejection))));
        assert_eq!(status.code(), Code::Unavailable);
        let (mut next, mut last) = (status.source(), None);
        while let Some(error) = next {
            (last, next) = (Some(error), error.source());
        }
        let last = last.and_then(|error| error.downcast_ref()).map(io::Error::kind);
        assert_eq!(last, Some(io::ErrorKind::ConnectionRefused));
    }
}
