//! Base models, tuned models, and their names in paths.

use serde_json::json;

use crate::support::TestApp;

#[tokio::test]
async fn base_and_own_models_are_listed() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let tuned = app.finish_next_job().await.model_name;
    let list = app.alice.get("/v1/models").await.ok();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids[0], "tiny");
    assert!(
        ids.contains(&tuned.as_str()) && ids.contains(&format!("{tuned}:ckpt-step-1").as_str()),
        "{ids:?}"
    );
    insta::assert_json_snapshot!(list["data"][0], @r#"
    {
      "created": 1795521600,
      "id": "tiny",
      "object": "model",
      "owned_by": "system"
    }
    "#);
    let others = app.bob.get("/v1/models").await.ok();
    assert_eq!(others["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_model_is_found_by_its_raw_and_its_encoded_name() {
    let app = TestApp::start_with_base("a/tiny").await;
    app.alice.job(json!({"model": "a/tiny"})).await;
    let name = app.finish_next_job().await.model_name;
    for path in [
        name.clone(),
        name.replace('/', "%2F"),
        name.replace('/', "%2F").replace(':', "%3A"),
    ] {
        assert_eq!(
            app.alice.get(&format!("/v1/models/{path}")).await.ok()["id"],
            name,
            "{path}"
        );
    }
    assert_eq!(
        app.alice.get("/v1/models/a%2Ftiny").await.ok()["id"],
        "a/tiny"
    );
}

#[tokio::test]
async fn only_own_tuned_models_can_be_deleted() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let name = app.finish_next_job().await.model_name;
    let path = format!("/v1/models/{name}");
    assert_eq!(app.bob.delete(&path).await.status, 404);
    assert_eq!(app.alice.delete("/v1/models/tiny").await.status, 404);
    let deleted = app.alice.delete(&path).await.ok();
    assert_eq!(
        deleted,
        json!({"id": name, "object": "model", "deleted": true})
    );
    assert_eq!(app.alice.get(&path).await.status, 404);
    assert_eq!(app.alice.delete(&path).await.status, 404);
    // Its checkpoint is a model of its own.
    assert_eq!(
        app.alice.get(&format!("{path}:ckpt-step-1")).await.status,
        200
    );
}

#[tokio::test]
async fn what_can_be_no_name_is_not_found() {
    let app = TestApp::start().await;
    for name in ["none", "%00", "%ff", "ft:", "a%2F..%2Fb"] {
        let refusal = app.alice.get(&format!("/v1/models/{name}")).await.refusal();
        assert_eq!(
            refusal,
            (
                404,
                Some("model".to_owned()),
                Some("model_not_found".to_owned())
            ),
            "{name}"
        );
    }
}
