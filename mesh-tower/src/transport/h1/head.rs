//! The head of a request as HTTP/1.1 has it.

use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Uri, Version};

use crate::body::Body;
use crate::lines;

/// What [`prepare`] changed, so that a request that is handed back is the one that was handed in.
pub(super) struct Original {
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
}

impl Original {
    pub(super) fn restore(self, request: &mut Request<Body>) {
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        match self.host {
            Some(host) => request.headers_mut().insert(HOST, host),
            None => request.headers_mut().remove(HOST),
        };
    }
}

/// Origin form, `Host`, version.
pub(super) fn prepare(request: &mut Request<Body>) -> Original {
    let original = Original {
        uri: request.uri().clone(),
        host: request.headers().get(HOST).cloned(),
        version: request.version(),
    };
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = original.uri.authority().and_then(host_value) {
        request.headers_mut().insert(HOST, host);
    }
    lines::join_cookies(request.headers_mut());
    if request.method() != Method::CONNECT {
        let path = original.uri.path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    original
}

/// The authority without user information.
fn host_value(authority: &Authority) -> Option<HeaderValue> {
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}
