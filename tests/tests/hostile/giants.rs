//! Messages of a size, and of a depth, at which memory and stacks give out.

use bytes::{BufMut as _, Bytes, BytesMut};
use mesh_tests::wire::WireResponse;
use mesh_xds::{Kind, Protocol};

use crate::answer::{Expected, Sent};
use crate::docs::{Doc, encode};
use crate::lane::{Lane, any};
use crate::{Alone, BOTH, FULL, held};

const MIB: usize = 1 << 20;

/// How much of the heap is held for good after all of it.
const GROWTH: usize = 8 * MIB;

/// How much may be held for one message of 100 MiB: it is read into a buffer that grows by doubling, and decoded from it.
const PEAK: usize = 512 * MIB;

#[test]
fn messages_of_a_hundred_mebibytes_are_judged_or_cut_off_and_no_call_notices() {
    Alone::new().run(async {
        for protocol in BOTH {
            let (mut lane, mut stream) = Lane::start(protocol, 1).await;
            lane.more_calls(20).await;
            let before = held();
            let mut most = 0;
            // Many resources within the limits, one that is beyond that of a resource, and then too many for a response.
            let whole = if FULL { 100 } else { 40 };
            for (resources, mebibytes, refused) in
                [(4, whole / 4, None), (1, whole, Some("limit of 33554432"))]
            {
                let nonce = lane.nonce();
                let (length, message) = giant(protocol, &nonce, resources, mebibytes * MIB);
                assert!(stream.stream(length, message).await, "it is read to the end");
                let answer = lane.answer(&mut stream, &nonce).await;
                most = most.max(held());
                let said = answer.refusal.as_deref().unwrap_or("accepted");
                assert!(said.contains(refused.unwrap_or("accepted")), "{said}");
                lane.more_calls(20).await;
            }
            let (length, message) = giant(protocol, "never", 10, 20 * MIB);
            stream.stream(length, message).await;
            while stream.next().await.is_some() {}
            most = most.max(held());
            let mut stream = lane.control.open().await.expect("the client comes back");
            lane.settle(&mut stream).await;
            lane.repair(&mut stream).await;
            lane.more_calls(20).await;
            let now = held();
            eprintln!("{protocol:?}: {before} bytes became {now}, {most} at most");
            assert!(most <= before + PEAK, "{most} bytes at most, {before} before");
            assert!(now <= before + GROWTH, "{before} bytes became {now}");
            lane.assert_no_call_failed();
        }
    });
}

#[test]
fn what_is_nested_without_end_is_refused_and_no_call_notices() {
    Alone::new().run(async {
        for protocol in BOTH {
            let (mut lane, mut stream) = Lane::start(protocol, 1).await;
            for depth in [30, 99, 101, 1_000, 20_000] {
                let sent = [nested(depth), parenthesised(depth)];
                for one in sent {
                    let kind = Kind::from_type_url(&one.any.type_url).expect("a type of the mesh");
                    let sent = [one];
                    let expected = Expected::of(kind, protocol, &sent);
                    let resources = sent.iter().map(|one| (one.outer.clone(), one.any.clone())).collect();
                    let nonce = lane.send(&mut stream, kind, resources, Vec::new());
                    let answer = lane.answer(&mut stream, &nonce).await;
                    expected.check(&answer).unwrap_or_else(|why| panic!("{depth}: {why}: {answer:?}"));
                    assert!(depth <= 101 || expected.refused() == 1, "{depth} levels are too many");
                }
            }
            lane.repair(&mut stream).await;
            lane.assert_no_call_failed();
        }
    });
}

/// The length and the parts of a response with so many clusters of so many bytes each. The bytes are one chunk, again
/// and again, so that the server itself holds none of it.
fn giant(protocol: Protocol, nonce: &str, resources: usize, size: usize) -> (usize, Vec<Bytes>) {
    let head = WireResponse {
        type_url: Kind::Cluster.type_url().to_owned(),
        version: "big".to_owned(),
        nonce: nonce.to_owned(),
        ..WireResponse::default()
    };
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let mut parts = vec![Bytes::from(head.encoded(protocol))];
    for i in 0..resources {
        let mut cluster = BytesMut::from(&*Doc::cluster(&format!("giant-{i}"), false, 5).bytes());
        // `alt_stat_name`, which is a text that means nothing to us
        key(&mut cluster, 28, size);
        let mut any = BytesMut::new();
        field(&mut any, 1, Kind::Cluster.type_url().as_bytes());
        key(&mut any, 2, cluster.len() + size);
        any.extend_from_slice(&cluster);
        let mut before = BytesMut::new();
        match protocol {
            Protocol::StateOfTheWorld => key(&mut before, 2, any.len() + size),
            Protocol::Incremental => {
                let mut wrapper = BytesMut::new();
                field(&mut wrapper, 3, format!("giant-{i}").as_bytes());
                key(&mut wrapper, 2, any.len() + size);
                key(&mut before, 2, wrapper.len() + any.len() + size);
                before.extend_from_slice(&wrapper);
            }
        }
        before.extend_from_slice(&any);
        parts.push(before.freeze());
        parts.extend((0..size / chunk.len()).map(|_| chunk.clone()));
    }
    (parts.iter().map(Bytes::len).sum(), parts)
}

/// A cluster whose metadata is a list in a list, so many times.
fn nested(depth: usize) -> Sent {
    // Value { list_value: ListValue { values: [..] } }, from the innermost
    let mut value = Vec::new();
    for _ in 0..depth {
        for number in [1, 6] {
            let mut outer = BytesMut::new();
            field(&mut outer, number, &value);
            value = outer.to_vec();
        }
    }
    let entry = |inner: &[u8]| {
        let mut entry = BytesMut::new();
        field(&mut entry, 1, b"k");
        field(&mut entry, 2, inner);
        let mut map = BytesMut::new();
        field(&mut map, 1, &entry);
        map
    };
    let mut cluster = BytesMut::from(&*Doc::cluster("deep", false, 5).bytes());
    field(&mut cluster, 25, &entry(&entry(&value)));
    Sent { outer: "deep".to_owned(), any: any(Kind::Cluster, cluster.to_vec()), broken: Vec::new() }
}

/// Routes with a regular expression of so many parentheses.
fn parenthesised(depth: usize) -> Sent {
    let regex = format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    let json = serde_json::json!({"name": "deep", "virtual_hosts": [{"name": "v", "domains": ["a"], "routes": [
        {"match": {"safe_regex": {"regex": regex}}, "route": {"cluster": "c"}},
    ]}]});
    let bytes = encode(Kind::Route, &json).expect("routes");
    Sent { outer: "deep".to_owned(), any: any(Kind::Route, bytes), broken: Vec::new() }
}

fn field(out: &mut BytesMut, number: u64, bytes: &[u8]) {
    key(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Key and length of a field of bytes.
fn key(out: &mut BytesMut, number: u64, length: usize) {
    varint(out, number << 3 | 2);
    varint(out, length as u64);
}

fn varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}
