//! What queries name: cursors and filters. Which parameters those are is read in the OpenAPI document.

use api::router::ROUTES;
use reqwest::Method;
use serde_json::Value;

use super::anonymous;
use super::things::{Things, named};
use crate::support::TestApp;

/// Headers name things, too, and have tests of their own.
const TESTED_ELSEWHERE: [&str; 2] = [
    // In `idempotency.rs`: a key is its project's.
    "Idempotency-Key",
    // In `job_streams.rs`: an event that is not the job's.
    "Last-Event-ID",
];

/// The list's own element, whose id is its cursor. None: rows of the log are numbered by organization, and metrics by the
/// steps of their job, and a number says nothing of others.
fn cursor<'a>(path: &str, things: &'a Things) -> Option<&'a str> {
    Some(match path.rsplit('/').next().unwrap_or(path) {
        "files" => &things.file,
        "jobs" => &things.job,
        "events" => &things.event,
        "checkpoints" => &things.checkpoint,
        "batches" => &things.batch,
        "webhook_endpoints" => &things.endpoint,
        "projects" => &things.project,
        "users" => &things.user,
        "admin_api_keys" => &things.admin_key,
        "api_keys" => &things.key,
        "service_accounts" => &things.service_account,
        "permissions" => &things.permission,
        "audit_logs" | "metrics" => return None,
        list => panic!("what are the cursors of the list `{list}`?"),
    })
}

/// Every parameter of a query that names a thing, with the path of its route.
fn parameters() -> Vec<(&'static str, String)> {
    let document = serde_json::to_value(api::openapi::document()).unwrap();
    let mut found = Vec::new();
    for route in ROUTES.iter().filter(|route| route.method == Method::GET) {
        let parameters = &document["paths"][route.path]["get"]["parameters"];
        for parameter in parameters.as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let lower = name.trim_end_matches("[]").to_lowercase();
            let names_a_thing = ["id", "ids", "key", "file", "model", "after"]
                .iter()
                .any(|word| lower.rsplit(['_', '-']).next() == Some(word));
            if !names_a_thing || parameter["in"] == "path" {
                continue;
            }
            if parameter["in"] == "header" {
                assert!(TESTED_ELSEWHERE.contains(&name), "{name}");
                continue;
            }
            found.push((route.path, name.to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn what_a_query_names_of_anothers_is_like_a_missing_thing() {
    let app = TestApp::start().await;
    let (alices, bobs) = (Things::of_alice(&app).await, Things::of_bob(&app).await);
    let nobodys = Things::nobodys();
    let parameters = parameters();
    assert!(parameters.len() > 12, "{parameters:?}");
    for (path, parameter) in parameters {
        let is_cursor = parameter == "after";
        let thing = |things: &Things| {
            if is_cursor {
                return cursor(path, things).map(str::to_owned);
            }
            let thing = things.called(parameter.trim_end_matches("[]"));
            Some(
                thing
                    .unwrap_or_else(|| panic!("{parameter} of {path}"))
                    .to_owned(),
            )
        };
        let client = if path.starts_with("/v1/organization/") || path.contains("/permissions") {
            &app.bobs_admin
        } else {
            &app.bob
        };
        let asked = async |things: &Things| {
            let query = format!("{}?{parameter}={}", named(path, &bobs), thing(things)?);
            Some(client.get(&query).await)
        };
        let (Some(theirs), Some(missing), Some(own)) = (
            asked(&alices).await,
            asked(&nobodys).await,
            asked(&bobs).await,
        ) else {
            continue;
        };
        let place = format!("`{parameter}` of {path}");
        let seen = anonymous(&theirs, &alices);
        assert_eq!(seen, anonymous(&missing, &nobodys), "{place}");
        own.ok();
        if is_cursor {
            assert_eq!(theirs.refusal().1.as_deref(), Some("after"), "{place}");
        } else {
            assert_eq!(theirs.ok()["data"], Value::Array(Vec::new()), "{place}");
            assert_ne!(own.json()["data"], Value::Array(Vec::new()), "{place}");
        }
    }
}
