//! Shutdown: say it, wait, force.

#![expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::Notify;

use super::*;
use crate::drain::Drained;

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_streaming_call_finishes_while_its_connection_says_goodbye() {
    let gate = Arc::new(Notify::new());
    let (world, address, running) = open_to_all(gated(&gate)).await;
    let mut client = http2(address).await;
    let mut response = client.send_request(get("/stream")).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first,");

    let drain = world.server.drain.clone();
    let shutdown = tokio::task::spawn(async move { drain.shutdown(LONG).await });
    // GOAWAY: the client's connection takes no further request, and the socket accepts nobody.
    soon("GOAWAY", async {
        while client.send_request(get("/hello")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(!shutdown.is_finished() && world.server.requests.used() == 1);

    gate.notify_one();
    assert_eq!(text(response).await, "second");
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
    assert_eq!((world.server.requests.used(), world.server.connections.used()), (0, 0));
    assert!(world.events.wait_for(1).await.iter().all(|e| e.flags == "-"));
}

#[tokio::test]
async fn at_the_limit_calls_are_cut_off_and_nothing_is_left() {
    let gate = Arc::new(Notify::new());
    let (world, address, running) = open_to_all(gated(&gate)).await;
    let mut client = http2(address).await;
    let mut response = client.send_request(get("/stream")).await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    let drained = soon("the shutdown", world.server.drain.shutdown(Duration::from_millis(50))).await;
    assert_eq!(drained, Drained::Forced);
    running.ended().await;
    assert!(response.body_mut().frame().await.unwrap().is_err());
    assert_eq!(world.events.wait_for(1).await[0].flags, "DC");
    assert_eq!((world.server.requests.used(), world.server.connections.used()), (0, 0));
}

#[tokio::test]
async fn idle_http2_connections_end_at_once() {
    let (world, address, running) = open_to_all(hello()).await;
    let (mut one, mut two) = (http2(address).await, http2(address).await);
    assert!(one.send_request(get("/hello")).await.is_ok() && two.send_request(get("/hello")).await.is_ok());
    assert_eq!(soon("the shutdown", world.server.drain.shutdown(LONG)).await, Drained::Complete);
    running.ended().await;
}

#[tokio::test]
async fn an_http1_call_finishes_and_its_connection_is_closed() {
    let gate = Arc::new(Notify::new());
    let (world, address, running) = open_to_all(gated(&gate)).await;
    let mut client = http1(address).await;
    let call = tokio::task::spawn(async move { client.send_request(get("/wait")).await });
    soon("the request's arrival", async {
        while world.server.requests.used() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let drain = world.server.drain.clone();
    let shutdown = tokio::task::spawn(async move { drain.shutdown(LONG).await });
    soon("draining", world.server.drain.draining()).await;
    gate.notify_one();
    let response = soon("the answer", call).await.unwrap().unwrap();
    assert_eq!(text(response).await, "waited");
    assert_eq!(soon("the shutdown", shutdown).await.unwrap(), Drained::Complete);
    running.ended().await;
}

#[tokio::test]
async fn dropping_the_server_cuts_its_connections_off() {
    let gate = Arc::new(Notify::new());
    let (world, address, running) = open_to_all(gated(&gate)).await;
    let mut client = http2(address).await;
    let mut response = client.send_request(get("/stream")).await.unwrap();
    assert!(response.body_mut().frame().await.unwrap().is_ok());
    drop(running);
    assert!(soon("the end of the stream", response.body_mut().frame()).await.unwrap().is_err());
    world.events.wait_for(1).await;
    soon("the release of everything", async {
        while world.server.requests.used() + world.server.connections.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
