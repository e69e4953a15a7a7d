//! The organization's endpoints, as its administrator uses them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{TestApp, redacted};

const PROJECTS: &str = "/v1/organization/projects";

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_project_is_made_listed_and_renamed() {
    let app = TestApp::start().await;
    let made = app
        .admin
        .post(PROJECTS, &json!({"name": "Legal"}))
        .await
        .ok();
    insta::assert_json_snapshot!(redacted(&made), @r#"
    {
      "archived_at": null,
      "created_at": 1795521600,
      "id": "[project]",
      "name": "Legal",
      "object": "organization.project",
      "status": "active"
    }
    "#);
    // Names may repeat.
    let again = app
        .admin
        .post(PROJECTS, &json!({"name": "Legal"}))
        .await
        .ok();
    assert_ne!(id(&made), id(&again));
    let path = format!("{PROJECTS}/{}", id(&made));
    let renamed = app.admin.post(&path, &json!({"name": "Tax"})).await.ok();
    assert_eq!(renamed["name"], "Tax");
    assert_eq!(app.admin.get(&path).await.ok(), renamed);

    let first = app.admin.get(&format!("{PROJECTS}?limit=2")).await.ok();
    assert_eq!(
        (first["has_more"].clone(), first["first_id"].clone()),
        (json!(true), json!(id(&again)))
    );
    let after = first["last_id"].as_str().unwrap();
    let second = app
        .admin
        .get(&format!("{PROJECTS}?limit=2&after={after}"))
        .await
        .ok();
    assert_eq!(second["has_more"], false);
    assert_eq!(second["data"][0]["id"], app.alice_project.to_string());
}

/// The ids of a whole list, read two at a time.
async fn paged(app: &TestApp, path: &str) -> Vec<String> {
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page = app.admin.get(&format!("{path}?limit=2{after}")).await.ok();
        let data: Vec<String> = page["data"].as_array().unwrap().iter().map(id).collect();
        assert!((1..=2).contains(&data.len()), "{page}");
        assert_eq!(page["object"], "list");
        assert_eq!(page["first_id"], data[0]);
        assert_eq!(page["last_id"], data[data.len() - 1]);
        after = format!("&after={}", data[data.len() - 1]);
        ids.extend(data);
        if page["has_more"] == false {
            return ids;
        }
    }
}

#[tokio::test]
async fn a_projects_users_and_service_accounts_come_in_pages() {
    let app = TestApp::start().await;
    let create = async |path: &str, body: Value| {
        app.clock.advance(Duration::from_secs(1));
        id(&app.admin.post(path, &body).await.ok())
    };
    let [first, second] = [
        create(PROJECTS, json!({"name": "Legal"})).await,
        create(PROJECTS, json!({"name": "Tax"})).await,
    ];
    let users = format!("{PROJECTS}/{first}/users");
    let empty = app.admin.get(&users).await.ok();
    let nothing =
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false});
    assert_eq!(empty, nothing);
    let mut added = Vec::new();
    for n in 0..5 {
        let body = json!({"email": format!("{n}@example.com"), "role": "member"});
        added.push(create(&users, body).await);
    }
    added.reverse();
    assert_eq!(paged(&app, &users).await, added);
    // In the order in which they came to this project.
    let users = format!("{PROJECTS}/{second}/users");
    for user in &added {
        create(&users, json!({"user_id": user, "role": "viewer"})).await;
    }
    added.reverse();
    assert_eq!(paged(&app, &users).await, added);
    let stranger = format!("{PROJECTS}/{}/users?after={}", app.alice_project, added[0]);
    let refused = app.admin.get(&stranger).await.refusal();
    assert_eq!((refused.0, refused.1.as_deref()), (400, Some("after")));

    let accounts = format!("{PROJECTS}/{first}/service_accounts");
    assert_eq!(app.admin.get(&accounts).await.ok(), nothing);
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(create(&accounts, json!({"name": format!("robot {n}")})).await);
    }
    made.reverse();
    assert_eq!(paged(&app, &accounts).await, made);
}

#[tokio::test]
async fn a_service_account_works_until_it_is_deleted() {
    let app = TestApp::start().await;
    let path = format!("{PROJECTS}/{}/service_accounts", app.alice_project);
    let mut made = app.admin.post(&path, &json!({"name": "ci"})).await.ok();
    let secret = made["api_key"]["value"].as_str().unwrap().to_owned();
    made["api_key"]["value"] = json!("[secret]");
    insta::assert_json_snapshot!(redacted(&made), @r#"
    {
      "api_key": {
        "created_at": 1795521600,
        "expires_at": null,
        "id": "[key]",
        "name": "Secret Key",
        "object": "organization.project.service_account.api_key",
        "value": "[secret]"
      },
      "created_at": 1795521600,
      "id": "[service account]",
      "name": "ci",
      "object": "organization.project.service_account",
      "role": "member"
    }
    "#);
    let ci = app.anonymous.with_key(&secret);
    ci.training_file().await;
    let keys = format!("{PROJECTS}/{}/api_keys", app.alice_project);
    let listed = app.admin.get(&keys).await.ok();
    assert_eq!(listed["data"][0]["owner"]["service_account_id"], made["id"]);
    let own = format!("{path}/{}", id(&made));
    assert_eq!(app.admin.get(&own).await.ok()["name"], "ci");
    app.admin.delete(&own).await.ok();
    assert_eq!(ci.get("/v1/files").await.status, 401);
    assert_eq!(app.admin.get(&own).await.status, 404);
    assert_eq!(app.admin.get(&path).await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_service_account_gets_another_key() {
    let app = TestApp::start().await;
    let accounts = format!("{PROJECTS}/{}/service_accounts", app.alice_project);
    let keys = format!("{PROJECTS}/{}/api_keys", app.alice_project);
    let body = json!({"name": "later", "role": "viewer", "create_service_account_only": true});
    let account = app.admin.post(&accounts, &body).await.ok();
    let body = json!({"name": "k", "service_account_id": account["id"], "expires_in_seconds": 60});
    let key = app.admin.post(&keys, &body).await.ok();
    assert_eq!(
        key["owner"],
        json!({"type": "service_account", "service_account_id": account["id"]})
    );
    let client = app.anonymous.with_key(key["value"].as_str().unwrap());
    client.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(client.delete("/v1/files/file-1").await.status, 403);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(client.get("/v1/files").await.status, 401);
    let next = json!({"name": "k", "service_account_id": account["id"], "scopes": ["jobs"]});
    let made = app.admin.post(&keys, &next).await.ok();
    let client = app.anonymous.with_key(made["value"].as_str().unwrap());
    client.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(client.get("/v1/files").await.status, 403);

    let other = format!("{PROJECTS}/{}/api_keys", app.bob_project);
    let refused = app.bobs_admin.post(&other, &next).await.refusal();
    let missing = (404, Some("service_account_id"));
    assert_eq!((refused.0, refused.1.as_deref()), missing);
    for (param, status, field, value) in [
        ("role", 400, "role", json!("owner")),
        ("service_account_id", 404, "service_account_id", json!("x")),
        ("service_account_id", 400, "service_account_id", json!(7)),
    ] {
        let mut body = next.clone();
        body[field] = value;
        let refused = app.admin.post(&keys, &body).await.refusal();
        assert_eq!((refused.0, refused.1.as_deref()), (status, Some(param)));
    }
    app.admin
        .delete(&format!("{accounts}/{}", id(&account)))
        .await
        .ok();
    assert_eq!(client.get("/v1/fine_tuning/jobs").await.status, 401);
    let refused = app.admin.post(&keys, &next).await.refusal();
    assert_eq!((refused.0, refused.1.as_deref()), missing);
}

#[tokio::test]
async fn a_viewing_service_account_only_reads() {
    let app = TestApp::start().await;
    let path = format!("{PROJECTS}/{}/service_accounts", app.alice_project);
    let made = app
        .admin
        .post(&path, &json!({"name": "board", "role": "viewer"}))
        .await
        .ok();
    let board = app
        .anonymous
        .with_key(made["api_key"]["value"].as_str().unwrap());
    board.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(board.delete("/v1/models/ft:x").await.status, 403);
    let body = json!({"name": "later", "create_service_account_only": true});
    assert_eq!(
        app.admin.post(&path, &body).await.ok()["api_key"],
        Value::Null
    );
}

#[tokio::test]
async fn users_are_added_to_projects_and_removed_from_everything() {
    let app = TestApp::start().await;
    let members = format!("{PROJECTS}/{}/users", app.alice_project);
    let ada = json!({"email": "Ada@Example.com", "role": "viewer"});
    let made = app.admin.post(&members, &ada).await.ok();
    insta::assert_json_snapshot!(redacted(&made), @r#"
    {
      "added_at": 1795521600,
      "email": "ada@example.com",
      "id": "[user]",
      "name": "ada",
      "object": "organization.project.user",
      "role": "viewer"
    }
    "#);
    let in_project = format!("{members}/{}", id(&made));
    let changed = app
        .admin
        .post(&in_project, &json!({"role": "owner"}))
        .await
        .ok();
    assert_eq!(changed["role"], "owner");
    assert_eq!(app.admin.get(&members).await.ok()["data"], json!([changed]));

    let user = format!("/v1/organization/users/{}", id(&made));
    assert_eq!(
        app.admin.get(&user).await.ok()["object"],
        "organization.user"
    );
    let owner = app.admin.post(&user, &json!({"role": "owner"})).await.ok();
    assert_eq!(owner["role"], "owner");
    let refusal = app
        .admin
        .post(&user, &json!({"role": "viewer"}))
        .await
        .refusal();
    assert_eq!((refusal.0, refusal.1.as_deref()), (400, Some("role")));

    app.admin.delete(&in_project).await.ok();
    assert_eq!(app.admin.get(&in_project).await.status, 404);
    let by_id = json!({"user_id": id(&made), "role": "member"});
    app.admin.post(&members, &by_id).await.ok();
    app.admin.delete(&user).await.ok();
    assert_eq!(app.admin.get(&user).await.status, 404);
    assert_eq!(app.admin.get(&members).await.ok()["data"], json!([]));
    assert_eq!(
        app.admin
            .post(&members, &by_id)
            .await
            .refusal()
            .1
            .as_deref(),
        Some("user_id")
    );
}

#[tokio::test]
async fn an_admin_key_is_shown_once_and_revokes_itself() {
    let app = TestApp::start().await;
    let path = "/v1/organization/admin_api_keys";
    let made = app.admin.post(path, &json!({"name": "ops"})).await.ok();
    let ops = app.anonymous.with_key(made["value"].as_str().unwrap());
    let own = format!("{path}/{}", id(&made));
    let shown = ops.get(&own).await.ok();
    assert_eq!(shown["object"], "organization.admin_api_key");
    assert_eq!(shown.get("value"), None);
    assert_eq!(
        ops.get(path).await.ok()["data"].as_array().unwrap().len(),
        2
    );
    ops.delete(&own).await.ok();
    assert_eq!(ops.get(path).await.status, 401);
}
