//! Deleting files.

use serde_json::json;
use store::deletions;

use crate::support::TestApp;

#[tokio::test]
async fn a_deleted_file_is_gone_with_its_object() {
    let app = TestApp::start().await;
    let id = app.alice.training_file().await;
    let path = format!("/v1/files/{id}");
    let deleted = app.alice.delete(&path).await.ok();
    assert_eq!(
        deleted,
        json!({"id": id, "object": "file", "deleted": true})
    );
    assert_eq!(app.object_keys().await, Vec::<String>::new());
    for answer in [app.alice.get(&path).await, app.alice.delete(&path).await] {
        assert_eq!(
            answer.refusal(),
            (
                404,
                Some("id".to_owned()),
                Some("file_not_found".to_owned())
            )
        );
    }
}

#[tokio::test]
async fn the_objects_deletion_is_on_record() {
    let app = TestApp::start().await;
    let id = app.alice.training_file().await;
    app.alice.delete(&format!("/v1/files/{id}")).await.ok();
    let mut tx = app.worker_store().await.worker_tx().await.unwrap();
    let pending = deletions::take(&mut tx, 10).await.unwrap();
    let key = artifacts::keys::file(app.alice_project, id.parse().unwrap());
    assert_eq!(pending[0].target, deletions::Target::Object(key));
}

#[tokio::test]
async fn a_file_that_an_unfinished_job_reads_cannot_be_deleted() {
    let app = TestApp::start().await;
    let ids = [
        app.alice.training_file().await,
        app.alice.training_file().await,
        app.alice.training_file().await,
    ];
    let job = json!({
        "training_file": ids[0],
        "validation_file": ids[1],
        "attune": {"replay": {"file": ids[2], "ratio": 0.1}},
    });
    let job = app.alice.job(job).await["id"].as_str().unwrap().to_owned();
    for id in &ids {
        let refused = app.alice.delete(&format!("/v1/files/{id}")).await;
        assert_eq!(
            refused.refusal(),
            (400, Some("id".to_owned()), Some("file_in_use".to_owned()))
        );
        assert!(refused.text.contains(&job), "{}", refused.text);
        // Bob learns nothing of it.
        let other = app.bob.delete(&format!("/v1/files/{id}")).await;
        assert_eq!(other.status, 404);
    }
    let path = format!("/v1/fine_tuning/jobs/{job}");
    app.alice
        .post(&format!("{path}/cancel"), &json!({}))
        .await
        .ok();
    for id in &ids {
        app.alice.delete(&format!("/v1/files/{id}")).await.ok();
    }
    // A job outlives its files.
    assert_eq!(app.alice.get(&path).await.ok()["training_file"], ids[0]);
}
