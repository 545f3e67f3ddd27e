//! What a layer is to the layer above it.

use std::future::Future;

/// A kind of request that travels between two layers.
pub(crate) trait Stage: 'static {
    /// The request, lent for one call.
    type Request<'c>: Send;
    /// What comes back; a response itself stays in the call, in the place that is lent for it.
    type Response: Send;
    /// Why nothing does.
    type Error: Send;
}

/// A layer: takes requests of one stage. Dropping the future cancels the call.
pub(crate) trait Service<K: Stage>: Send + Sync + 'static {
    /// Serves one request.
    fn call<'c>(
        &'c self,
        request: K::Request<'c>,
    ) -> impl Future<Output = Result<K::Response, K::Error>> + Send + 'c;
}
