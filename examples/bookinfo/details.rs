//! Details: what is printed in a book (JSON over HTTP).

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

use crate::Failure;
use crate::api::Details;
use crate::service::{self, Knobs};

/// Serves until the parent lets go.
pub(crate) async fn run() -> Result<(), Failure> {
    let service::Joined { mesh, tcp, knobs } = service::join().await?;
    let app = Router::new()
        .route("/details/{id}", get(details))
        .route("/capped/details/{id}", get(details))
        .with_state(knobs.clone());
    service::serve(&mesh, &knobs, mesh.serve(tcp, app)).await
}

async fn details(State(knobs): State<Arc<Knobs>>) -> Result<Json<Details>, StatusCode> {
    knobs.pass().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(Details {
        title: "The Comedy of Errors".to_owned(),
        author: "William Shakespeare".to_owned(),
        year: 1595,
        pages: 200,
    }))
}
