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
async fn a_models_limits_are_those_that_a_job_is_checked_with() {
    let app = TestApp::start().await;
    let limits = app.alice.get("/v1/models/tiny/limits").await.ok();
    assert_eq!(
        (&limits["base_model"], &limits["context_length"]),
        (&json!("tiny"), &json!(512))
    );
    let settings = &limits["settings"];
    assert_eq!(
        settings["lora.rank"],
        json!({"type": "integer", "minimum": 1.0, "maximum": 256.0})
    );
    assert_eq!(
        settings["learning_rate"],
        json!({"type": "number", "exclusive_minimum": 0.0, "maximum": 1.0})
    );
    assert_eq!(settings["max_seq_len"]["maximum"], json!(512.0));
    assert_eq!(settings["quantization"]["enum"][1], json!("nf4"));
    assert!(
        settings["method"]["enum"]
            .as_array()
            .unwrap()
            .contains(&json!("dpo"))
    );
    assert_eq!(settings["train_embeddings"], json!({"type": "boolean"}));

    let file = app.alice.training_file().await;
    for (rank, status) in [(256, 200), (257, 400)] {
        let body =
            json!({"model": "tiny", "training_file": file, "attune": {"lora": {"rank": rank}}});
        let answer = app.alice.post("/v1/fine_tuning/jobs", &body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn limits_are_found_below_any_name() {
    let app = TestApp::start_with_base("a/limits").await;
    for (path, object) in [
        ("a/limits/limits", "model.limits"),
        ("a%2Flimits/limits", "model.limits"),
        ("a%2Flimits", "model"),
    ] {
        let answer = app.alice.get(&format!("/v1/models/{path}")).await.ok();
        assert_eq!(answer["object"], object, "{path}");
    }
    // Of the model `a`, which is not there.
    assert_eq!(app.alice.get("/v1/models/a/limits").await.status, 404);
    assert_eq!(
        app.alice.get("/v1/models/a%2Fnone/limits").await.status,
        404
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
