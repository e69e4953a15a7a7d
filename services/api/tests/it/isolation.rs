//! No route shows one tenant what is another's: the answer is the one for what does not exist.

mod bodies;
mod queries;
mod things;

use api::router::ROUTES;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Form, TestApp, redacted};
use things::{Things, named, places, thing_at};

/// What a route is asked in the test.
enum Case {
    /// It reads no tenant's data.
    Public,
    /// Its path names nothing. What its body names is asked in [`bodies`].
    NamesNothing,
    /// It names a thing in its path.
    Path,
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
            | "/v1/batches"
            | "/v1/chat/completions"
            | "/v1/fine_tuning/jobs"
            | "/v1/fine_tuning/jobs/estimate"
            | "/v1/fine_tuning/jobs/preview"
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
        _ if path.starts_with("/v1/organization/")
            || path.starts_with("/v1/fine_tuning/checkpoints/") =>
        {
            return org_case(method, path);
        }
        // A place that names something new must be given a thing of its own.
        _ => (path.contains('{') && !named(path, &Things::nobodys()).contains('{'))
            .then_some(Case::Path)?,
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
        _ => (path.contains('{') && !named(path, &Things::nobodys()).contains('{'))
            .then_some(Case::OrgPath)?,
    })
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
    let (alices, nobodys) = (Things::of_alice(&app).await, Things::nobodys());
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
    let things = Things::of_alice(&app).await;
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

/// Of a path that names two things, such as a project and a key, each in turn is somebody else's.
#[tokio::test]
async fn anothers_thing_beside_ones_own_is_like_a_missing_one() {
    let app = TestApp::start().await;
    let (alices, bobs) = (Things::of_alice(&app).await, Things::of_bob(&app).await);
    let nobodys = Things::nobodys();
    let mut asked = 0;
    for route in ROUTES {
        let places = places(route.path);
        // Every project has the same rate limit.
        for place in places.iter().filter(|place| **place != "{rate_limit_id}") {
            if places.len() < 2 {
                continue;
            }
            let with = |others: &Things| {
                let thing = thing_at(others, route.path, place).expect("a test above");
                let path = named(&route.path.replace(place, thing), &bobs);
                let body = (route.method == Method::POST).then(any_body);
                ask(&app.bobs_admin, &route.method, path, body)
            };
            let (theirs, missing) = (with(&alices).await, with(&nobodys).await);
            let place = (&route.method, route.path, place);
            assert_eq!(theirs.status, 404, "{place:?}");
            let seen = anonymous(&theirs, &alices);
            assert_eq!(seen, anonymous(&missing, &nobodys), "{place:?}");
            asked += 1;
        }
    }
    assert!(asked > 15, "only {asked} places were asked");
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
