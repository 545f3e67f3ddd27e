//! Ratings: how many stars each reviewer gave (gRPC).

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::Failure;
use crate::api::rpc::ratings_server::{Ratings, RatingsServer};
use crate::api::{Book, RatingList};
use crate::service::{self, Knobs};

struct Stars(Arc<Knobs>);

/// Serves until the parent lets go.
pub(crate) async fn run() -> Result<(), Failure> {
    let service::Joined { mesh, tcp, knobs } = service::join().await?;
    let app = tonic::service::Routes::new(RatingsServer::new(Stars(knobs.clone())));
    service::serve(&mesh, &knobs, mesh.serve(tcp, app)).await
}

#[tonic::async_trait]
impl Ratings for Stars {
    async fn ratings_of(&self, _: Request<Book>) -> Result<Response<RatingList>, Status> {
        self.0.pass().await.map_err(|_| Status::unavailable("flaky today"))?;
        Ok(Response::new(RatingList { stars: vec![5, 4] }))
    }
}
