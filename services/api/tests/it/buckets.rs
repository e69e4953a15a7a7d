//! A project with a bucket of its own: its objects are there and nowhere else, and its bucket's troubles are its own.

use std::time::Duration;

use ::buckets::Buckets;
use api::sweeper::Sweeper;
use artifacts::keys;
use domain::{Clock, FileId, ManualClock, ProjectId};
use reqwest::Method;
use reqwest::header::RANGE;
use serde_json::{Value, json};
use store::deletions;
use tokio_util::sync::CancellationToken;

use crate::batches::{self, PACE};
use crate::permissions::second_project;
use crate::support::{Answer, Form, OwnBucket, ROWS, TestApp};

async fn app_with_own() -> (TestApp, OwnBucket) {
    let app = TestApp::start().await;
    let own = OwnBucket::given_to(&app, app.alice_project).await;
    (app, own)
}

async fn sweeper_ahead_by(app: &TestApp, hours: u64) -> Sweeper {
    let clock = ManualClock::new(Clock::system().now());
    clock.advance(Duration::from_hours(hours));
    let store = app.worker_store().await;
    Sweeper::new(store, app.buckets.clone(), Clock::from(clock))
}

/// How many deletions wait; each is due then.
async fn left_to_delete(app: &TestApp) -> usize {
    let all_due = "UPDATE object_deletions SET not_before = now()";
    app.database.run(all_due).await.unwrap();
    let mut tx = app.worker_store().await.worker_tx().await.unwrap();
    // Without a commit nobody has taken them.
    deletions::take(&mut tx, 100).await.unwrap().len()
}

#[tokio::test]
async fn a_file_is_in_the_projects_bucket_and_nowhere_else() {
    let (app, own) = app_with_own().await;
    let id = app.alice.training_file().await;
    let key = keys::file(app.alice_project, id.parse().unwrap());
    assert_eq!(own.keys().await, [key]);
    assert_eq!(app.object_keys().await, Vec::<String>::new());

    let path = format!("/v1/files/{id}/content");
    assert_eq!(app.alice.get(&path).await.text, ROWS);
    let request = app.alice.request(Method::GET, &path);
    let part = app.alice.send(request.header(RANGE, "bytes=2-9")).await;
    assert_eq!((part.status, part.text.as_str()), (206, &ROWS[2..10]));
    assert_eq!(app.bob.get(&path).await.status, 404);

    let theirs = app.bob.training_file().await;
    let key = keys::file(app.bob_project, theirs.parse().unwrap());
    assert_eq!(app.object_keys().await, [key]);
    app.alice.delete(&format!("/v1/files/{id}")).await.ok();
    assert_eq!(own.keys().await, Vec::<String>::new());
    assert_eq!(app.object_keys().await.len(), 1);
}

#[tokio::test]
async fn parts_are_joined_and_swept_there() {
    let (app, own) = app_with_own().await;
    let upload = app.alice.begin_upload(ROWS.len()).await;
    let parts = [
        app.alice.add_part(&upload, &ROWS[..50]).await,
        app.alice.add_part(&upload, &ROWS[50..]).await,
    ];
    assert_eq!(own.keys().await.len(), 2);
    let path = format!("/v1/uploads/{upload}/complete");
    let done = app
        .alice
        .post(&path, &json!({"part_ids": parts}))
        .await
        .ok();
    let id = done["file"]["id"].as_str().unwrap().to_owned();
    let content = app.alice.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(content.text, ROWS);
    let sweeper = sweeper_ahead_by(&app, 0).await;
    assert_eq!(sweeper.delete_due_objects().await.unwrap(), 1);
    let key = keys::file(app.alice_project, id.parse().unwrap());
    assert_eq!(own.keys().await, [key]);
    assert_eq!(app.object_keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_only_looks_at_a_file_looks_there() {
    let (app, _own) = app_with_own().await;
    app.register_wordy().await;
    let request = json!({"model": "wordy", "training_file": app.alice.training_file().await});
    for route in ["preview", "estimate"] {
        let path = format!("/v1/fine_tuning/jobs/{route}");
        app.alice.post(&path, &request).await.ok();
    }
}

#[tokio::test]
async fn a_batch_reads_and_writes_there() {
    let (app, stand_in) = batches::start().await;
    let own = OwnBucket::given_to(&app, app.alice_project).await;
    let id = app.alice.batch(&["ok", "ok"]).await;
    let runner = batches::runner(&app, &stand_in, PACE).await;
    while batches::take_turn(&runner).await {}
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["status"], "completed", "{done}");
    let output = done["output_file_id"].as_str().unwrap();
    let content = app.alice.get(&format!("/v1/files/{output}/content")).await;
    assert_eq!(content.text.lines().count(), 2);
    assert_eq!(own.keys().await.len(), 2, "the input and the output");
    assert_eq!(app.object_keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_waits_for_its_bucket_and_says_so() {
    let (app, stand_in) = batches::start().await;
    let mut own = OwnBucket::given_to(&app, app.alice_project).await;
    let id = app.alice.batch(&["ok", "ok"]).await;
    let runner = batches::runner(&app, &stand_in, PACE).await;
    own.stop().await;
    for _ in 0..2 {
        let error = runner.take_turn(&CancellationToken::new()).await;
        let chain = domain::failure::error_chain(&error.unwrap_err());
        assert!(chain.contains("`acme-models`"), "{chain}");
    }
    let waiting = app.alice.found_batch(&id).await;
    assert_eq!(waiting["status"], "validating", "{waiting}");
    assert_eq!(
        waiting["errors"]["data"],
        json!([{
            "code": "bucket_unavailable",
            "line": null,
            "message": "The project's own bucket `acme-models` could not be reached. Try again soon.",
            "param": null,
        }])
    );

    own.start().await;
    assert!(batches::take_turn(&runner).await);
    while batches::take_turn(&runner).await {}
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["errors"], Value::Null);
}

#[tokio::test]
async fn a_model_is_downloaded_from_its_owners_bucket_and_swept_from_it() {
    let (app, own) = app_with_own().await;
    app.alice.job(json!({})).await;
    let name = app.finish_next_job().await.model_name;
    let found = own.keys().await;
    let weights = found.iter().find(|key| key.contains("/models/")).unwrap();
    let prefix = weights.strip_suffix("adapter_model.safetensors").unwrap();
    own.put(&format!("{prefix}adapter_config.json")).await;

    // Another project, which was permitted to use it, has no bucket of its own.
    let (project, second) = second_project(&app).await;
    let at = format!("/v1/fine_tuning/checkpoints/{name}/permissions");
    let permit = json!({"project_ids": [project]});
    app.admin.post(&at, &permit).await.ok();
    for client in [&app.alice, &second] {
        let path = format!("/v1/models/{name}/download");
        let request = client.request(Method::GET, &path);
        let archive = request.send().await.unwrap();
        assert_eq!(archive.status(), 200);
        let archive = archive.bytes().await.unwrap();
        assert!(archive.starts_with(b"PK"));
    }
    assert_eq!(app.object_keys().await, Vec::<String>::new());

    app.alice.delete(&format!("/v1/models/{name}")).await.ok();
    let sweeper = sweeper_ahead_by(&app, 0).await;
    assert_eq!(sweeper.delete_due_objects().await.unwrap(), 1);
    let left = own.keys().await;
    assert!(!left.iter().any(|key| key.contains("/models/")), "{left:?}");
}

#[tokio::test]
async fn orphans_are_looked_for_in_every_bucket() {
    let (app, own) = app_with_own().await;
    app.alice.training_file().await;
    app.bob.training_file().await;
    own.put(&keys::file(app.alice_project, FileId::new())).await;
    // Something of the bucket's owner, and of a project that is not there.
    own.put("notes/readme.txt").await;
    own.put(&keys::file(ProjectId::new(), FileId::new())).await;
    app.put(&keys::file(app.bob_project, FileId::new())).await;
    let sweeper = sweeper_ahead_by(&app, 25).await;
    assert_eq!(sweeper.delete_orphans().await.unwrap(), 2);
    assert_eq!(
        (own.keys().await.len(), app.object_keys().await.len()),
        (3, 1)
    );
}

fn error(answer: &Answer) -> Value {
    answer.json()["error"].clone()
}

#[tokio::test]
async fn a_bucket_that_is_away_is_named_and_holds_up_nobody_else() {
    let (app, mut own) = app_with_own().await;
    let id = app.alice.training_file().await;
    let theirs = app.bob.training_file().await;
    own.stop().await;

    let refused = app.alice.upload(Form::of("fine-tune", ROWS)).await;
    assert_eq!(refused.status, 503);
    let said = error(&refused);
    assert_eq!(
        (&said["code"], &said["type"]),
        (
            &json!("bucket_unavailable"),
            &json!("service_unavailable_error")
        )
    );
    let message = said["message"].as_str().unwrap();
    assert_eq!(
        message,
        "The project's own bucket `acme-models` could not be reached. Try again soon."
    );
    assert!(!refused.header("retry-after").is_empty());
    let content = app.alice.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(error(&content)["code"], "bucket_unavailable");
    // The file can be deleted; its object goes when the bucket is back.
    app.alice.delete(&format!("/v1/files/{id}")).await.ok();
    app.bob.training_file().await;
    app.bob.delete(&format!("/v1/files/{theirs}")).await.ok();

    let sweeper = sweeper_ahead_by(&app, 0).await;
    let failed = sweeper.delete_due_objects().await.unwrap_err();
    let chain = domain::failure::error_chain(&failed);
    assert!(chain.contains("`acme-models`"), "{chain}");
    assert_eq!(left_to_delete(&app).await, 1, "the other project's is done");

    own.start().await;
    assert_eq!(own.keys().await.len(), 1);
    assert_eq!(sweeper.delete_due_objects().await.unwrap(), 1);
    assert_eq!(own.keys().await, Vec::<String>::new());
    app.alice.training_file().await;
}

#[tokio::test]
async fn refused_credentials_are_said_and_new_ones_are_used_at_once() {
    let (app, mut own) = app_with_own().await;
    let id = app.alice.training_file().await;
    own.change_secret("a-new-secret").await;
    let path = format!("/v1/files/{id}/content");
    for refused in [
        app.alice.get(&path).await,
        app.alice.upload(Form::of("fine-tune", ROWS)).await,
    ] {
        assert_eq!(refused.status, 503);
        assert_eq!(
            error(&refused)["message"],
            "The project's own bucket `acme-models` denied access. Its credentials or their permissions have to be mended."
        );
        assert_eq!(error(&refused)["code"], "bucket_refused");
        assert_eq!(refused.header("x-should-retry"), "false");
    }
    app.bob.training_file().await;

    own.tell_secret(&app, app.alice_project).await;
    assert_eq!(app.alice.get(&path).await.text, ROWS);
    app.alice.training_file().await;
    assert_eq!(own.keys().await.len(), 2);
}

#[tokio::test]
async fn a_service_without_the_key_says_so_and_serves_the_others() {
    let (app, own) = app_with_own().await;
    let id = app.alice.training_file().await;
    app.alice.job(json!({})).await;
    let name = app.finish_next_job().await.model_name;
    app.alice.delete(&format!("/v1/models/{name}")).await.ok();
    let theirs = app.bob.training_file().await;
    app.bob.delete(&format!("/v1/files/{theirs}")).await.ok();
    let n_before = own.keys().await.len();

    let installation = app.config().s3;
    let sweeper = Sweeper::new(
        app.worker_store().await,
        Buckets::new(&installation, None),
        Clock::system(),
    );
    let failed = sweeper.delete_due_objects().await.unwrap_err();
    let chain = domain::failure::error_chain(&failed);
    assert!(chain.contains("ATTUNE_SECRET_KEYS"), "{chain}");
    assert_eq!(left_to_delete(&app).await, 1);
    assert_eq!(
        own.keys().await.len(),
        n_before,
        "`{id}` and what the job made"
    );
}
