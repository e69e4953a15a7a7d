//! A bucket of a project's own: below a prefix, for one project's keys, with errors that say whose it is.

use artifacts::{ArtifactError, ObjectStore, S3Config, keys};
use bytes::Bytes;
use domain::{FileId, ProjectId};
use futures::TryStreamExt;

use crate::Bucket;

/// The bucket below `ours/`, as the project's own.
fn own(bucket: &Bucket, project: ProjectId) -> ObjectStore {
    let config = S3Config {
        prefix: "ours/".to_owned(),
        ..bucket.server.config("attune")
    };
    let store = ObjectStore::connect(&config);
    store.within(keys::project_prefix(project)).as_own()
}

#[tokio::test]
async fn everything_is_below_the_prefix_and_nobody_sees_it() {
    let bucket = Bucket::start().await;
    let project = ProjectId::new();
    let own = own(&bucket, project);
    let (small, large) = (
        keys::file(project, FileId::new()),
        keys::file(project, FileId::new()),
    );
    own.put_bytes(&small, b"0123456789").await.unwrap();
    // In parts.
    let chunk = Bytes::from(vec![7; 9 << 20]);
    let chunks = [Ok::<_, std::convert::Infallible>(chunk.clone()), Ok(chunk)];
    let stored = own.put_stream(&large, futures::stream::iter(chunks), u64::MAX);
    assert_eq!(stored.await.unwrap().size_bytes, 18 << 20);

    assert_eq!(own.head(&large).await.unwrap(), Some(18 << 20));
    let part = own.get_range(&small, 2..5).await.unwrap().stream;
    let part: Vec<Bytes> = part.try_collect().await.unwrap();
    assert_eq!(part.concat(), b"234");
    let mut expected = vec![small.clone(), large.clone()];
    expected.sort();
    let shown = async |prefix: &str| -> Vec<String> {
        let listed = own.list(prefix).await.unwrap().into_iter();
        listed.map(|object| object.key).collect()
    };
    let of_project = keys::project_prefix(project);
    assert_eq!(shown(&of_project).await, expected);
    let page = own.list_page(&of_project, Some(&expected[0]), 10).await;
    assert_eq!(page.unwrap()[0].key, expected[1]);
    let stored = bucket.store.list("").await.unwrap();
    assert!(
        stored
            .iter()
            .all(|object| object.key.starts_with("ours/proj_"))
    );

    own.delete(&small).await.unwrap();
    bucket.store.put_bytes("ours/other", b"x").await.unwrap();
    assert_eq!(own.delete_prefix(&of_project).await.unwrap(), 1);
    let left = bucket.store.list("").await.unwrap();
    assert_eq!(left[0].key, "ours/other");
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn another_projects_keys_are_refused_before_they_are_sent() {
    let bucket = Bucket::start().await;
    let own = own(&bucket, ProjectId::new());
    let other = ProjectId::new();
    let (key, prefix) = (
        keys::file(other, FileId::new()),
        keys::project_prefix(other),
    );
    for refused in [
        own.put_bytes(&key, b"x").await.map(drop),
        own.get_bytes(&key, 1).await.map(drop),
        own.head(&key).await.map(drop),
        own.delete(&key).await,
        own.delete_prefix(&prefix).await.map(drop),
        own.list(&prefix).await.map(drop),
        own.list("").await.map(drop),
        own.put_bytes("base/x/config.json", b"x").await.map(drop),
    ] {
        assert!(
            matches!(refused, Err(ArtifactError::InvalidKey { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(bucket.store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_failure_says_whose_bucket_it_is_and_what_is_missing_is_just_missing() {
    let bucket = Bucket::start().await;
    let project = ProjectId::new();
    let key = keys::file(project, FileId::new());
    let missing = own(&bucket, project).get_bytes(&key, 1).await.unwrap_err();
    assert!(missing.is_not_found() && missing.own_bucket().is_none());

    let refused = |change: fn(&mut S3Config)| {
        let mut config = bucket.server.config("attune");
        change(&mut config);
        let store = ObjectStore::connect(&config);
        store.within(keys::project_prefix(project)).as_own()
    };
    let denied = refused(|config| config.secret_access_key = "guessed".to_owned());
    let absent = refused(|config| config.bucket = "nowhere".to_owned());
    let away = refused(|config| config.endpoint = "http://127.0.0.1:9".to_owned());
    let mut failures = vec![
        (absent.ready().await, "bucket_refused", "nowhere", false),
        (denied.ready().await, "bucket_refused", "attune", false),
        (away.ready().await, "bucket_unavailable", "attune", true),
    ];
    let put = async |store: ObjectStore| store.put_bytes(&key, b"x").await.map(drop);
    failures.extend([
        (put(denied).await, "bucket_refused", "attune", false),
        (put(away).await, "bucket_unavailable", "attune", true),
    ]);
    for (failed, code, bucket, may_pass) in failures {
        let error = failed.unwrap_err();
        let fault = error.own_bucket().unwrap();
        assert_eq!((fault.code, fault.may_pass), (code, may_pass), "{fault:?}");
        assert_eq!(error.is_transient(), may_pass);
        let named = format!("The project's own bucket `{bucket}` ");
        assert!(fault.message.starts_with(&named), "{}", fault.message);
        assert!(!fault.message.contains("127.0.0.1"), "{}", fault.message);
    }
}

#[tokio::test]
async fn a_bucket_is_tried_and_left_as_it_was() {
    let bucket = Bucket::start().await;
    let project = ProjectId::new();
    own(&bucket, project).probe(project).await.unwrap();
    assert_eq!(bucket.store.list("").await.unwrap(), []);
    let mut config = bucket.server.config("attune");
    config.secret_access_key = "guessed".to_owned();
    let refused = ObjectStore::connect(&config).probe(project).await;
    let chain = domain::failure::error_chain(&refused.unwrap_err());
    assert!(chain.contains("SignatureDoesNotMatch"), "{chain}");
    config = bucket.server.config("nowhere");
    let refused = ObjectStore::connect(&config).probe(project).await;
    assert!(
        matches!(refused, Err(ArtifactError::Refused { .. })),
        "{refused:?}"
    );
    assert!(!bucket.root.path().join("nowhere").exists());
    // The server would refuse our longest keys below so long a prefix, weeks later.
    config = bucket.server.config("attune");
    config.prefix = format!("{}/", "x".repeat(100));
    let refused = ObjectStore::connect(&config).probe(project).await;
    let chain = domain::failure::error_chain(&refused.unwrap_err());
    assert!(chain.contains("KeyTooLong"), "{chain}");
}
