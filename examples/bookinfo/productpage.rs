//! Productpage: the page (axum). It asks details and reviews at once, and fails if either fails.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{Request, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use mesh_tower::{Body, MeshChannel};
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use crate::api::rpc::reviews_client::ReviewsClient;
use crate::api::{Book, Details, ReviewList};
use crate::service;
use crate::{Failure, page};

#[derive(Clone)]
struct Backends {
    details: MeshChannel,
    reviews: ReviewsClient<MeshChannel>,
}

/// What the load of the tour reads of a page.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) title: String,
    pub(crate) version: String,
    pub(crate) replica: String,
    pub(crate) stars: u32,
}

#[derive(Deserialize)]
struct Form {
    format: Option<String>,
}

/// Serves until the parent lets go.
pub(crate) async fn run() -> Result<(), Failure> {
    let service::Joined { mesh, tcp, knobs } = service::join().await?;
    let backends = Backends {
        details: mesh.channel("xds:///details:9080")?,
        reviews: ReviewsClient::new(mesh.channel("xds:///reviews:9080")?),
    };
    let app = Router::new()
        .route("/", get(|| async { Redirect::temporary("/productpage/0") }))
        .route("/productpage/{id}", get(product))
        .with_state(Arc::new(backends));
    service::serve(&mesh, &knobs, mesh.serve(tcp, app)).await
}

async fn product(State(to): State<Arc<Backends>>, Path(id): Path<u64>, Query(form): Query<Form>) -> Response {
    // A degraded page would hide a lost request: every hop counts.
    match tokio::try_join!(details(&to, id), reviews(&to, id)) {
        Err(failure) => (StatusCode::BAD_GATEWAY, failure.to_string()).into_response(),
        Ok((details, reviews)) if form.format.as_deref() == Some("json") => {
            let stars = reviews.reviews.iter().map(|review| review.stars).sum();
            let ReviewList { version, replica, .. } = reviews;
            Json(Summary { title: details.title, version, replica, stars }).into_response()
        }
        Ok((details, reviews)) => Html(page::render(&details, &reviews)).into_response(),
    }
}

async fn details(to: &Backends, id: u64) -> Result<Details, Failure> {
    let request = Request::get(format!("/details/{id}")).body(Body::empty())?;
    let response = to.details.clone().oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(format!("details: {status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(serde_json::from_slice(&body)?)
}

async fn reviews(to: &Backends, id: u64) -> Result<ReviewList, Failure> {
    let answer = to.reviews.clone().reviews_of(Book { id }).await;
    Ok(answer.map_err(|status| format!("reviews: {status}"))?.into_inner())
}
