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
    Path,
    /// It names a thing in its body.
    Body(fn(&Things) -> Value),
    /// It lists, and must not list these.
    List,
    /// It belongs to the organization: an administrator's, who names a thing in its path.
    OrgPath,
    /// It belongs to the organization and lists.
    OrgList,
    /// It belongs to the organization and makes something new.
    OrgNamesNothing,
}

/// A body that every route of the organization can read.
fn any_body() -> Value {
    json!({"name": "x", "role": "owner", "email": "x@example.com", "project_ids": ["proj_x"]})
}

/// What a route that names a thing in its path must be sent besides.
fn body(method: &Method, path: &str) -> Option<Value> {
    if method != Method::POST {
        return None;
    }
    match path {
        "/v1/uploads/{id}/complete" => {
            Some(json!({"part_ids": [format!("part_{}", "0".repeat(32))]}))
        }
        "/v1/webhook_endpoints/{id}" => Some(json!({"name": "mine"})),
        "/v1/webhook_endpoints/{id}/rotate_secret" => Some(json!({})),
        "/v1/webhook_endpoints/{id}/test" => Some(json!({"event_type": "batch.failed"})),
        _ => None,
    }
}

/// One entry per route; see [`every_route_has_an_entry`].
fn case(method: &Method, path: &str) -> Option<Case> {
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
        (
            "POST",
            "/v1/fine_tuning/jobs"
            | "/v1/fine_tuning/jobs/estimate"
            | "/v1/fine_tuning/jobs/preview",
        ) => Case::Body(|things| json!({"model": "tiny", "training_file": things.file})),
        _ if path.starts_with("/v1/organization/")
            || path.starts_with("/v1/fine_tuning/checkpoints/") =>
        {
            return org_case(method, path);
        }
        // A place that names something new must be given a thing of its own.
        _ => {
            (path.contains('{') && !named(path, &nobodys()).contains('{')).then_some(Case::Path)?
        }
    })
}

/// The same for the routes of organizations.
fn org_case(method: &Method, path: &str) -> Option<Case> {
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
        _ => (path.contains('{') && !named(path, &nobodys()).contains('{'))
            .then_some(Case::OrgPath)?,
    })
}

/// The pattern with these things in its places.
fn named(pattern: &str, things: &Things) -> String {
    let key = if pattern.contains("admin_api_keys") {
        &things.admin_key
    } else {
        &things.key
    };
    let id = match pattern.split('/').nth(2) {
        Some("files") => &things.file,
        Some("uploads") => &things.upload,
        Some("batches") => &things.batch,
        Some("webhook_endpoints") => &things.endpoint,
        _ => &things.job,
    };
    pattern
        .replace("{id}", id)
        .replace("{*model}", &things.model)
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

/// What is answered when somebody else asks a route for a thing of Alice's, and for one that does not exist. None for a
/// route that can name none.
async fn answers(
    app: &TestApp,
    (method, path): (&Method, &str),
    alices: &Things,
    nobodys: &Things,
) -> Option<[Answer; 2]> {
    let (client, body) = match case(method, path).expect("the test above") {
        Case::Public | Case::NamesNothing | Case::OrgNamesNothing => return None,
        Case::List => {
            does_not_list(
                &app.bob,
                path,
                &[
                    &alices.file,
                    &alices.job,
                    &alices.model,
                    &alices.batch,
                    &alices.endpoint,
                ],
            )
            .await;
            return None;
        }
        Case::OrgList => {
            let theirs = [&alices.project, &alices.user, &alices.admin_key];
            does_not_list(&app.bobs_admin, path, &theirs).await;
            return None;
        }
        Case::Body(body) => {
            let asked = |things| ask(&app.bob, method, path.to_owned(), Some(body(things)));
            return Some([asked(alices).await, asked(nobodys).await]);
        }
        Case::Path => (&app.bob, body(method, path)),
        Case::OrgPath => {
            let body = (method == Method::POST).then(any_body);
            (&app.bobs_admin, body)
        }
    };
    let asked = |things| ask(client, method, named(path, things), body.clone());
    Some([asked(alices).await, asked(nobodys).await])
}

async fn does_not_list(client: &Client, path: &str, names: &[&String]) {
    let list = client.get(path).await.ok().to_string();
    for name in names {
        assert!(!list.contains(name.as_str()), "{path}");
    }
}

#[tokio::test]
async fn another_tenants_things_are_like_missing_ones() {
    let app = TestApp::start().await;
    let (alices, nobodys) = (of_alice(&app).await, nobodys());
    for route in ROUTES {
        let asked = (&route.method, route.path);
        let Some([theirs, missing]) = answers(&app, asked, &alices, &nobodys).await else {
            continue;
        };
        assert_eq!(theirs.status, 404, "{asked:?}");
        let seen = anonymous(&theirs, &alices);
        assert_eq!(seen, anonymous(&missing, &nobodys), "{asked:?}");
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
        if let Some(Case::OrgPath) = case(&route.method, route.path) {
            let path = named(route.path, &things);
            ask(&app.bobs_admin, &route.method, path, Some(any_body())).await;
        }
    }
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        if let Some(Case::OrgPath) = case(&route.method, route.path) {
            app.admin.get(&named(route.path, &things)).await.ok();
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
            Case::OrgPath | Case::OrgList | Case::OrgNamesNothing => &app.alice,
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
pub(crate) fn filled(pattern: &str) -> String {
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
