//! No route shows one tenant what is another's: the answer is the one for what does not exist.

use api::router::ROUTES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Form, TestApp, redacted};

/// Things of one tenant, or of nobody.
struct Things {
    file: String,
    job: String,
    model: String,
    upload: String,
    batch: String,
}

/// What a route is asked in the test.
enum Case {
    /// It reads no tenant's data.
    Public,
    /// It makes something new out of what is sent, or asks another service, which has this test for itself.
    NamesNothing,
    /// It names a thing in its path.
    Path(fn(&Things) -> String),
    /// It names a thing in its body.
    Body(fn(&Things) -> Value),
    /// It names a thing in its path, and needs a body besides.
    PathAndBody(fn(&Things) -> String, fn(&Things) -> Value),
    /// It lists, and must not list these.
    List,
}

/// One entry per route; see [`every_route_has_an_entry`].
fn case(method: &Method, path: &str) -> Option<Case> {
    Some(match (method.as_str(), path) {
        ("GET", "/healthz" | "/readyz" | "/metrics") => Case::Public,
        ("POST", "/v1/files" | "/v1/uploads" | "/v1/chat/completions") => Case::NamesNothing,
        ("GET", "/v1/files" | "/v1/batches" | "/v1/fine_tuning/jobs" | "/v1/models") => Case::List,
        ("POST", "/v1/batches") => Case::Body(|things| {
            json!({
                "input_file_id": things.file,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            })
        }),
        ("GET", "/v1/batches/{id}") => Case::Path(|things| format!("/v1/batches/{}", things.batch)),
        ("POST", "/v1/batches/{id}/cancel") => {
            Case::Path(|things| format!("/v1/batches/{}/cancel", things.batch))
        }
        ("GET" | "DELETE", "/v1/files/{id}") => {
            Case::Path(|things| format!("/v1/files/{}", things.file))
        }
        ("GET", "/v1/files/{id}/content") => {
            Case::Path(|things| format!("/v1/files/{}/content", things.file))
        }
        (
            "POST",
            "/v1/fine_tuning/jobs"
            | "/v1/fine_tuning/jobs/estimate"
            | "/v1/fine_tuning/jobs/preview",
        ) => Case::Body(|things| json!({"model": "tiny", "training_file": things.file})),
        ("POST", "/v1/uploads/{id}/parts") => {
            Case::Path(|things| format!("/v1/uploads/{}/parts", things.upload))
        }
        ("POST", "/v1/uploads/{id}/complete") => Case::PathAndBody(
            |things| format!("/v1/uploads/{}/complete", things.upload),
            |_| json!({"part_ids": [format!("part_{}", "0".repeat(32))]}),
        ),
        ("POST", "/v1/uploads/{id}/cancel") => {
            Case::Path(|things| format!("/v1/uploads/{}/cancel", things.upload))
        }
        ("GET", "/v1/fine_tuning/jobs/{id}") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}", things.job))
        }
        ("POST", "/v1/fine_tuning/jobs/{id}/cancel") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/cancel", things.job))
        }
        ("POST", "/v1/fine_tuning/jobs/{id}/pause") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/pause", things.job))
        }
        ("POST", "/v1/fine_tuning/jobs/{id}/resume") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/resume", things.job))
        }
        ("GET", "/v1/fine_tuning/jobs/{id}/events") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/events", things.job))
        }
        ("GET", "/v1/fine_tuning/jobs/{id}/metrics") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/metrics", things.job))
        }
        ("GET", "/v1/fine_tuning/jobs/{id}/checkpoints") => {
            Case::Path(|things| format!("/v1/fine_tuning/jobs/{}/checkpoints", things.job))
        }
        ("GET", "/v1/models/{*model}/download") => {
            Case::Path(|things| format!("/v1/models/{}/download", things.model))
        }
        ("GET", "/v1/models/{*model}/limits") => {
            Case::Path(|things| format!("/v1/models/{}/limits", things.model))
        }
        ("GET" | "DELETE", "/v1/models/{*model}") => {
            Case::Path(|things| format!("/v1/models/{}", things.model))
        }
        _ => return None,
    })
}

fn nobodys() -> Things {
    let zeros = "0".repeat(32);
    Things {
        file: format!("file-{zeros}"),
        job: format!("ftjob-{zeros}"),
        model: "ft:tiny:nobody::00000000".to_owned(),
        upload: format!("upload_{zeros}"),
        batch: format!("batch_{zeros}"),
    }
}

async fn of_alice(app: &TestApp) -> Things {
    let job = app.alice.job(json!({})).await;
    let done = app.finish_next_job().await;
    Things {
        file: job["training_file"].as_str().unwrap().to_owned(),
        job: done.id.to_string(),
        model: done.model_name,
        upload: app.alice.begin_upload(8).await,
        batch: app.alice.batch(&["ok"]).await,
    }
}

/// Status and body, without the thing's own name.
fn anonymous(answer: &Answer, things: &Things) -> (u16, String) {
    let body = redacted(&answer.json()).to_string();
    (answer.status, body.replace(&things.model, "[model]"))
}

async fn ask(client: &Client, method: &Method, path: &str, body: Option<Value>) -> Answer {
    let request = client.request(method.clone(), path);
    client
        .send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
}

#[test]
fn every_route_has_an_entry() {
    for route in ROUTES {
        assert!(
            case(&route.method, route.path).is_some(),
            "{} {}",
            route.method,
            route.path
        );
    }
}

#[tokio::test]
async fn another_tenants_things_are_like_missing_ones() {
    let app = TestApp::start().await;
    let (alices, nobodys) = (of_alice(&app).await, nobodys());
    for route in ROUTES {
        let method = &route.method;
        let (theirs, missing) = match case(method, route.path).expect("the test above") {
            Case::Public | Case::NamesNothing => continue,
            Case::List => {
                let list = app.bob.get(route.path).await.ok().to_string();
                for name in [&alices.file, &alices.job, &alices.model, &alices.batch] {
                    assert!(!list.contains(name.as_str()), "{}", route.path);
                }
                continue;
            }
            Case::Path(path) => (
                ask(&app.bob, method, &path(&alices), None).await,
                ask(&app.bob, method, &path(&nobodys), None).await,
            ),
            Case::PathAndBody(path, body) => (
                ask(&app.bob, method, &path(&alices), Some(body(&alices))).await,
                ask(&app.bob, method, &path(&nobodys), Some(body(&nobodys))).await,
            ),
            Case::Body(body) => (
                ask(&app.bob, method, route.path, Some(body(&alices))).await,
                ask(&app.bob, method, route.path, Some(body(&nobodys))).await,
            ),
        };
        assert_eq!(theirs.status, 404, "{method} {}", route.path);
        assert_eq!(
            anonymous(&theirs, &alices),
            anonymous(&missing, &nobodys),
            "{method} {}",
            route.path
        );
    }
    // None of that changed anything for the owner.
    app.alice
        .get(&format!("/v1/files/{}/content", alices.file))
        .await;
    assert_eq!(
        app.alice
            .get(&format!("/v1/files/{}", alices.file))
            .await
            .status,
        200
    );
    assert_eq!(
        app.alice
            .get(&format!("/v1/models/{}", alices.model))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_unknown() {
    let app = TestApp::start().await;
    let alices = of_alice(&app).await;
    for path in [
        format!("/v1/files?after={}", alices.file),
        format!("/v1/fine_tuning/jobs?after={}", alices.job),
        format!("/v1/batches?after={}", alices.batch),
    ] {
        assert_eq!(
            app.bob.get(&path).await.refusal().1.as_deref(),
            Some("after"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn no_tenant_route_answers_without_a_key() {
    let app = TestApp::start().await;
    for route in ROUTES {
        if matches!(case(&route.method, route.path), Some(Case::Public)) {
            continue;
        }
        let path = route.path.replace("{id}", "x").replace("{*model}", "x");
        assert_eq!(
            ask(&app.anonymous, &route.method, &path, None).await.status,
            401,
            "{path}"
        );
        assert_eq!(
            ask(&app.admin, &route.method, &path, None).await.status,
            403,
            "{path}"
        );
    }
    let refused = app.anonymous.upload(Form::of("fine-tune", "{}")).await;
    assert_eq!(refused.status, 401);
}
