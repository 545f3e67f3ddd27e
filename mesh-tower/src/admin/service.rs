//! The pages of the admin endpoint.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use mesh_core::status::{ResourceStatus, UnappliedFields};
use mesh_core::telemetry::names;

use crate::body::Body;
use crate::mesh::Mesh;
use crate::telemetry::Metrics;

/// The pages, as hyper's service of one connection.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    mesh: Mesh,
    metrics: Option<Arc<Metrics>>,
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn new(mesh: Mesh, metrics: Option<Arc<Metrics>>) -> Self {
        Self { mesh, metrics }
    }

    async fn answer(self, method: Method, path: String) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        match (path.as_str(), &self.metrics) {
            ("/ready", _) => self.ready().await,
            ("/metrics", Some(metrics)) => prometheus(metrics.render() + &self.gauges()),
            ("/metrics", None) => text(StatusCode::NOT_FOUND, "this mesh has no metrics"),
            ("/unapplied", _) => text(StatusCode::OK, self.unapplied()),
            ("/refused", _) => text(StatusCode::OK, self.refused()),
            ("/", _) => text(StatusCode::OK, "/metrics\n/ready\n/refused\n/unapplied\n"),
            _ => {
                let what = "no such page; there are /metrics, /ready, /refused and /unapplied";
                text(StatusCode::NOT_FOUND, what)
            }
        }
    }

    /// What is counted of the mesh itself rather than of its requests.
    fn gauges(&self) -> String {
        let resources = self.mesh.status();
        let count =
            |is: fn(&ResourceStatus) -> bool| resources.iter().filter(|resource| is(resource)).count();
        let unapplied = resources.iter().map(|resource| resource.unapplied_total).sum();
        let refused = count(|resource| resource.refused.is_some());
        let restored = count(ResourceStatus::is_restored);
        let gauges = [
            (names::CONFIG_UNAPPLIED_FIELDS, names::CONFIG_UNAPPLIED_FIELDS_HELP, unapplied),
            (names::CONFIG_REFUSED_RESOURCES, names::CONFIG_REFUSED_RESOURCES_HELP, refused),
            (names::CONFIG_RESTORED_RESOURCES, names::CONFIG_RESTORED_RESOURCES_HELP, restored),
        ];
        let text =
            |(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        gauges.map(text).concat() + &self.refused_connections()
    }

    fn refused_connections(&self) -> String {
        let (name, help) = (names::CONNECTIONS_REFUSED, names::CONNECTIONS_REFUSED_HELP);
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} counter\n");
        for (reason, count) in self.mesh.refused_connections() {
            text.push_str(&format!("{name}{{reason=\"{reason}\"}} {count}\n"));
        }
        text
    }

    fn refused(&self) -> String {
        self.mesh.refused().iter().map(|refused| format!("{refused}\n")).collect()
    }

    fn unapplied(&self) -> String {
        let mut lines = String::new();
        for UnappliedFields { kind, name, fields, total } in self.mesh.unapplied() {
            for field in &fields {
                lines.push_str(&format!("{kind} {name:?}: {field}\n"));
            }
            if total > fields.len() {
                lines.push_str(&format!("{kind} {name:?}: {} more\n", total - fields.len()));
            }
        }
        lines
    }

    /// What is missing, and what is refused meanwhile.
    fn not_ready(&self, what: &str) -> Response<Body> {
        text(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n{}", self.refused()).trim_end().to_owned())
    }

    async fn ready(&self) -> Response<Body> {
        if let Some(what) = self.mesh.leaving() {
            return text(StatusCode::SERVICE_UNAVAILABLE, what);
        }
        let waiting = self.mesh.listeners_not_ready();
        if waiting > 0 {
            let what = format!("{waiting} listener(s) without a valid configuration");
            return self.not_ready(&what);
        }
        match self.mesh.ready(Duration::ZERO).await {
            Ok(readiness) => text(StatusCode::OK, readiness.to_string()),
            Err(error) => self.not_ready(&error.to_string()),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Endpoints {
    type Response = Response<Body>;
    type Error = Infallible;
    // Boxed: an operator's request every few seconds is no hot path.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let pages = self.clone();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Box::pin(async move { Ok(pages.answer(method, path).await) })
    }
}

fn text(status: StatusCode, what: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::full(what.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn prometheus(what: String) -> Response<Body> {
    let mut response = Response::new(Body::full(what));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
