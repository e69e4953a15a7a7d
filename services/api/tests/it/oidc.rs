//! Tokens of an identity provider: which are believed, and what they open.

use std::time::Duration;

use api::auth::oidc::{Grant, OidcConfig};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::{ProjectId, Role};
use serde_json::{Value, json};
use store::audit;

use crate::job_streams::Stream;
use crate::support::{Client, Form, Issuer, START, SigningKey, TestApp};

fn settings(issuer: &Issuer, groups: &[(&str, ProjectId, Role)]) -> OidcConfig {
    let groups = groups.iter().map(|&(name, project, role)| {
        let grant = Grant { project, role };
        (name.to_owned(), grant)
    });
    OidcConfig {
        issuer: issuer.url.clone(),
        audiences: vec!["attune".to_owned()],
        groups: groups.collect(),
        groups_claim: "groups".to_owned(),
        create_users: true,
    }
}

/// An app in which the group `ml` is a member of alice's project.
async fn app(issuer: &Issuer) -> TestApp {
    TestApp::start_with_oidc(|[alice, _]| {
        settings(issuer, &[("ml", alice.project_id, Role::Member)])
    })
    .await
}

/// What the issuer says of Ada, who is in the group `ml`, for five minutes.
fn claims(issuer: &Issuer) -> Value {
    let now = START.unix_timestamp();
    json!({
        "iss": issuer.url, "aud": "attune", "sub": "ada-1", "exp": now + 300, "nbf": now,
        "email": "Ada@example.com", "email_verified": true, "name": "Ada", "groups": ["ml"],
    })
}

fn with(mut claims: Value, field: &str, value: Value) -> Value {
    claims[field] = value;
    claims
}

fn holder(app: &TestApp, token: &str) -> Client {
    app.anonymous.with_key(token)
}

async fn status(app: &TestApp, token: &str) -> u16 {
    holder(app, token).get("/v1/files").await.status
}

#[tokio::test]
async fn a_token_of_a_group_opens_its_project_and_makes_a_user() {
    let (rsa, ec) = (SigningKey::rsa("r1"), SigningKey::ec("e1"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let app = app(&issuer).await;
    for key in [&rsa, &ec] {
        let ada = holder(&app, &key.sign(&claims(&issuer)));
        ada.upload(Form::of("fine-tune", "{}")).await.ok();
    }
    assert_eq!(
        app.alice.get("/v1/files").await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let users = app.admin.get("/v1/organization/users").await.ok();
    assert_eq!(users["data"].as_array().unwrap().len(), 1);
    assert_eq!(users["data"][0]["email"], "ada@example.com");
    assert_eq!(users["data"][0]["role"], "reader");
    assert_eq!(issuer.n_fetches(), 1);
}

#[tokio::test]
async fn who_becomes_a_user_by_signing_in_is_written_down() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let members = format!("/v1/organization/projects/{}/users", app.alice_project);
    let eve = json!({"email": "eve@example.com", "role": "viewer"});
    let eve = app.admin.post(&members, &eve).await.ok();
    let mut eves = with(claims(&issuer), "email", json!("eve@example.com"));
    eves["sub"] = json!("eve-1");
    for claims in [eves, claims(&issuer)] {
        for _ in 0..2 {
            assert_eq!(status(&app, &key.sign(&claims)).await, 200);
        }
    }
    let log = app.admin.get("/v1/organization/audit_logs").await.ok();
    let rows = log["data"].as_array().unwrap();
    let types: Vec<_> = rows.iter().map(|row| row["type"].clone()).collect();
    assert_eq!(types, ["user.added", "user.linked", "project.user.added"]);
    let details = json!({"role": "reader", "issuer": issuer.url, "subject": "ada-1"});
    assert_eq!(rows[0]["details"], details);
    assert_eq!(rows[0]["actor"]["type"], "user");
    assert_eq!(rows[0]["actor"]["name"], "ada@example.com");
    assert_eq!(rows[0]["actor"]["ip_address"], "127.0.0.1");
    assert_eq!(rows[1]["resource"]["id"], eve["id"]);
    assert_eq!(rows[1]["details"]["subject"], "eve-1");
    let store = app.database.store();
    let verified = audit::verify(&store, app.alice_org, None).await.unwrap();
    assert_eq!(verified.unwrap().0, 3);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_a_401() {
    let (key, other) = (SigningKey::rsa("r1"), SigningKey::rsa("r1"));
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let good = claims(&issuer);
    let now = START.unix_timestamp();
    let mut no_expiry = good.clone();
    no_expiry.as_object_mut().unwrap().remove("exp");
    let mut tampered = key.sign(&good);
    tampered.truncate(tampered.len() - 4);
    for (what, token) in [
        (
            "another audience",
            key.sign(&with(good.clone(), "aud", json!("other"))),
        ),
        (
            "another issuer",
            key.sign(&with(good.clone(), "iss", json!("https://evil.example"))),
        ),
        (
            "expired",
            key.sign(&with(good.clone(), "exp", json!(now - 31))),
        ),
        (
            "not yet",
            key.sign(&with(good.clone(), "nbf", json!(now + 31))),
        ),
        ("never expires", key.sign(&no_expiry)),
        ("another key of the same name", other.sign(&good)),
        ("an unknown key", key.sign_as("r2", &good)),
        ("the public key as a secret", key.sign_by_public_key(&good)),
        ("no signature", unsigned(&good)),
        ("a cut signature", tampered),
    ] {
        assert_eq!(status(&app, &token).await, 401, "{what}");
    }
    // Clocks differ a little.
    assert_eq!(
        status(&app, &key.sign(&with(good.clone(), "exp", json!(now - 29)))).await,
        200
    );
    assert_eq!(
        status(&app, &key.sign(&with(good, "aud", json!(["x", "attune"])))).await,
        200
    );
}

/// `alg: none`, which no library here would write.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.",
        part(&json!({"alg": "none", "kid": "r1"})),
        part(claims)
    )
}

#[tokio::test]
async fn a_token_of_one_algorithm_does_not_pass_by_a_key_of_another() {
    let (rsa, ec) = (SigningKey::rsa("r1"), SigningKey::ec("e1"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let app = app(&issuer).await;
    let good = claims(&issuer);
    assert_eq!(status(&app, &rsa.sign_as("e1", &good)).await, 401);
    assert_eq!(status(&app, &ec.sign_as("r1", &good)).await, 401);
}

#[tokio::test]
async fn a_new_key_is_fetched_and_an_old_one_ends() {
    let (old, new) = (SigningKey::ec("old"), SigningKey::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let app = app(&issuer).await;
    let token =
        |key: &SigningKey| key.sign(&with(claims(&issuer), "exp", json!(9_999_999_999_u64)));
    assert_eq!(status(&app, &token(&old)).await, 200);
    issuer.publish(&[&new]);
    app.clock.advance(Duration::from_secs(11));
    assert_eq!(status(&app, &token(&new)).await, 200);
    assert_eq!(status(&app, &token(&old)).await, 401);
    assert_eq!(issuer.n_fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_the_issuer_once_in_ten_seconds() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    assert_eq!(status(&app, &key.sign(&claims(&issuer))).await, 200);
    for round in 1..=3 {
        app.clock.advance(Duration::from_secs(11));
        let tokens = (0..20).map(|n| key.sign_as(&format!("unknown-{n}"), &claims(&issuer)));
        let tokens: Vec<_> = tokens.collect();
        let asked = tokens.iter().map(|token| status(&app, token));
        let statuses = futures::future::join_all(asked).await;
        assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
        assert_eq!(issuer.n_fetches(), 1 + round);
    }
    assert_eq!(status(&app, &key.sign(&claims(&issuer))).await, 200);
}

#[tokio::test]
async fn keys_outlive_an_issuer_that_is_away_for_an_hour_at_most() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let token = key.sign(&with(claims(&issuer), "exp", json!(9_999_999_999_u64)));
    assert_eq!(status(&app, &token).await, 200);
    issuer.stop();
    app.clock.advance(Duration::from_mins(30));
    assert_eq!(status(&app, &token).await, 200);
    app.clock.advance(Duration::from_mins(31));
    assert_eq!(status(&app, &token).await, 503);
    // A key of ours needs no issuer.
    assert_eq!(app.alice.get("/v1/files").await.status, 200);
}

#[tokio::test]
async fn a_role_ends_with_the_group_and_a_viewer_only_reads() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = TestApp::start_with_oidc(|[alice, _]| {
        settings(&issuer, &[("readers", alice.project_id, Role::Viewer)])
    })
    .await;
    let reader = holder(
        &app,
        &key.sign(&with(claims(&issuer), "groups", json!(["readers"]))),
    );
    assert_eq!(reader.get("/v1/files").await.status, 200);
    let refusal = reader.upload(Form::of("fine-tune", "{}")).await.refusal();
    assert_eq!(
        (refusal.0, refusal.2.as_deref()),
        (403, Some("insufficient_role"))
    );
    let nobody = holder(&app, &key.sign(&with(claims(&issuer), "groups", json!([]))));
    let refusal = nobody.get("/v1/files").await.refusal();
    assert_eq!((refusal.0, refusal.2.as_deref()), (403, Some("no_project")));
}

#[tokio::test]
async fn a_header_chooses_among_projects_and_another_is_not_there() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let made = app
        .admin
        .post("/v1/organization/projects", &json!({"name": "Second"}))
        .await;
    let second = made.ok()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{second}/users");
    let member = json!({"email": "ada@example.com", "role": "owner"});
    app.admin.post(&path, &member).await.ok();

    let ada = holder(&app, &key.sign(&claims(&issuer)));
    let refusal = ada.get("/v1/files").await.refusal();
    assert_eq!(
        (refusal.0, refusal.1.as_deref()),
        (400, Some("OpenAI-Project"))
    );
    let of = |project: String| {
        ada.send(
            ada.request(reqwest::Method::GET, "/v1/files")
                .header("OpenAI-Project", project),
        )
    };
    assert_eq!(of(second).await.status, 200);
    assert_eq!(of(app.alice_project.to_string()).await.status, 200);
    assert_eq!(of(app.bob_project.to_string()).await.status, 404);
    assert_eq!(of("proj_x".to_owned()).await.status, 404);
}

#[tokio::test]
async fn being_added_elsewhere_changes_nothing_for_a_request_that_names_no_project() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let ada = holder(&app, &key.sign(&claims(&issuer)));
    let file = ada.training_file().await;
    let path = format!("/v1/organization/projects/{}/users", app.bob_project);
    let owner = json!({"email": "ada@example.com", "role": "owner"});
    let added = app.bobs_admin.post(&path, &owner).await.ok();
    let user = format!("/v1/organization/users/{}", added["id"].as_str().unwrap());
    app.bobs_admin
        .post(&user, &json!({"role": "owner"}))
        .await
        .ok();
    assert_eq!(ada.get(&format!("/v1/files/{file}")).await.status, 200);
    // Where she is wanted, she says so.
    let request = ada.request(reqwest::Method::GET, "/v1/files");
    let bobs = request.header("OpenAI-Project", app.bob_project.to_string());
    assert_eq!(ada.send(bobs).await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_removed_user_stays_out_and_an_unverified_address_is_nobodys() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let token = key.sign(&claims(&issuer));
    assert_eq!(status(&app, &token).await, 200);
    let users = app.admin.get("/v1/organization/users").await.ok();
    let path = format!(
        "/v1/organization/users/{}",
        users["data"][0]["id"].as_str().unwrap()
    );
    app.admin.delete(&path).await.ok();
    assert_eq!(status(&app, &token).await, 403);

    // Somebody else claims her address: without the issuer's word for it, it does not make them her.
    let members = format!("/v1/organization/projects/{}/users", app.alice_project);
    let eve = json!({"email": "eve@example.com", "role": "owner"});
    app.admin.post(&members, &eve).await.ok();
    let mut claim = with(claims(&issuer), "sub", json!("mallory"));
    claim["email"] = json!("eve@example.com");
    claim["email_verified"] = json!(false);
    claim["groups"] = json!([]);
    assert_eq!(status(&app, &key.sign(&claim)).await, 403);
    claim["email_verified"] = json!(true);
    assert_eq!(status(&app, &key.sign(&claim)).await, 200);
}

#[tokio::test]
async fn an_owner_of_the_organization_administers_it_and_no_other() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let ada = holder(&app, &key.sign(&claims(&issuer)));
    assert_eq!(ada.get("/v1/files").await.status, 200);
    assert_eq!(ada.get("/v1/organization/projects").await.status, 403);
    let users = app.admin.get("/v1/organization/users").await.ok();
    let path = format!(
        "/v1/organization/users/{}",
        users["data"][0]["id"].as_str().unwrap()
    );
    app.admin.post(&path, &json!({"role": "owner"})).await.ok();
    let projects = ada.get("/v1/organization/projects").await.ok();
    assert_eq!(projects["data"].as_array().unwrap().len(), 1);
    assert_eq!(projects["data"][0]["id"], app.alice_project.to_string());
    let other = format!("/v1/organization/projects/{}", app.bob_project);
    assert_eq!(ada.get(&other).await.status, 404);
}

#[tokio::test]
async fn a_stream_ends_with_the_role_the_token_or_the_user() {
    let key = SigningKey::ec("e1");
    let issuer = Issuer::start(&[&key]).await;
    let app = app(&issuer).await;
    let job = app.alice.job(json!({})).await;
    let job = job["id"].as_str().unwrap();
    let members = format!("/v1/organization/projects/{}/users", app.alice_project);
    let added = json!({"email": "ada@example.com", "role": "viewer"});
    let user = app.admin.post(&members, &added).await.ok();
    let id = user["id"].as_str().unwrap();

    let alone = with(claims(&issuer), "groups", json!([]));
    let by_role = holder(&app, &key.sign(&alone));
    let by_group = holder(&app, &key.sign(&claims(&issuer)));
    let longer = with(claims(&issuer), "exp", json!(START.unix_timestamp() + 3600));
    let longer = holder(&app, &key.sign(&longer));
    let [role, group, token] = [
        Stream::open(&by_role, job, "").await,
        Stream::open(&longer, job, "").await,
        Stream::open(&by_group, job, "").await,
    ];
    app.admin.delete(&format!("{members}/{id}")).await.ok();
    role.ends_cut().await;
    assert_eq!(by_group.get("/v1/files").await.status, 200);
    app.clock.advance(Duration::from_secs(330));
    token.ends_cut().await;
    assert_eq!(longer.get("/v1/files").await.status, 200);
    let path = format!("/v1/organization/users/{id}");
    app.admin.delete(&path).await.ok();
    group.ends_cut().await;
}
