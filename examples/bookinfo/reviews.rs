//! Reviews: what readers say (gRPC). v1 knows no stars; v2 and v3 ask ratings for them.

use std::sync::Arc;

use mesh_tower::MeshChannel;
use tonic::{Request, Response, Status};

use crate::Failure;
use crate::api::rpc::ratings_client::RatingsClient;
use crate::api::rpc::reviews_server::{Reviews, ReviewsServer};
use crate::api::{Book, Review, ReviewList};
use crate::service::{self, Knobs};

struct Readers {
    version: String,
    replica: String,
    ratings: Option<RatingsClient<MeshChannel>>,
    knobs: Arc<Knobs>,
}

/// Serves until the parent lets go.
pub(crate) async fn run(version: &str) -> Result<(), Failure> {
    let service::Joined { mesh, tcp, knobs } = service::join().await?;
    let ratings = match version {
        "v1" => None,
        _ => Some(RatingsClient::new(mesh.channel("xds:///ratings:9080")?)),
    };
    let replica = tcp.local_addr()?.to_string();
    let readers = Readers { version: version.to_owned(), replica, ratings, knobs: knobs.clone() };
    let app = tonic::service::Routes::new(ReviewsServer::new(readers));
    service::serve(&mesh, &knobs, mesh.serve(tcp, app)).await
}

#[tonic::async_trait]
impl Reviews for Readers {
    async fn reviews_of(&self, request: Request<Book>) -> Result<Response<ReviewList>, Status> {
        self.knobs.pass().await.map_err(|_| Status::unavailable("flaky today"))?;
        let stars = match self.ratings.clone() {
            Some(mut ratings) => ratings.ratings_of(request.into_inner()).await?.into_inner().stars,
            None => Vec::new(),
        };
        let said = [
            ("Reviewer1", "An extremely entertaining play. The slapstick humour is refreshing!"),
            ("Reviewer2", "Absolutely fun and entertaining. The play lacks thematic depth."),
        ];
        let reviews = said.iter().enumerate().map(|(n, (reviewer, text))| Review {
            reviewer: (*reviewer).to_owned(),
            text: (*text).to_owned(),
            stars: stars.get(n).copied().unwrap_or(0),
        });
        Ok(Response::new(ReviewList {
            reviews: reviews.collect(),
            version: self.version.clone(),
            replica: self.replica.clone(),
        }))
    }
}
