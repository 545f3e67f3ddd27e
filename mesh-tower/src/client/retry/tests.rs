//! The body of a call across attempts: whole where it can be, bounded always.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};

use super::replay::Replay;
use crate::body::Body;

fn stream(pieces: Vec<Bytes>, ends: bool) -> Body {
    let pieces = futures_util::stream::iter(pieces.into_iter().map(|p| Ok::<_, Infallible>(Frame::data(p))));
    if ends {
        Body::new(StreamBody::new(pieces))
    } else {
        Body::new(StreamBody::new(pieces.chain(futures_util::stream::pending())))
    }
}

async fn replay(body: Body) -> Replay {
    let mut replay = Replay::new(body, false);
    std::future::poll_fn(|cx| replay.poll_whole(cx)).await;
    replay
}

async fn text(body: Body) -> Bytes {
    body.collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_body_of_one_ready_piece_is_repeated_without_sharing() {
    for body in [Body::full("hello"), stream(vec!["hello".into()], true)] {
        let mut replay = replay(body).await;
        assert_eq!(replay.known_bytes(), 5);
        for _ in 0..3 {
            let body = replay.next().unwrap();
            assert_eq!(format!("{body:?}"), r#"Body("full")"#);
            assert_eq!(text(body).await, "hello");
        }
        replay.commit();
        assert!(!replay.can_repeat() && replay.next().is_none());
    }
    assert!(replay(Body::empty()).await.next().unwrap().is_end_stream());
}

#[tokio::test]
async fn a_body_of_several_pieces_is_repeated_from_its_start() {
    let mut replay = replay(stream(vec!["a".into(), "b".into(), "c".into()], true)).await;
    let mut first = replay.next().unwrap();
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert!(replay.can_repeat());
    let second = replay.next().unwrap();
    assert_eq!(text(second).await, "abc");
    assert!(first.frame().await.unwrap().is_err(), "an attempt that was replaced reads nothing more");
    assert_eq!(replay.streamed_bytes().unwrap().load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_body_over_the_bound_goes_through_once_and_is_committed() {
    let piece = Bytes::from(vec![7; 40_000]);
    let mut replay = replay(stream(vec![piece.clone(), piece.clone(), piece.clone()], true)).await;
    let body = replay.next().unwrap();
    assert!(replay.can_repeat(), "nothing was read yet");
    assert_eq!(text(body).await.len(), 120_000);
    assert!(!replay.can_repeat() && replay.next().is_none());
    let large = Bytes::from(vec![7; 100_000]);
    let mut replay = self::replay(stream(vec![large.clone()], false)).await;
    let mut body = replay.next().unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), large);
    assert!(!replay.can_repeat());
}

#[tokio::test]
async fn after_the_commit_nothing_is_kept_however_long_the_stream() {
    let alive = Arc::new(());
    struct Piece(Vec<u8>, #[expect(dead_code, reason = "counts")] Arc<()>);
    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let token = alive.clone();
    let pieces = futures_util::stream::iter((0..3_200).map(move |_| {
        let piece = Bytes::from_owner(Piece(vec![0; 64 * 1024], token.clone()));
        Ok::<_, Infallible>(Frame::data(piece))
    }));
    let mut replay = replay(Body::new(StreamBody::new(pieces))).await;
    let mut body = replay.next().unwrap();
    let (mut most, mut bytes) = (0, 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
        most = most.max(Arc::strong_count(&alive) - 2);
    }
    assert_eq!(bytes, 200 * 1024 * 1024);
    assert!(most <= 3, "{most} pieces of 64 KiB were alive at once");
}
