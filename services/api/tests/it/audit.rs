//! What the audit log says after requests, and what administrators get to read of it.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use store::audit::{self, Act, Actor};

use crate::support::{Client, Form, ROWS, START, TestApp};

async fn log(client: &Client, query: &str) -> Vec<Value> {
    let path = format!("/v1/organization/audit_logs?{query}");
    let page = client.get(&path).await.ok();
    page["data"].as_array().unwrap().clone()
}

fn types(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .map(|row| row["type"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn every_change_is_written_down_with_who_and_what() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    let (job, file) = (&job["id"], job["training_file"].as_str().unwrap());
    let job_path = format!("/v1/fine_tuning/jobs/{}", job.as_str().unwrap());
    for step in ["pause", "resume", "cancel", "cancel"] {
        app.alice
            .post_text(&format!("{job_path}/{step}"), "")
            .await
            .ok();
    }
    app.alice.delete(&format!("/v1/files/{file}")).await.ok();

    let rows = log(&app.admin, "").await;
    let expected = [
        "file.deleted",
        "fine_tuning.job.cancelled",
        "fine_tuning.job.resumed",
        "fine_tuning.job.paused",
        "fine_tuning.job.created",
        "file.created",
    ];
    assert_eq!(types(&rows), expected);
    let created = &rows[4];
    assert_eq!(
        created["resource"],
        json!({"type": "fine_tuning.job", "id": job})
    );
    assert_eq!(created["project"]["id"], app.alice_project.to_string());
    assert_eq!(created["effective_at"], START.unix_timestamp());
    assert_eq!(created["actor"]["type"], "api_key");
    assert_eq!(created["actor"]["name"], "test");
    assert_eq!(created["actor"]["ip_address"], "127.0.0.1");
    assert!(created["request_id"].as_str().unwrap().starts_with("req_"));
    assert_eq!(created["details"]["training_file"], file);
    for (row, before) in rows.iter().zip(&rows[1..]) {
        assert_eq!(row["prev_hash"], before["hash"]);
    }
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    let app = TestApp::start().await;
    assert_eq!(app.alice.delete("/v1/files/file-1").await.status, 404);
    assert_eq!(
        app.alice.upload(Form::of("fine-tune", "")).await.status,
        400
    );
    assert_eq!(log(&app.admin, "").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_model_that_goes_is_written_down() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    app.alice.delete(&format!("/v1/models/{model}")).await.ok();
    let rows = log(&app.admin, "limit=1").await;
    assert_eq!(rows[0]["resource"], json!({"type": "model", "id": model}));
}

#[tokio::test]
async fn whom_a_project_tells_is_written_down() {
    let app = TestApp::start().await;
    let hook = json!({"name": "h", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]});
    let made = app.alice.post("/v1/webhook_endpoints", &hook).await.ok();
    let path = format!("/v1/webhook_endpoints/{}", made["id"].as_str().unwrap());
    app.alice.post(&path, &json!({"name": "i"})).await.ok();
    let rotate = format!("{path}/rotate_secret");
    app.alice.post(&rotate, &json!({})).await.ok();
    app.alice.delete(&path).await.ok();
    let rows = log(&app.admin, "").await;
    let acts = ["deleted", "secret_rotated", "updated", "created"];
    assert_eq!(
        types(&rows),
        acts.map(|act| format!("webhook_endpoint.{act}"))
    );
    assert!(!json!(rows).to_string().contains("whsec_"));
}

#[tokio::test]
async fn administrators_filter_and_page() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    app.clock.advance(std::time::Duration::from_secs(10));
    app.alice.delete(&format!("/v1/files/{file}")).await.ok();
    let rows = log(&app.admin, "").await;
    let key = rows[0]["actor"]["api_key_id"].as_str().unwrap();
    let (start, end) = (START.unix_timestamp(), START.unix_timestamp() + 10);
    let project = app.alice_project;
    let all = &["file.deleted", "file.created"][..];
    for (query, expected) in [
        ("event_types[]=file.created".to_owned(), &all[1..]),
        (
            "event_types[]=file.created&event_types[]=file.deleted".to_owned(),
            all,
        ),
        ("event_types%5B%5D=nothing".to_owned(), &[]),
        (format!("actor_ids[]={key}"), all),
        ("actor_ids[]=key_0".to_owned(), &[]),
        (format!("resource_ids[]={file}"), all),
        (format!("project_ids[]={project}"), all),
        (format!("effective_at[gt]={start}"), &all[..1]),
        (
            format!("effective_at[gte]={start}&effective_at[lt]={end}"),
            &all[1..],
        ),
        (format!("effective_at[lte]={end}"), all),
        (format!("effective_at[gt]={end}"), &[]),
        ("limit=1".to_owned(), &all[..1]),
        ("limit=1&after=audit_log-2".to_owned(), &all[1..]),
    ] {
        assert_eq!(types(&log(&app.admin, &query).await), expected, "{query}");
    }
    for (query, param) in [
        ("after=7", "after"),
        ("project_ids[]=x", "project_ids"),
        ("effective_at[gt]=now", "effective_at"),
        ("effective_at[after]=1", "effective_at"),
        ("effective_at[gt]=9223372036854775807", "effective_at"),
    ] {
        let path = format!("/v1/organization/audit_logs?{query}");
        let refusal = app.admin.get(&path).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (400, Some(param)),
            "{query}"
        );
    }
}

/// As an outsider would, from the description alone.
fn hash_of(line: &Value, prev_hash: &[u8]) -> String {
    let mut bytes = b"attune audit v1".to_vec();
    bytes.extend_from_slice(prev_hash);
    for field in [
        "org_id",
        "seq",
        "at",
        "actor_kind",
        "actor_id",
        "actor_name",
        "key_id",
        "address",
        "request_id",
        "action",
        "object_kind",
        "object_id",
        "project_id",
        "details",
    ] {
        let text = match &line[field] {
            Value::Null => {
                bytes.push(0);
                continue;
            }
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        bytes.push(1);
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn an_export_can_be_verified_by_whoever_holds_it() {
    let app = TestApp::start().await;
    for name in ["a.jsonl", "ü \"quoted\".jsonl", "名前.jsonl"] {
        let form = Form::default()
            .field("purpose", "fine-tune")
            .file(name, ROWS);
        app.alice.upload(form).await.ok();
    }
    let export = app.admin.get("/v1/organization/audit_logs/export").await;
    assert_eq!(export.header("content-type"), "application/jsonl");
    let mut prev_hash = "00".repeat(32);
    for (index, line) in export.text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["seq"], index + 1);
        assert_eq!(line["prev_hash"], prev_hash);
        assert_eq!(
            line["hash"],
            hash_of(&line, &hex::decode(&prev_hash).unwrap())
        );
        prev_hash = line["hash"].as_str().unwrap().to_owned();
    }
    assert_eq!(export.text.lines().count(), 3);
}

#[tokio::test]
async fn a_log_longer_than_one_batch_is_exported_whole() {
    let app = TestApp::start().await;
    let store = app.database.store();
    let mut tx = store.operator_tx().await.unwrap();
    let actor = Actor {
        org_id: app.alice_org,
        kind: "operator".to_owned(),
        id: "root".to_owned(),
        name: "root".to_owned(),
        key_id: None,
        address: None,
        request_id: None,
    };
    for n in 0..1201 {
        let act = Act::new("something.done", "something", n);
        audit::record(&mut tx, &actor, &act, START).await.unwrap();
    }
    tx.commit().await.unwrap();
    let export = app.admin.get("/v1/organization/audit_logs/export").await;
    assert_eq!(export.text.lines().count(), 1201);
    let last: Value = serde_json::from_str(export.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["seq"], 1201);
}

#[tokio::test]
async fn only_an_administrator_reads_and_only_their_own_organization() {
    let app = TestApp::start().await;
    app.alice.training_file().await;
    app.bob.training_file().await;
    for path in [
        "/v1/organization/audit_logs",
        "/v1/organization/audit_logs/export",
    ] {
        assert_eq!(app.alice.get(path).await.status, 403, "{path}");
        assert_eq!(app.anonymous.get(path).await.status, 401, "{path}");
        let other = app.bobs_admin.get(path).await;
        assert!(
            !other.text.contains(&app.alice_project.to_string()),
            "{path}"
        );
        assert!(other.text.contains("file.created"), "{path}");
    }
}

#[tokio::test]
async fn an_administrators_own_changes_are_in_the_log() {
    let app = TestApp::start().await;
    let path = format!(
        "/v1/organization/projects/{}/rate_limits/rl-project",
        app.alice_project
    );
    let body = json!({"max_requests_per_1_minute": 1000});
    let request = app.admin.request(Method::POST, &path).json(&body);
    app.admin.send(request).await.ok();
    let project = app
        .admin
        .post("/v1/organization/projects", &json!({"name": "Two"}))
        .await
        .ok();
    let rows = log(&app.admin, "").await;
    assert_eq!(types(&rows), ["project.created", "rate_limit.updated"]);
    assert_eq!(rows[0]["project"]["id"], project["id"]);
    assert_eq!(rows[1]["details"]["max_requests_per_1_minute"], 1000);
}

#[tokio::test]
async fn what_somebody_may_do_is_in_the_log() {
    let app = TestApp::start().await;
    let project = format!("/v1/organization/projects/{}", app.alice_project);
    let made = async |path: &str, body: Value| app.admin.post(path, &body).await.ok();
    let keys = format!("{project}/api_keys");
    let body =
        json!({"name": "ci", "role": "viewer", "scopes": ["files"], "expires_in_seconds": 60});
    let key = made(&keys, body).await;
    let rotate = format!("{keys}/{}/rotate", key["id"].as_str().unwrap());
    let next = made(&rotate, json!({})).await;
    let body = json!({"name": "robot", "scopes": ["jobs"]});
    let account = made(&format!("{project}/service_accounts"), body).await;
    let users = format!("{project}/users");
    let body = json!({"email": "ada@example.com", "role": "viewer"});
    let user = made(&users, body).await;
    let user = user["id"].as_str().unwrap();
    made(&format!("{users}/{user}"), json!({"role": "owner"})).await;
    let body = json!({"role": "owner"});
    made(&format!("/v1/organization/users/{user}"), body).await;
    app.admin.delete(&format!("{users}/{user}")).await.ok();

    let mut rows = log(&app.admin, "").await;
    rows.reverse();
    let said: Vec<_> = rows
        .iter()
        .map(|row| (row["type"].as_str().unwrap(), row["details"].clone()))
        .collect();
    let expires_at = START.unix_timestamp() + 60;
    let expected = [
        (
            "api_key.created",
            json!({"name": "ci", "role": "viewer", "scopes": ["files"], "expires_at": expires_at}),
        ),
        ("api_key.rotated", json!({"replaced_by": next["id"]})),
        (
            "service_account.created",
            json!({"name": "robot", "role": "member", "api_key_id": account["api_key"]["id"]}),
        ),
        (
            "api_key.created",
            json!({"name": "Secret Key", "service_account_id": account["id"], "scopes": ["jobs"],
                   "expires_at": null}),
        ),
        ("project.user.added", json!({"role": "viewer"})),
        ("project.user.updated", json!({"role": "owner"})),
        ("user.updated", json!({"role": "owner"})),
        ("project.user.deleted", json!({"role": "owner"})),
    ];
    assert_eq!(said, expected);
    assert_eq!(rows[1]["resource"]["id"], key["id"]);
}

#[tokio::test]
async fn an_address_is_taken_from_a_trusted_proxy_and_from_nobody_else() {
    for (app, expected) in [
        (TestApp::start().await, "127.0.0.1"),
        (TestApp::start_behind_proxy().await, "203.0.113.9"),
    ] {
        let request = app.admin.request(Method::POST, "/v1/organization/projects");
        let request = request
            // The client wrote the first; the proxy added whom it saw.
            .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
            .json(&json!({"name": "Two"}));
        app.admin.send(request).await.ok();
        let rows = log(&app.admin, "").await;
        assert_eq!(rows[0]["actor"]["ip_address"], expected);
    }
}
