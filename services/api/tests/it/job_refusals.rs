//! Jobs that are refused at once, each by the name of the field at fault.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Form, ROWS, TestApp};

/// A request that would be fine, with other fields on top.
fn request(file: &str, fields: Value) -> Value {
    let mut request = json!({"model": "tiny", "training_file": file});
    let Value::Object(fields) = fields else {
        panic!("fields are an object")
    };
    request.as_object_mut().unwrap().extend(fields);
    request
}

#[tokio::test]
async fn every_fault_is_a_400_with_its_param() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    for (fields, param) in [
        (json!({"model": null}), "model"),
        (json!({"training_file": null}), "training_file"),
        (json!({"suffix": "x".repeat(65)}), "suffix"),
        (json!({"seed": -1}), "seed"),
        (
            json!({"hyperparameters": {"n_epochs": 0}}),
            "hyperparameters.n_epochs",
        ),
        (
            json!({"hyperparameters": {"batch_size": 257}}),
            "hyperparameters.batch_size",
        ),
        (json!({"method": {"type": "reinforcement"}}), "method.type"),
        (
            json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}),
            "method.dpo.hyperparameters.beta",
        ),
        (json!({"attune": {"beta": 0.1}}), "attune.beta"),
        (json!({"attune": {"tuning": "prefix"}}), "attune.tuning"),
        (json!({"attune": {"device": "tpu"}}), "attune.device"),
        (
            json!({"attune": {"replay": {"ratio": 0.1}}}),
            "attune.replay.file",
        ),
        (json!({"attune": {"lora": {"rank": 0}}}), "attune.lora.rank"),
        (json!({"attune": {"epochs": 1}}), "attune.epochs"),
        (
            json!({"hyperparameters": {"n_epochs": 3}, "attune": {"n_epochs": 2}}),
            "attune.n_epochs",
        ),
        (json!({"seed": 1, "attune": {"seed": 2}}), "attune.seed"),
        (
            json!({"integrations": [{"type": "wandb", "wandb": {"project": "a/b"}}]}),
            "integrations[0].wandb.project",
        ),
        (json!({"metadata": {"a": 1}}), "metadata"),
    ] {
        let answer = app
            .alice
            .post("/v1/fine_tuning/jobs", &request(&file, fields.clone()))
            .await;
        let expected = (
            400,
            Some(param.to_owned()),
            Some("invalid_value".to_owned()),
        );
        assert_eq!(answer.refusal(), expected, "{fields}");
    }
    assert_eq!(
        app.alice.get("/v1/fine_tuning/jobs").await.ok()["data"],
        json!([])
    );
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    let bobs = app.bob.training_file().await;
    let missing = "file-00000000000000000000000000000000";
    for (fields, param, code) in [
        (json!({"model": "gpt-9"}), "model", "model_not_found"),
        (
            json!({"model": "ft:tiny:nobody::12345678"}),
            "model",
            "model_not_found",
        ),
        (
            json!({"training_file": missing}),
            "training_file",
            "file_not_found",
        ),
        (
            json!({"training_file": "nonsense"}),
            "training_file",
            "file_not_found",
        ),
        (
            json!({"training_file": bobs}),
            "training_file",
            "file_not_found",
        ),
        (
            json!({"validation_file": bobs}),
            "validation_file",
            "file_not_found",
        ),
        (
            json!({"attune": {"replay": {"file": bobs}}}),
            "attune.replay.file",
            "file_not_found",
        ),
    ] {
        let answer = app
            .alice
            .post("/v1/fine_tuning/jobs", &request(&file, fields.clone()))
            .await;
        assert_eq!(
            answer.refusal(),
            (404, Some(param.to_owned()), Some(code.to_owned())),
            "{fields}"
        );
    }
}

#[tokio::test]
async fn a_job_goes_on_from_a_tuned_model_as_that_was_tuned() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    let tuned = async |settings: Value| {
        app.alice.job(json!({"attune": settings})).await;
        app.finish_next_job().await.model_name
    };
    let adapter = tuned(json!({})).await;
    let whole = tuned(json!({"tuning": "full"})).await;
    let with_embeddings = tuned(json!({"tuning": "full", "train_embeddings": true})).await;

    for (model, settings, way_out) in [
        (&whole, json!({}), "set `tuning` to `full`"),
        (
            &adapter,
            json!({"tuning": "full"}),
            "set `tuning` to `lora`",
        ),
        (
            &with_embeddings,
            json!({"tuning": "full"}),
            "set `train_embeddings` to `true`",
        ),
    ] {
        let body = request(&file, json!({"model": model, "attune": settings}));
        for path in ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/estimate"] {
            let answer = app.alice.post(path, &body).await;
            let expected = (
                400,
                Some("model".to_owned()),
                Some("incompatible_model".to_owned()),
            );
            assert_eq!(answer.refusal(), expected, "{path} {body}");
            assert!(answer.text.contains(way_out), "{}", answer.text);
        }
    }
    for (model, settings) in [
        (&adapter, json!({})),
        (&whole, json!({"tuning": "full"})),
        (&whole, json!({"tuning": "full", "train_embeddings": true})),
        (
            &with_embeddings,
            json!({"tuning": "full", "train_embeddings": true}),
        ),
    ] {
        let body = request(&file, json!({"model": model, "attune": settings}));
        let job = app.alice.post("/v1/fine_tuning/jobs", &body).await.ok();
        assert_eq!(job["model"], *model, "{body}");
    }
}

#[tokio::test]
async fn a_file_for_something_else_is_refused() {
    let app = TestApp::start().await;
    let created = app.alice.upload(Form::of("batch", ROWS)).await.ok();
    let body = request(created["id"].as_str().unwrap(), json!({}));
    let answer = app.alice.post("/v1/fine_tuning/jobs", &body).await;
    assert_eq!(answer.refusal().1.as_deref(), Some("training_file"));
    assert!(answer.text.contains("purpose `batch`"), "{}", answer.text);
}

#[tokio::test]
async fn an_expired_file_is_as_good_as_gone() {
    let app = TestApp::start().await;
    let form = Form::of("fine-tune", ROWS).field("expires_after[seconds]", "3600");
    let created = app.alice.upload(form).await.ok();
    app.clock.advance(Duration::from_hours(1));
    let body = request(created["id"].as_str().unwrap(), json!({}));
    assert_eq!(
        app.alice.post("/v1/fine_tuning/jobs", &body).await.status,
        404
    );
}

#[tokio::test]
async fn a_body_that_is_no_good_json_is_a_400() {
    let app = TestApp::start().await;
    let deep = format!("{{\"a\":{}", "[".repeat(900_000));
    for body in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "{\"model\":\"a\",\"model\":\"b\"}".to_owned(),
        "{\"model\":\"a\\u0000\"}".to_owned(),
        deep,
    ] {
        let answer = app
            .alice
            .post_text("/v1/fine_tuning/jobs", body.clone())
            .await;
        assert_eq!(
            answer.refusal(),
            (400, None, Some("invalid_json".to_owned())),
            "{body:.40}"
        );
    }
    let answer = app
        .alice
        .post_text("/v1/fine_tuning/jobs", vec![b'{', b'"', 0xff])
        .await;
    assert_eq!(answer.refusal().0, 400);
    let answer = app
        .alice
        .post_text("/v1/fine_tuning/jobs", " ".repeat((1 << 20) + 1))
        .await;
    assert_eq!(answer.refusal().0, 413);
}
