//! Generates the clients and servers of the gRPC services, from a description in Rust: no protoc is needed. And takes the
//! Rust code out of the README, for the test that runs it.

use std::path::Path;
use std::{env, fs, io};

use tonic_build::manual::{Builder, Method, Service};

fn main() -> io::Result<()> {
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
    code_of_readme()
}

/// Each block as `readme_N.rs`: the body of a function that returns a `Result`.
fn code_of_readme() -> io::Result<()> {
    let variable = |name| env::var_os(name).ok_or_else(|| io::Error::other(format!("cargo sets {name}")));
    let readme = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../README.md");
    println!("cargo::rerun-if-changed={}", readme.display());
    let text = fs::read_to_string(readme)?;
    let blocks: Vec<_> =
        text.split("```rust\n").skip(1).filter_map(|rest| rest.split_once("\n```")).collect();
    for (n, (code, _)) in blocks.iter().enumerate() {
        let path = Path::new(&variable("OUT_DIR")?).join(format!("readme_{n}.rs"));
        fs::write(path, format!("{{\n{code}\nOk(())\n}}\n"))?;
    }
    println!("cargo::rustc-env=README_BLOCKS={}", blocks.len());
    Ok(())
}
