//! What the server and the client refuse.

use artifacts::{ArtifactError, ObjectStore};

use crate::Bucket;

#[tokio::test]
async fn a_wrong_secret_is_denied() {
    let bucket = Bucket::start().await;
    let mut config = bucket.server.config("attune");
    config.secret_access_key = "guessed".to_owned();
    let stranger = ObjectStore::connect(&config);
    let error = stranger.put_bytes("key", b"x").await.unwrap_err();
    assert!(matches!(error, ArtifactError::Denied { .. }), "{error:?}");
    assert!(matches!(
        stranger.ready().await.unwrap_err(),
        ArtifactError::Denied { .. }
    ));
}

#[tokio::test]
async fn a_key_that_leaves_its_prefix_is_not_even_sent() {
    let bucket = Bucket::start().await;
    let error = bucket
        .store
        .get_bytes("../../etc/passwd", 10)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ArtifactError::InvalidKey { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_server_refuses_a_key_that_leaves_its_bucket() {
    let bucket = Bucket::start().await;
    std::fs::write(bucket.root.path().join("secret"), "beside the bucket").unwrap();
    let client = raw_client(&bucket);
    for key in ["../secret", "../../etc/passwd", "a/../../secret"] {
        let answer = client.get_object().bucket("attune").key(key).send().await;
        let status = answer
            .unwrap_err()
            .raw_response()
            .unwrap()
            .status()
            .as_u16();
        assert_eq!(status, 400, "{key}");
    }
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let bucket = Bucket::start_with_reserve(u64::MAX).await;
    let error = bucket
        .store
        .put_bytes("key", &vec![0; 4 << 20])
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::NoSpace { .. }), "{error:?}");
    let long = futures::stream::iter(
        (0..20).map(|_| Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![0; 1 << 20]))),
    );
    let error = bucket
        .store
        .put_stream("long", long, u64::MAX)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::NoSpace { .. }), "{error:?}");
    // Reading and deleting still work: that is how room is made.
    bucket.store.delete("key").await.unwrap();
}

/// The SDK without our own check of keys.
fn raw_client(bucket: &Bucket) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    let config = bucket.server.config("attune");
    let credentials = Credentials::new(
        config.access_key_id,
        config.secret_access_key,
        None,
        None,
        "test",
    );
    let sdk_config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(config.endpoint)
        .region(Region::new(config.region))
        .force_path_style(true)
        .credentials_provider(credentials)
        .build();
    aws_sdk_s3::Client::from_conf(sdk_config)
}
