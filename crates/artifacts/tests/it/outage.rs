//! The server goes away and comes back.

use artifacts::{ArtifactError, embedded};
use futures::TryStreamExt;

use crate::{Bucket, credentials};

#[tokio::test]
async fn a_stopped_server_is_unavailable_and_a_started_one_has_everything() {
    let Bucket {
        root,
        server,
        store,
    } = Bucket::start().await;
    store.put_bytes("kept", b"before").await.unwrap();
    let addr = server.addr();
    server.shutdown().await;

    let error = store.get_bytes("kept", 100).await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());
    let error = store.put_bytes("new", b"x").await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::Unavailable { .. }),
        "{error:?}"
    );
    assert!(store.ready().await.is_err());

    let server = embedded::serve(root.path(), addr, &credentials())
        .await
        .unwrap();
    assert_eq!(store.get_bytes("kept", 100).await.unwrap(), "before");
    store.put_bytes("new", b"x").await.unwrap();
    store.ready().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_download_under_way_is_finished_before_the_server_stops() {
    let Bucket {
        root: _root,
        server,
        store,
    } = Bucket::start().await;
    let content = vec![7; 32 << 20];
    store.put_bytes("long", &content).await.unwrap();
    let mut body = store.get_stream("long").await.unwrap();
    let first = body.stream.try_next().await.unwrap().unwrap();
    let stopping = tokio::spawn(server.shutdown());
    let rest: Vec<_> = body.stream.try_collect().await.unwrap();
    assert_eq!(
        first.len() + rest.iter().map(bytes::Bytes::len).sum::<usize>(),
        content.len()
    );
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_start_removes_notes_on_objects_that_are_gone() {
    let Bucket {
        root,
        server,
        store,
    } = Bucket::start().await;
    store.put_bytes("kept", b"x").await.unwrap();
    store.put_bytes("gone", b"x").await.unwrap();
    store.delete("gone").await.unwrap();
    let addr = server.addr();
    server.shutdown().await;
    let notes = || {
        let names = std::fs::read_dir(root.path()).unwrap();
        names
            .filter(|entry| entry.as_ref().unwrap().file_name() != "attune")
            .count()
    };
    assert_eq!(notes(), 4, "two for each object");
    let server = embedded::serve(root.path(), addr, &credentials())
        .await
        .unwrap();
    assert_eq!(notes(), 2);
    assert_eq!(store.get_bytes("kept", 1).await.unwrap(), "x");
    server.shutdown().await;
}
