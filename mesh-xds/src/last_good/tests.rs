//! Whatever happens to the file, it is used whole or not at all, and never lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::keeper::Keeper;
use super::*;
use crate::ads::Kind;
use crate::resource::{Rules, decode};
use crate::resource_json::{Format, parse};

fn owner() -> Owner {
    Owner { node: "node-1".to_owned(), servers: vec!["xds:1".to_owned()] }
}

fn resource(kind: Kind, yaml: &str) -> Bytes {
    let text = format!("\"@type\": {}\n{yaml}", kind.type_url());
    parse(&text, Format::Yaml).unwrap().remove(0).value.into()
}

fn cluster(name: &str) -> Bytes {
    resource(
        Kind::Cluster,
        &format!("name: {name}\ntype: EDS\neds_cluster_config: {{eds_config: {{ads: {{}}}}}}"),
    )
}

fn entry(name: &str, used_at: u64) -> Entry {
    Entry { kind: Kind::Cluster, name: name.into(), bytes: cluster(name), used_at }
}

fn file() -> LastGoodFile {
    LastGoodFile { owner: owner(), entries: vec![entry("a", 1), entry("b", 2)] }
}

fn read(bytes: Vec<u8>) -> Result<LastGoodFile, LastGoodError> {
    LastGoodFile::decode(&bytes.into())?.owned_by(&owner())
}

/// A directory with a file in it.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("last-good")
    }

    fn restore(&self) -> (LastGood, Keeper) {
        restore(self.path(), owner(), &Rules::default())
    }

    fn names(&self) -> BTreeSet<String> {
        let name = |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
        fs::read_dir(self.directory.path()).unwrap().map(name).collect()
    }

    /// What is in the file, by name.
    fn holds(&self) -> Vec<String> {
        let file = read(fs::read(self.path()).unwrap()).unwrap();
        file.entries.iter().map(|entry| entry.name.to_string()).collect()
    }
}

fn put(last_good: &mut LastGood, name: &str) {
    let bytes = cluster(name);
    let accepted =
        decode(Kind::Cluster, Kind::Cluster.type_url(), &bytes, &Rules::default()).verdict.unwrap();
    last_good.put(Kind::Cluster, &name.into(), &Accepted { bytes: Some(bytes.into()), ..accepted });
}

/// Waits (in paused time) until the file is another one than before.
async fn written(path: &Path, before: &[u8]) {
    while fs::read(path).is_ok_and(|now| now == before) || !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(read(file().encode()).unwrap(), file());
}

#[test]
fn a_file_that_was_cut_anywhere_is_refused() {
    let whole = file().encode();
    for end in 0..whole.len() {
        assert!(read(whole.get(..end).unwrap().to_vec()).is_err(), "cut at {end}");
    }
}

#[test]
fn a_file_with_any_bit_turned_is_refused() {
    let whole = file().encode();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            if let Some(byte) = damaged.get_mut(at) {
                *byte ^= 1 << bit;
            }
            assert!(read(damaged).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_to_do() {
    let cases: [(Vec<u8>, &str); 6] = [
        (b"resources: []\n".to_vec(), "is not a file of last good configuration; name another file"),
        (b"{\"format\": \"mesh-last-good/9\"}\n".to_vec(), "has the format \"mesh-last-good/9\""),
        ([file().encode(), vec![0]].concat(), "it was cut or appended to"),
        (
            LastGoodFile { owner: Owner { node: "node-2".to_owned(), ..owner() }, ..file() }.encode(),
            "belongs to node \"node-2\" of [\"xds:1\"], and this is node \"node-1\"",
        ),
        (
            LastGoodFile { entries: vec![entry("a", 1), entry("a", 1)], ..file() }.encode(),
            "holds cluster \"a\" twice",
        ),
        (
            {
                let mut damaged = file().encode();
                *damaged.last_mut().unwrap() ^= 1;
                damaged
            },
            "its checksum is not the one that was written",
        ),
    ];
    for (bytes, expected) in cases {
        let text = read(bytes).unwrap_err().to_string();
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(bytes.clone());
        let mut behind_a_header = file().encode();
        behind_a_header.extend(bytes);
        prop_assert!(read(behind_a_header.clone()).is_err() || behind_a_header == file().encode());
    }
}

#[test]
fn a_resource_that_is_not_valid_here_refuses_the_whole_file_and_moves_it_aside() {
    let disk = Disk::new();
    let bad = Entry { bytes: Bytes::from_static(&[0xff]), ..entry("bad", 1) };
    let bytes = LastGoodFile { entries: vec![entry("a", 1), bad], ..file() }.encode();
    fs::write(disk.path(), &bytes).unwrap();
    let (restored, _keeper) = disk.restore();
    assert_eq!(restored.restore(Kind::Cluster, &"a".into()), None, "nothing of it is used");
    assert_eq!(disk.names(), BTreeSet::from(["last-good.refused".to_owned()]));
    assert_eq!(fs::read(disk.directory.path().join("last-good.refused")).unwrap(), bytes);
}

#[test]
fn a_valid_file_is_restored_and_what_a_crash_left_beside_it_is_not_looked_at() {
    let disk = Disk::new();
    fs::write(disk.path(), file().encode()).unwrap();
    fs::write(disk.directory.path().join("last-good.new"), b"half of a fi").unwrap();
    let (restored, _keeper) = disk.restore();
    let accepted = restored.restore(Kind::Cluster, &"b".into()).unwrap();
    assert_eq!(accepted.bytes.as_deref(), Some(&cluster("b")));
    assert_eq!(restored.restore(Kind::Endpoints, &"b".into()), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_reaches_the_disk_and_what_is_not_stays_for_a_week() {
    let disk = Disk::new();
    let (mut last_good, keeper) = disk.restore();
    put(&mut last_good, "a");
    put(&mut last_good, "b");
    #[expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]
    let task = tokio::spawn(keeper.run());
    written(&disk.path(), b"").await;
    assert_eq!(disk.holds(), ["a", "b"]);
    let before = fs::read(disk.path()).unwrap();
    last_good.forget(Kind::Cluster, &"a".into());
    put(&mut last_good, "c");
    written(&disk.path(), &before).await;
    assert_eq!(disk.holds(), ["b", "c", "a"], "what came out of use comes last");
    task.abort();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(disk.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_written_is_tried_again() {
    let disk = Disk::new();
    let missing = disk.directory.path().join("not-there-yet");
    let (mut last_good, keeper) = restore(missing.join("last-good"), owner(), &Rules::default());
    put(&mut last_good, "a");
    #[expect(clippy::disallowed_methods, reason = "a test owns the tasks of its runtime")]
    let task = tokio::spawn(keeper.run());
    tokio::time::sleep(Duration::from_secs(5)).await;
    fs::create_dir(&missing).unwrap();
    written(&missing.join("last-good"), b"").await;
    task.abort();
}

#[test]
fn a_resource_that_no_run_uses_leaves_after_a_week_and_too_many_leave_by_age() {
    let week = KEPT_UNUSED.as_secs();
    let names = |record: &Record, now| -> Vec<String> {
        record.put(Kind::Cluster, &format!("used-{now}").into(), &cluster("used"));
        let file = record.take(now).unwrap();
        file.entries.iter().map(|e| e.name.to_string()).filter(|name| !name.starts_with("used")).collect()
    };
    let record = Record::new(owner(), vec![entry("a", 10), entry("b", 20)]);
    assert_eq!(names(&record, week + 10), ["a", "b"]);
    assert_eq!(names(&record, week + 11), ["b"]);
    let many = (0..5_000).map(|n| Entry { name: format!("n{n:04}").into(), ..entry("a", n) }).collect();
    let kept = names(&Record::new(owner(), many), 5_000);
    assert_eq!((kept.len(), kept.first().map(String::as_str)), (4_096, Some("n0904")));
}

#[test]
fn the_same_value_again_is_not_written_again() {
    let record = Record::new(owner(), Vec::new());
    record.put(Kind::Cluster, &"a".into(), &cluster("a"));
    assert!(record.take(1).is_some());
    record.put(Kind::Cluster, &"a".into(), &cluster("a"));
    assert!(record.take(1).is_none());
}
