//! Getting, listing and deleting objects.

use artifacts::ArtifactError;
use futures::TryStreamExt;

use crate::Bucket;

#[tokio::test]
async fn a_range_gives_just_that_part() {
    let bucket = Bucket::start().await;
    bucket
        .store
        .put_bytes("digits", b"0123456789")
        .await
        .unwrap();
    let body = bucket.store.get_range("digits", 3..7).await.unwrap();
    assert_eq!(body.size_bytes, 4);
    let chunks: Vec<_> = body.stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), b"3456");

    let tail = bucket.store.get_range("digits", 8..1_000).await.unwrap();
    assert_eq!(tail.size_bytes, 2);
    let beyond = bucket
        .store
        .get_range("digits", 10..11)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(beyond, ArtifactError::InvalidRange { .. }),
        "{beyond:?}"
    );
}

#[tokio::test]
async fn a_missing_object_is_named() {
    let bucket = Bucket::start().await;
    let error = bucket.store.get_bytes("not/there", 10).await.unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().contains("not/there"), "{error}");
    assert_eq!(bucket.store.head("not/there").await.unwrap(), None);
    bucket.store.delete("not/there").await.unwrap();
}

#[tokio::test]
async fn an_object_larger_than_asked_for_is_not_read() {
    let bucket = Bucket::start().await;
    bucket.store.put_bytes("five", b"12345").await.unwrap();
    let error = bucket.store.get_bytes("five", 4).await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::TooLarge { max_bytes: 4, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_damaged_download_does_not_appear() {
    let bucket = Bucket::start().await;
    let stored = bucket.store.put_bytes("weights", b"good").await.unwrap();
    std::fs::write(bucket.root.path().join("attune/weights"), "evil").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let error = bucket
        .store
        .get_file_verified("weights", &path, &stored.sha256)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Checksum { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_listing_goes_through_all_pages() {
    let bucket = Bucket::start().await;
    for n in 0..7 {
        bucket
            .store
            .put_bytes(&format!("p/{n}"), b"x")
            .await
            .unwrap();
    }
    bucket.store.put_bytes("q/0", b"other").await.unwrap();
    let first = bucket.store.list_page("p/", None, 3).await.unwrap();
    assert_eq!(first.len(), 3);
    let second = bucket
        .store
        .list_page("p/", Some(&first[2].key), 3)
        .await
        .unwrap();
    assert_eq!(second[0].key, "p/3");
    let all = bucket.store.list("p/").await.unwrap();
    assert_eq!(all.len(), 7);
    assert!(
        all.iter()
            .all(|object| object.size_bytes == 1 && object.modified_unix_secs > 0)
    );
}

#[tokio::test]
async fn deleting_a_prefix_spares_its_neighbours() {
    let bucket = Bucket::start().await;
    for key in ["a/1", "a/2/3", "ab/1", "b"] {
        bucket.store.put_bytes(key, b"x").await.unwrap();
    }
    assert_eq!(bucket.store.delete_prefix("a/").await.unwrap(), 2);
    assert_eq!(bucket.store.delete_prefix("a/").await.unwrap(), 0);
    let left: Vec<_> = bucket.store.list("").await.unwrap();
    assert_eq!(
        left.iter()
            .map(|object| object.key.as_str())
            .collect::<Vec<_>>(),
        ["ab/1", "b"]
    );
    for careless in ["", "/", "a"] {
        assert!(
            bucket.store.delete_prefix(careless).await.is_err(),
            "{careless:?}"
        );
    }
}
