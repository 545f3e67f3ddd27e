//! Generates the clients and servers of the two gRPC services, from a description in Rust: no protoc is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let unary = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::api::{input}"))
            .output_type(format!("crate::api::{output}"))
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let service = |name: &str, method| Service::builder().name(name).package("demo").method(method).build();
    Builder::new().compile(&[
        service("Reviews", unary("reviews_of", "ReviewsOf", "Book", "ReviewList")),
        service("Ratings", unary("ratings_of", "RatingsOf", "Book", "RatingList")),
        service("Greeter", unary("say_hello", "SayHello", "HelloRequest", "HelloReply")),
    ]);
}
