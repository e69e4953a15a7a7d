//! What keys may do: their scopes and roles, and when they stop.

use std::time::Duration;

use api::router::ROUTES;
use domain::{BatchStatus, JobStatus};
use reqwest::Method;
use serde_json::{Value, json};
use store::{StoreError, batches, events, jobs, queue};

use crate::isolation::filled;
use crate::support::{Client, Form, TestApp};

fn keys(app: &TestApp) -> String {
    format!("/v1/organization/projects/{}/api_keys", app.alice_project)
}

/// A new key of alice's project and a client that holds it.
async fn key(app: &TestApp, mut body: Value) -> (String, Client) {
    body["name"] = json!("test");
    let made = app.admin.post(&keys(app), &body).await.ok();
    let secret = made["value"].as_str().unwrap();
    let id = made["id"].as_str().unwrap().to_owned();
    (id, app.anonymous.with_key(secret))
}

#[track_caller]
fn refused(answer: &crate::support::Answer, code: &str) {
    let (status, _, found) = answer.refusal();
    assert_eq!(
        (status, found.as_deref()),
        (403, Some(code)),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_key_is_limited_to_its_scopes() {
    let app = TestApp::start().await;
    let (_, files) = key(&app, json!({"scopes": ["files"]})).await;
    files.upload(Form::of("fine-tune", "{}")).await.ok();
    files.get("/v1/files").await.ok();
    for path in ["/v1/fine_tuning/jobs", "/v1/models"] {
        refused(&files.get(path).await, "missing_scope");
    }
    refused(
        &files.post("/v1/chat/completions", &json!({})).await,
        "missing_scope",
    );

    let (_, jobs) = key(&app, json!({"scopes": ["jobs"]})).await;
    jobs.get("/v1/fine_tuning/jobs").await.ok();
    jobs.get("/v1/models").await.ok();
    refused(&jobs.get("/v1/files").await, "missing_scope");

    let (_, reader) = key(&app, json!({"scopes": ["read_only"]})).await;
    reader.get("/v1/files").await.ok();
    reader.get("/v1/fine_tuning/jobs").await.ok();
    refused(
        &reader.upload(Form::of("fine-tune", "{}")).await,
        "missing_scope",
    );
    refused(
        &reader.post("/v1/chat/completions", &json!({})).await,
        "missing_scope",
    );
}

#[tokio::test]
async fn a_viewer_reads_and_a_member_deletes() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    let path = format!("/v1/files/{file}");
    let (_, viewer) = key(&app, json!({"role": "viewer"})).await;
    viewer.get(&path).await.ok();
    refused(&viewer.delete(&path).await, "insufficient_role");
    refused(
        &viewer.delete("/v1/models/ft:none").await,
        "insufficient_role",
    );
    let job = json!({"model": "tiny", "training_file": file});
    refused(
        &viewer.post("/v1/fine_tuning/jobs", &job).await,
        "insufficient_role",
    );
    let (_, member) = key(&app, json!({"role": "member"})).await;
    member.delete(&path).await.ok();
}

#[tokio::test]
async fn an_owner_deletes_a_model_and_a_member_does_not() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    let path = format!("/v1/models/{model}");
    let (_, member) = key(&app, json!({"role": "member"})).await;
    refused(&member.delete(&path).await, "insufficient_role");
    member.get(&path).await.ok();
    let (_, owner) = key(&app, json!({"role": "owner"})).await;
    owner.delete(&path).await.ok();
    assert_eq!(member.get(&path).await.status, 404);
}

/// Whether a path is one of these or below one of them.
fn is_below(path: &str, beginnings: &[&str]) -> bool {
    let of = |beginning: &&str| {
        let rest = path.strip_prefix(*beginning);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    beginnings.iter().any(of)
}

#[tokio::test]
async fn no_route_lets_a_limited_key_beyond_its_limits() {
    const FILES: &[&str] = &["/v1/files", "/v1/uploads"];
    const INFERENCE: &[&str] = &["/v1/chat", "/v1/batches"];
    const JOBS: &[&str] = &[
        "/v1/fine_tuning/jobs",
        "/v1/fine_tuning/alpha",
        "/v1/models",
        "/v1/webhook_endpoints",
        "/v1/webhook_event_types",
    ];
    let app = TestApp::start().await;
    let holder = async |rights: Value| key(&app, rights).await.1;
    let [viewer, member, reader, files, jobs, inference] = [
        holder(json!({"role": "viewer"})).await,
        holder(json!({"role": "member"})).await,
        holder(json!({"role": "owner", "scopes": ["read_only"]})).await,
        holder(json!({"role": "owner", "scopes": ["files"]})).await,
        holder(json!({"role": "owner", "scopes": ["jobs"]})).await,
        holder(json!({"role": "owner", "scopes": ["inference"]})).await,
    ];
    let mut n_opened = 0;
    for route in ROUTES {
        let (path, reads) = (filled(route.path), route.method == Method::GET);
        if !path.starts_with("/v1/") {
            continue;
        }
        let is_project_s = is_below(&path, &[FILES, INFERENCE, JOBS].concat());
        let is_download = path.ends_with("/download");
        let deletes_model = !reads && is_below(&path, &["/v1/models"]);
        let looks_at_models = reads && !is_download && is_below(&path, &["/v1/models"]);
        for (client, name, opens) in [
            (&viewer, "viewer", is_project_s && reads),
            (&member, "member", is_project_s && !deletes_model),
            (&reader, "reader", is_project_s && reads),
            (&files, "files", is_below(&path, FILES)),
            (&jobs, "jobs", is_below(&path, JOBS)),
            (
                &inference,
                "inference",
                is_below(&path, INFERENCE) || looks_at_models,
            ),
        ] {
            let answer = client
                .send(client.request(route.method.clone(), &path))
                .await;
            let was_let_in = answer.status != 403;
            assert_eq!(was_let_in, opens, "{name}: {} {path}", route.method);
            n_opened += usize::from(opens);
        }
    }
    assert!(n_opened > 60, "{n_opened}");
}

#[tokio::test]
async fn what_costs_or_shows_more_than_its_route_takes_the_rights_to_that() {
    let app = TestApp::start().await;
    let (_, reader) = key(&app, json!({"scopes": ["read_only"]})).await;
    let (_, viewer) = key(&app, json!({"role": "viewer"})).await;
    for format in ["merged", "gguf"] {
        let path = format!("/v1/models/ft:none/download?format={format}");
        refused(&reader.get(&path).await, "missing_scope");
        refused(&viewer.get(&path).await, "insufficient_role");
        assert_eq!(app.alice.get(&path).await.status, 404);
    }
    let (_, jobs) = key(&app, json!({"scopes": ["jobs"]})).await;
    let file = app.alice.training_file().await;
    let body = json!({"model": "tiny", "training_file": file});
    let preview = "/v1/fine_tuning/jobs/preview";
    refused(&jobs.post(preview, &body).await, "missing_scope");
    // A judge is a chat by another name.
    let input = json!([{"role": "user", "content": "{{sample.output_text}}"}]);
    let judge = json!({"type": "score_model", "name": "j", "model": "tiny", "input": input});
    let body = json!({"grader": judge, "item": {}, "model_sample": "x"});
    let run = "/v1/fine_tuning/alpha/graders/run";
    refused(&jobs.post(run, &body).await, "missing_scope");
    let same = json!({"type": "string_check", "name": "s", "input": "a", "reference": "a", "operation": "eq"});
    let body = json!({"grader": same, "item": {}, "model_sample": "x"});
    jobs.post(run, &body).await.ok();
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_an_expired_one_on_time() {
    let app = TestApp::start().await;
    let (id, revoked) = key(&app, json!({})).await;
    revoked.get("/v1/files").await.ok();
    let gone = app.admin.delete(&format!("{}/{id}", keys(&app))).await.ok();
    let expected =
        json!({"id": id, "object": "organization.project.api_key.deleted", "deleted": true});
    assert_eq!(gone, expected);
    assert_eq!(revoked.get("/v1/files").await.status, 401);
    assert_eq!(
        app.admin.get(&format!("{}/{id}", keys(&app))).await.status,
        404
    );

    let (_, expiring) = key(&app, json!({"expires_in_seconds": 60})).await;
    expiring.get("/v1/files").await.ok();
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(expiring.get("/v1/files").await.status, 401);
}

#[tokio::test]
async fn a_rotated_key_keeps_its_rights_and_the_old_one_its_grace() {
    let app = TestApp::start().await;
    let (id, old) = key(&app, json!({"scopes": ["files"]})).await;
    let path = format!("{}/{id}/rotate", keys(&app));
    let made = app
        .admin
        .post(&path, &json!({"grace_seconds": 60}))
        .await
        .ok();
    assert_eq!(made["scopes"], json!(["files"]));
    let new = app.anonymous.with_key(made["value"].as_str().unwrap());
    for client in [&old, &new] {
        client.get("/v1/files").await.ok();
        refused(&client.get("/v1/fine_tuning/jobs").await, "missing_scope");
    }
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(old.get("/v1/files").await.status, 401);
    new.get("/v1/files").await.ok();

    let admin = app
        .admin
        .post("/v1/organization/admin_api_keys", &json!({"name": "a"}))
        .await
        .ok();
    let path = format!(
        "/v1/organization/admin_api_keys/{}/rotate",
        admin["id"].as_str().unwrap()
    );
    let made = app
        .admin
        .post(&path, &json!({"grace_seconds": 0}))
        .await
        .ok();
    for (secret, status) in [(&admin["value"], 401), (&made["value"], 200)] {
        let client = app.anonymous.with_key(secret.as_str().unwrap());
        assert_eq!(client.get("/v1/organization/projects").await.status, status);
    }
}

#[tokio::test]
async fn a_key_is_replaced_once_and_its_replacement_lasts() {
    let app = TestApp::start().await;
    let rotate = async |id: &str| {
        let path = format!("{}/{id}/rotate", keys(&app));
        app.admin.post(&path, &json!({"grace_seconds": 60})).await
    };
    let code = |answer: &crate::support::Answer| {
        let (status, _, code) = answer.refusal();
        (status, code)
    };
    let (id, old) = key(&app, json!({})).await;
    let made = rotate(&id).await.ok();
    assert_eq!(made["expires_at"], Value::Null);
    // An SDK whose answer was lost asks again, maybe after the grace.
    for wait in [0, 60] {
        app.clock.advance(Duration::from_secs(wait));
        let again = rotate(&id).await;
        assert_eq!(code(&again), (400, Some("key_replaced".to_owned())));
        assert!(
            again.text.contains(made["id"].as_str().unwrap()),
            "{}",
            again.text
        );
    }
    assert_eq!(old.get("/v1/files").await.status, 401);
    let next = rotate(made["id"].as_str().unwrap()).await.ok();
    app.clock.advance(Duration::from_hours(24 * 365));
    let client = app.anonymous.with_key(next["value"].as_str().unwrap());
    client.get("/v1/files").await.ok();

    let (id, _) = key(&app, json!({"expires_in_seconds": 60})).await;
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(
        code(&rotate(&id).await),
        (400, Some("key_expired".to_owned()))
    );
    app.admin.delete(&format!("{}/{id}", keys(&app))).await.ok();
    assert_eq!(rotate(&id).await.status, 404);
}

#[tokio::test]
async fn of_two_who_replace_a_key_at_once_one_does() {
    let app = TestApp::start().await;
    let (id, _) = key(&app, json!({})).await;
    let (path, body) = (format!("{}/{id}/rotate", keys(&app)), json!({}));
    let answers = futures::future::join_all((0..8).map(|_| app.admin.post(&path, &body))).await;
    let made = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(made.count(), 1);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_shown_and_its_secret_is_not() {
    let app = TestApp::start().await;
    let (id, client) = key(&app, json!({})).await;
    let path = format!("{}/{id}", keys(&app));
    assert_eq!(app.admin.get(&path).await.ok()["last_used_at"], Value::Null);
    client.get("/v1/files").await.ok();
    let shown = app.admin.get(&path).await.ok();
    assert_eq!(shown["last_used_at"], shown["created_at"]);
    let listed = app.admin.get(&keys(&app)).await.ok().to_string();
    assert!(
        !listed.contains(client.key()) && !listed.contains("value\":\"sk-attune-\""),
        "{listed}"
    );
    assert!(listed.contains(&client.key()[..18]), "{listed}");
}

#[tokio::test]
async fn an_archived_project_lets_nobody_in() {
    let app = TestApp::start().await;
    let path = format!("/v1/organization/projects/{}", app.alice_project);
    let archived = app
        .admin
        .post_text(&format!("{path}/archive"), "")
        .await
        .ok();
    assert_eq!(archived["status"], "archived");
    assert_eq!(app.alice.get("/v1/files").await.status, 401);
    let refusal = app
        .admin
        .post(&keys(&app), &json!({"name": "x"}))
        .await
        .refusal();
    assert_eq!(
        (refusal.0, refusal.2.as_deref()),
        (400, Some("project_archived"))
    );
    let list = app.admin.get("/v1/organization/projects").await.ok();
    assert_eq!(list["data"], json!([]));
    let list = app
        .admin
        .get("/v1/organization/projects?include_archived=true")
        .await
        .ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_an_archived_project_had_under_way_is_cancelled() {
    let app = TestApp::start().await;
    let held = app.alice.job(json!({})).await;
    let worker = app.worker_store().await;
    let claimed = app.claim(&worker).await;
    let waiting = app.alice.job(json!({})).await;
    let batch = app.alice.batch(&["ok"]).await;
    app.alice.begin_upload(8).await;
    let path = format!("/v1/organization/projects/{}/archive", app.alice_project);
    for _ in 0..2 {
        app.admin.post_text(&path, "").await.ok();
    }
    assert_eq!(app.alice.get("/v1/files").await.status, 401);

    let mut tx = worker.worker_tx().await.unwrap();
    let told = queue::wish(&mut tx, &claimed.lease).await;
    assert!(matches!(told, Err(StoreError::LeaseLost)), "{told:?}");
    let mut tx = worker.tenant_tx(app.alice_project).await.unwrap();
    for job in [&held, &waiting] {
        let id = job["id"].as_str().unwrap().parse().unwrap();
        let found = jobs::find(&mut tx, id).await.unwrap().unwrap().job;
        assert_eq!(found.status, JobStatus::Cancelled);
        let told = events::list(&mut tx, id, None, 1).await.unwrap();
        let message = &told.data[0].message;
        assert!(message.contains("its project was archived"), "{message}");
    }
    let found = batches::find(&mut tx, batch.parse().unwrap()).await;
    assert_eq!(found.unwrap().unwrap().status, BatchStatus::Cancelling);

    let log = app
        .admin
        .get("/v1/organization/audit_logs?event_types[]=project.archived")
        .await
        .ok();
    assert_eq!(log["data"].as_array().unwrap().len(), 1, "{log}");
    let details = json!({"cancelled_jobs": 2, "cancelled_batches": 1, "cancelled_uploads": 1});
    assert_eq!(log["data"][0]["details"], details);
}

#[tokio::test]
async fn what_a_key_cannot_be_is_named() {
    let app = TestApp::start().await;
    for (param, body) in [
        ("name", json!({})),
        ("role", json!({"name": "x", "role": "king"})),
        ("scopes", json!({"name": "x", "scopes": ["admin"]})),
        ("scopes", json!({"name": "x", "scopes": "files"})),
        (
            "expires_in_seconds",
            json!({"name": "x", "expires_in_seconds": 0}),
        ),
    ] {
        let refusal = app.admin.post(&keys(&app), &body).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (400, Some(param)),
            "{body}"
        );
    }
}
