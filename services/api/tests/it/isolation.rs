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
    project: String,
    key: String,
    admin_key: String,
    service_account: String,
    user: String,
    permission: String,
    endpoint: String,
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
    /// It belongs to the organization: an administrator's, who names a thing in its path.
    OrgPath(&'static str),
    /// It belongs to the organization and lists.
    OrgList,
    /// It belongs to the organization and makes something new.
    OrgNamesNothing,
}

/// A body that every route of the organization can read.
fn any_body() -> Value {
    json!({"name": "x", "role": "owner", "email": "x@example.com", "project_ids": ["proj_x"]})
}

/// One entry per route; see [`every_route_has_an_entry`].
fn case(method: &Method, path: &'static str) -> Option<Case> {
    Some(match (method.as_str(), path) {
        ("GET", path) if !path.starts_with("/v1/") => Case::Public,
        (
            "POST",
            "/v1/files"
            | "/v1/uploads"
            | "/v1/chat/completions"
            | "/v1/fine_tuning/alpha/graders/run"
            | "/v1/fine_tuning/alpha/graders/validate"
            | "/v1/webhook_endpoints",
        )
        | ("GET", "/v1/webhook_event_types") => Case::NamesNothing,
        (
            "GET",
            "/v1/files"
            | "/v1/batches"
            | "/v1/fine_tuning/jobs"
            | "/v1/models"
            | "/v1/webhook_endpoints",
        ) => Case::List,
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
        ("GET" | "DELETE", "/v1/webhook_endpoints/{id}") => {
            Case::Path(|things| format!("/v1/webhook_endpoints/{}", things.endpoint))
        }
        ("POST", "/v1/webhook_endpoints/{id}") => Case::PathAndBody(
            |things| format!("/v1/webhook_endpoints/{}", things.endpoint),
            |_| json!({"name": "mine"}),
        ),
        ("POST", "/v1/webhook_endpoints/{id}/rotate_secret") => Case::PathAndBody(
            |things| format!("/v1/webhook_endpoints/{}/rotate_secret", things.endpoint),
            |_| json!({}),
        ),
        ("POST", "/v1/webhook_endpoints/{id}/test") => Case::PathAndBody(
            |things| format!("/v1/webhook_endpoints/{}/test", things.endpoint),
            |_| json!({"event_type": "batch.failed"}),
        ),
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
        _ => return org_case(method, path),
    })
}

/// The same for the routes of organizations.
fn org_case(method: &Method, path: &'static str) -> Option<Case> {
    Some(match (method.as_str(), path) {
        (
            "GET",
            "/v1/organization/projects"
            | "/v1/organization/users"
            | "/v1/organization/admin_api_keys"
            | "/v1/organization/audit_logs",
        ) => Case::OrgList,
        // No list but lines, which the test of the log itself looks through.
        ("GET", "/v1/organization/audit_logs/export") => Case::OrgNamesNothing,
        ("POST", "/v1/organization/projects" | "/v1/organization/admin_api_keys") => {
            Case::OrgNamesNothing
        }
        _ if path.starts_with("/v1/organization/projects/{project_id}")
            || path.starts_with("/v1/organization/users/{user_id}")
            || path.starts_with("/v1/organization/admin_api_keys/{key_id}")
            || path.starts_with("/v1/fine_tuning/checkpoints/{model}/permissions") =>
        {
            // A place that names something new must be given a thing of its own.
            let rest = named(path, &nobodys());
            (!rest.contains('{')).then_some(Case::OrgPath(path))?
        }
        _ => return None,
    })
}

/// The pattern with these things in its places.
fn named(pattern: &str, things: &Things) -> String {
    let key = if pattern.contains("admin_api_keys") {
        &things.admin_key
    } else {
        &things.key
    };
    pattern
        .replace("{project_id}", &things.project)
        .replace("{key_id}", key)
        .replace("{service_account_id}", &things.service_account)
        .replace("{user_id}", &things.user)
        // Every project has this one.
        .replace("{rate_limit_id}", "rl-project")
        .replace("{model}", &things.model)
        .replace("{permission_id}", &things.permission)
}

fn nobodys() -> Things {
    let zeros = "0".repeat(32);
    Things {
        file: format!("file-{zeros}"),
        job: format!("ftjob-{zeros}"),
        model: "ft:tiny:nobody::00000000".to_owned(),
        upload: format!("upload_{zeros}"),
        batch: format!("batch_{zeros}"),
        project: format!("proj_{zeros}"),
        key: format!("key_{zeros}"),
        admin_key: format!("key_{zeros}"),
        service_account: format!("svc_acct_{zeros}"),
        user: format!("user-{zeros}"),
        permission: format!("cp_{zeros}"),
        endpoint: format!("we_{zeros}"),
    }
}

async fn of_alice(app: &TestApp) -> Things {
    let job = app.alice.job(json!({})).await;
    let done = app.finish_next_job().await;
    let project = app.alice_project.to_string();
    let made = |path: String, body: Value| async move {
        let answer = app.admin.post(&path, &body).await.ok();
        answer["id"].as_str().unwrap().to_owned()
    };
    let at = format!("/v1/organization/projects/{project}");
    let named = json!({"name": "alices"});
    let member = json!({"email": "alice@example.com", "role": "member"});
    let permissions = format!(
        "/v1/fine_tuning/checkpoints/{}/permissions",
        done.model_name
    );
    let permitted = app
        .admin
        .post(&permissions, &json!({"project_ids": [project]}))
        .await;
    let permission = permitted.ok()["first_id"].as_str().unwrap().to_owned();
    let hook =
        json!({"name": "hers", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]});
    let endpoint = app.alice.post("/v1/webhook_endpoints", &hook).await.ok();
    Things {
        file: job["training_file"].as_str().unwrap().to_owned(),
        job: done.id.to_string(),
        model: done.model_name,
        upload: app.alice.begin_upload(8).await,
        batch: app.alice.batch(&["ok"]).await,
        key: made(format!("{at}/api_keys"), named.clone()).await,
        service_account: made(format!("{at}/service_accounts"), named.clone()).await,
        user: made(format!("{at}/users"), member).await,
        admin_key: made("/v1/organization/admin_api_keys".to_owned(), named).await,
        project,
        permission,
        endpoint: endpoint["id"].as_str().unwrap().to_owned(),
    }
}

/// Status and body, without the thing's own name.
fn anonymous(answer: &Answer, things: &Things) -> (u16, String) {
    let body = redacted(&answer.json()).to_string();
    (answer.status, body.replace(&things.model, "[model]"))
}

async fn ask(client: &Client, method: &Method, path: String, body: Option<Value>) -> Answer {
    let request = client.request(method.clone(), &path);
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
            Case::Public | Case::NamesNothing | Case::OrgNamesNothing => continue,
            Case::OrgList => {
                let list = app.bobs_admin.get(route.path).await.ok().to_string();
                for id in [&alices.project, &alices.user, &alices.admin_key] {
                    assert!(!list.contains(id.as_str()), "{}", route.path);
                }
                continue;
            }
            Case::OrgPath(path) => {
                let body = (method == Method::POST).then(any_body);
                let asked =
                    |things| ask(&app.bobs_admin, method, named(path, things), body.clone());
                (asked(&alices).await, asked(&nobodys).await)
            }
            Case::List => {
                let list = app.bob.get(route.path).await.ok().to_string();
                let theirs = [
                    &alices.file,
                    &alices.job,
                    &alices.model,
                    &alices.batch,
                    &alices.endpoint,
                ];
                for name in theirs {
                    assert!(!list.contains(name.as_str()), "{}", route.path);
                }
                continue;
            }
            Case::Path(path) => (
                ask(&app.bob, method, path(&alices), None).await,
                ask(&app.bob, method, path(&nobodys), None).await,
            ),
            Case::PathAndBody(path, body) => (
                ask(&app.bob, method, path(&alices), Some(body(&alices))).await,
                ask(&app.bob, method, path(&nobodys), Some(body(&nobodys))).await,
            ),
            Case::Body(body) => (
                ask(&app.bob, method, route.path.to_owned(), Some(body(&alices))).await,
                ask(
                    &app.bob,
                    method,
                    route.path.to_owned(),
                    Some(body(&nobodys)),
                )
                .await,
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
async fn what_an_administrator_of_others_asked_for_is_untouched() {
    let app = TestApp::start().await;
    let things = of_alice(&app).await;
    for route in ROUTES {
        if let Some(Case::OrgPath(path)) = case(&route.method, route.path) {
            ask(
                &app.bobs_admin,
                &route.method,
                named(path, &things),
                Some(any_body()),
            )
            .await;
        }
    }
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        if let Some(Case::OrgPath(path)) = case(&route.method, route.path) {
            app.admin.get(&named(path, &things)).await.ok();
        }
    }
    assert_eq!(app.alice.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_cursor_of_another_tenant_is_unknown() {
    let app = TestApp::start().await;
    let alices = of_alice(&app).await;
    for path in [
        format!("/v1/files?after={}", alices.file),
        format!("/v1/fine_tuning/jobs?after={}", alices.job),
        format!("/v1/batches?after={}", alices.batch),
        format!("/v1/webhook_endpoints?after={}", alices.endpoint),
    ] {
        assert_eq!(
            app.bob.get(&path).await.refusal().1.as_deref(),
            Some("after"),
            "{path}"
        );
    }
    for path in [
        format!("/v1/organization/projects?after={}", alices.project),
        format!("/v1/organization/users?after={}", alices.user),
        format!("/v1/organization/admin_api_keys?after={}", alices.admin_key),
        format!(
            "/v1/organization/projects/{}/api_keys?after={}",
            app.bob_project, alices.key
        ),
    ] {
        assert_eq!(
            app.bobs_admin.get(&path).await.refusal().1.as_deref(),
            Some("after"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn no_route_answers_without_the_right_kind_of_key() {
    let app = TestApp::start().await;
    for route in ROUTES {
        let wrong = match case(&route.method, route.path).expect("the test above") {
            Case::Public => continue,
            Case::OrgPath(_) | Case::OrgList | Case::OrgNamesNothing => &app.alice,
            _ => &app.admin,
        };
        let path = filled(route.path);
        for (client, status) in [(&app.anonymous, 401), (wrong, 403)] {
            let answer = ask(client, &route.method, path.clone(), None).await;
            assert_eq!(answer.status, status, "{} {path}", route.method);
        }
    }
    let refused = app.anonymous.upload(Form::of("fine-tune", "{}")).await;
    assert_eq!(refused.status, 401);
}

/// The pattern with something in each of its places.
fn filled(pattern: &str) -> String {
    let segments = pattern.split('/');
    let segments: Vec<_> = segments
        .map(|segment| {
            if segment.starts_with('{') {
                "x"
            } else {
                segment
            }
        })
        .collect();
    segments.join("/")
}
