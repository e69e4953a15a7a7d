//! What is swept, and above all what is not.

use std::time::Duration;

use api::sweeper::Sweeper;
use artifacts::keys;
use domain::{Clock, FileId, FineTunedModelId, ManualClock, PartId, UploadId};
use serde_json::json;

use crate::support::{Form, ROWS, START, TestApp};

/// A sweeper whose clock is this far ahead of the bucket's, which is the machine's.
async fn sweeper_ahead_by(app: &TestApp, hours: u64) -> Sweeper {
    let clock = ManualClock::new(Clock::system().now());
    clock.advance(Duration::from_secs(hours * 3600));
    Sweeper::new(
        app.worker_store().await,
        app.buckets.clone(),
        Clock::from(clock),
    )
}

#[tokio::test]
async fn orphans_go_after_a_day_and_everything_else_stays() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    app.finish_next_job().await;
    app.put("base/some/config.json").await;
    let kept = app.object_keys().await;

    let open = app.alice.job(json!({})).await;
    let open_job = open["id"].as_str().unwrap().parse().unwrap();
    let project = app.alice_project;
    // A worker may be writing this one right now.
    app.put(&format!(
        "{}adapter.bin",
        keys::checkpoint(project, open_job, 1, 5)
    ))
    .await;
    let n_kept = app.object_keys().await.len();
    app.put(&keys::file(project, FileId::new())).await;
    app.put(&format!(
        "{}adapter.bin",
        keys::adapter(project, FineTunedModelId::new())
    ))
    .await;

    assert_eq!(
        sweeper_ahead_by(&app, 23)
            .await
            .delete_orphans()
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        sweeper_ahead_by(&app, 25)
            .await
            .delete_orphans()
            .await
            .unwrap(),
        2
    );
    let left = app.object_keys().await;
    assert_eq!(left.len(), n_kept, "{left:#?}");
    assert!(kept.iter().all(|key| left.contains(key)), "{left:#?}");
}

#[tokio::test]
async fn objects_of_a_deleted_model_go() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let name = app.finish_next_job().await.model_name;
    let adapters = |keys: Vec<String>| keys.iter().filter(|key| key.contains("/models/")).count();
    assert_eq!(adapters(app.object_keys().await), 1);
    app.alice.delete(&format!("/v1/models/{name}")).await.ok();
    let sweeper = sweeper_ahead_by(&app, 0).await;
    assert_eq!(sweeper.delete_due_objects().await.unwrap(), 1);
    assert_eq!(adapters(app.object_keys().await), 0);
    assert_eq!(sweeper.delete_due_objects().await.unwrap(), 0);
}

#[tokio::test]
async fn an_expired_file_goes_with_its_object() {
    let app = TestApp::start().await;
    let form = Form::of("fine-tune", ROWS).field("expires_after[seconds]", "3600");
    let id = app.alice.upload(form).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    app.alice.training_file().await;
    let sweeper = |clock| async {
        let worker = app.worker_store().await;
        Sweeper::new(worker, app.buckets.clone(), Clock::from(clock))
    };
    let early = sweeper(ManualClock::new(START)).await;
    assert_eq!(early.delete_expired_files().await.unwrap(), 0);
    let late = sweeper(ManualClock::new(START + Duration::from_hours(1))).await;
    assert_eq!(late.delete_expired_files().await.unwrap(), 1);
    assert_eq!(late.delete_due_objects().await.unwrap(), 1);
    assert_eq!(app.alice.get(&format!("/v1/files/{id}")).await.status, 404);
    assert_eq!(app.object_keys().await.len(), 1);
}

#[tokio::test]
async fn an_upload_that_nobody_completed_goes_with_its_parts() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(8).await;
    app.alice.add_part(&id, "abcd").await;
    let sweeper = async |after: Duration| {
        let clock = Clock::from(ManualClock::new(START + after));
        Sweeper::new(app.worker_store().await, app.buckets.clone(), clock)
    };
    // Its hour is over, but somebody may be joining its parts.
    let early = sweeper(Duration::from_mins(74)).await;
    assert_eq!(early.end_expired_uploads().await.unwrap(), 0);
    let late = sweeper(Duration::from_mins(75)).await;
    assert_eq!(late.end_expired_uploads().await.unwrap(), 1);
    assert_eq!(late.end_expired_uploads().await.unwrap(), 0);
    assert_eq!(late.delete_due_objects().await.unwrap(), 1);
    assert_eq!(app.object_keys().await, Vec::<String>::new());
    let refusal = app
        .alice
        .post(&format!("/v1/uploads/{id}/cancel"), &json!({}))
        .await
        .refusal();
    assert_eq!(refusal.2.as_deref(), Some("upload_expired"));
}

#[tokio::test]
async fn parts_are_orphans_only_once_their_upload_has_ended() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(8).await;
    app.alice.add_part(&id, "abcd").await;
    // Its process died before it wrote the row.
    let upload = id.parse().unwrap();
    app.put(&keys::upload_part(app.alice_project, upload, PartId::new()))
        .await;
    app.put(&keys::upload_part(
        app.alice_project,
        UploadId::new(),
        PartId::new(),
    ))
    .await;
    let sweeper = sweeper_ahead_by(&app, 25).await;
    assert_eq!(sweeper.delete_orphans().await.unwrap(), 1);
    let path = format!("/v1/uploads/{id}/cancel");
    app.alice.post(&path, &json!({})).await.ok();
    assert_eq!(sweeper.delete_orphans().await.unwrap(), 2);
}

#[tokio::test]
async fn the_apis_own_login_cannot_sweep() {
    let app = TestApp::start().await;
    let store = store::Store::connect(&app.database.url_as(store::migrate::API_LOGIN))
        .await
        .unwrap();
    let sweeper = Sweeper::new(store, app.buckets.clone(), Clock::system());
    assert!(sweeper.delete_due_objects().await.is_err());
}
