//! Putting objects.

use std::convert::Infallible;
use std::io;

use artifacts::{ArtifactError, PART_BYTES};
use bytes::Bytes;
use futures::stream;

use crate::Bucket;

const MIB: usize = 1 << 20;

/// SHA-256 of twenty times 1 MiB, the n-th filled with the byte n, computed by Python's hashlib.
const SHA256_OF_20_MIB: &str = "5776cdc189449389e4eb74f5e5deb8d9c31981142a4887fe355df98d2eb63bde";

fn mebibytes(n: u8) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter((0..n).map(|fill| Ok(Bytes::from(vec![fill; MIB]))))
}

#[tokio::test]
async fn a_long_stream_arrives_whole_in_parts() {
    let bucket = Bucket::start().await;
    let stored = bucket
        .store
        .put_stream("a/long", mebibytes(20), u64::MAX)
        .await
        .unwrap();
    assert_eq!(stored.size_bytes, 20 << 20);
    assert_eq!(stored.sha256, SHA256_OF_20_MIB);
    assert!(
        stored.size_bytes > 2 * PART_BYTES as u64,
        "the test must need three parts"
    );

    let path = bucket.root.path().join("downloaded");
    let fetched = bucket
        .store
        .get_file_verified("a/long", &path, SHA256_OF_20_MIB)
        .await
        .unwrap();
    assert_eq!(fetched, stored);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 20 << 20);
    assert!(bucket.leftovers().is_empty(), "{:?}", bucket.leftovers());
}

#[tokio::test]
async fn memory_does_not_grow_with_the_object() {
    let bucket = Bucket::start().await;
    // The first upload settles pools and buffers; what the second, ten times as long, adds to the
    // process's peak is then its own need. Both ends run in this process.
    bucket
        .store
        .put_stream("short", mebibytes(20), u64::MAX)
        .await
        .unwrap();
    let before = peak_rss_bytes();
    bucket
        .store
        .put_stream("long", mebibytes(200), u64::MAX)
        .await
        .unwrap();
    let grown = peak_rss_bytes() - before;
    assert!(
        grown < 40 << 20,
        "200 MiB took {} MiB more than 20 MiB",
        grown >> 20
    );
}

fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[tokio::test]
async fn a_stream_beyond_the_limit_is_given_up() {
    let bucket = Bucket::start().await;
    let limit = 18 << 20;
    let error = bucket
        .store
        .put_stream("too/long", mebibytes(20), limit)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::TooLarge { max_bytes, .. } if max_bytes == limit));
    assert_eq!(bucket.store.head("too/long").await.unwrap(), None);
    until_no_leftovers(&bucket).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_stores_nothing() {
    let bucket = Bucket::start().await;
    let broken = stream::iter((0..20).map(|n| match n {
        19 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        _ => Ok(Bytes::from(vec![0; MIB])),
    }));
    let error = bucket
        .store
        .put_stream("broken", broken, u64::MAX)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Source { .. }), "{error}");
    assert_eq!(bucket.store.head("broken").await.unwrap(), None);
    until_no_leftovers(&bucket).await;
}

/// The abort runs behind the caller's back. Waiting on its effect is the only way to see it.
async fn until_no_leftovers(bucket: &Bucket) {
    for _ in 0..200 {
        if bucket.leftovers().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the upload was not aborted: {:?}", bucket.leftovers());
}

#[tokio::test]
async fn a_replaced_object_reads_as_the_new_one() {
    let bucket = Bucket::start().await;
    let store = &bucket.store;
    store.put_bytes("key", b"first").await.unwrap();
    store
        .put_stream("key", mebibytes(9), u64::MAX)
        .await
        .unwrap();
    store.put_bytes("key", b"third").await.unwrap();
    assert_eq!(store.get_bytes("key", 100).await.unwrap(), "third");
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let bucket = Bucket::start().await;
    let stored = bucket
        .store
        .put_stream("empty", mebibytes(0), 0)
        .await
        .unwrap();
    assert_eq!(stored.size_bytes, 0);
    assert_eq!(bucket.store.head("empty").await.unwrap(), Some(0));
    assert_eq!(bucket.store.get_bytes("empty", 0).await.unwrap(), "");
}

#[tokio::test]
async fn a_file_is_stored_with_its_checksum() {
    let bucket = Bucket::start().await;
    let path = bucket.root.path().join("local");
    std::fs::write(&path, "attune").unwrap();
    let from_file = bucket.store.put_file("file", &path).await.unwrap();
    let from_bytes = bucket.store.put_bytes("bytes", b"attune").await.unwrap();
    assert_eq!(from_file, from_bytes);
    let missing = bucket
        .store
        .put_file("file", &path.with_extension("gone"))
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("local.gone"), "{missing}");
}
