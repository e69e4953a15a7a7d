//! Creating, looking at and cancelling jobs.

use serde_json::{Value, json};

use crate::support::{Form, ROWS, TestApp, redacted};

/// The job without what is drawn at random, and what OpenAI's object has no place for.
fn settled(mut job: Value) -> (Value, Value) {
    job["seed"] = json!("[seed]");
    job["attune"]["config"]["seed"] = json!("[seed]");
    let attune = job.as_object_mut().unwrap().remove("attune");
    (redacted(&job), attune.unwrap())
}

#[tokio::test]
async fn a_job_has_every_key() {
    let app = TestApp::start().await;
    let job = app
        .alice
        .job(json!({"suffix": "tickets", "metadata": {"team": "a"}}))
        .await;
    insta::assert_json_snapshot!(settled(job.clone()).0, @r#"
    {
      "created_at": 1795521600,
      "error": null,
      "estimated_finish": null,
      "fine_tuned_model": null,
      "finished_at": null,
      "hyperparameters": {
        "batch_size": 4,
        "learning_rate_multiplier": 1.0,
        "n_epochs": 3
      },
      "id": "[job]",
      "integrations": [],
      "metadata": {
        "team": "a"
      },
      "method": {
        "supervised": {
          "hyperparameters": {
            "batch_size": 4,
            "learning_rate_multiplier": 1.0,
            "n_epochs": 3
          }
        },
        "type": "supervised"
      },
      "model": "tiny",
      "object": "fine_tuning.job",
      "organization_id": "[org]",
      "result_files": [],
      "seed": "[seed]",
      "status": "validating_files",
      "trained_tokens": null,
      "training_file": "[file]",
      "validation_file": null
    }
    "#);
    assert!(job["seed"].is_u64());
    let id = job["id"].as_str().unwrap();
    assert_eq!(
        app.alice
            .get(&format!("/v1/fine_tuning/jobs/{id}"))
            .await
            .ok(),
        job
    );
}

#[tokio::test]
async fn every_setting_is_resolved_and_shown() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({"suffix": "tickets"})).await;
    insta::assert_json_snapshot!(settled(job).1, @r#"
    {
      "attempt": 0,
      "base_model": "tiny",
      "config": {
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_eps": 0.00000001,
        "batch_size": 4,
        "checkpoint_every": 1,
        "grad_accum": 1,
        "keep": "best",
        "learning_rate": 0.001,
        "lora": {
          "alpha": 16.0,
          "dropout": 0.0,
          "rank": 8,
          "target_modules": [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj"
          ],
          "use_dora": false,
          "use_rslora": false
        },
        "lr_schedule": "linear",
        "max_grad_norm": 1.0,
        "max_perplexity_increase": 0.1,
        "max_seq_len": 512,
        "max_steps": null,
        "method": "supervised",
        "n_epochs": 3,
        "packing": true,
        "precision": "f32",
        "quantization": "none",
        "recompute": false,
        "seed": "[seed]",
        "shuffle": true,
        "tuning": "lora",
        "warmup_steps": 0,
        "weight_decay": 0.0
      },
      "data": null,
      "suffix": "tickets"
    }
    "#);
}

#[tokio::test]
async fn openais_preference_tuning_is_shown_in_openais_words() {
    let app = TestApp::start().await;
    let method = json!({"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1}}});
    let job = app.alice.job(json!({"method": method})).await;
    assert_eq!(job["method"]["type"], "dpo");
    assert_eq!(
        job["method"]["dpo"]["hyperparameters"],
        json!({"beta": 0.2, "n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1.0})
    );
    assert_eq!(job["attune"]["config"]["method"], "dpo");
    // What one job was can be asked of the next.
    let mut config = job["attune"]["config"].clone();
    config["method"] = json!("ipo");
    let again = app.alice.job(json!({"attune": config})).await;
    assert_eq!(again["attune"]["config"], config);
    assert_eq!(again["method"]["type"], "dpo");
}

#[tokio::test]
async fn settings_come_from_every_place_clients_put_them() {
    let app = TestApp::start().await;
    let job = app
        .alice
        .job(json!({
            "seed": 7,
            "hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": "auto"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 1}}},
            "attune": {"learning_rate": 2e-3, "n_epochs": 2, "lora": {"rank": 4}, "max_steps": 3},
        }))
        .await;
    let config = &job["attune"]["config"];
    assert_eq!((&job["seed"], &config["seed"]), (&json!(7), &json!(7)));
    assert_eq!(
        (&config["n_epochs"], &config["batch_size"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&config["lora"]["rank"], &config["max_steps"]),
        (&json!(4), &json!(3))
    );
    assert_eq!(
        job["hyperparameters"]["learning_rate_multiplier"],
        json!(2.0)
    );
}

#[tokio::test]
async fn a_new_job_is_in_the_queue_and_says_what_happens() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    let id = job["id"].as_str().unwrap();
    let events = app
        .alice
        .get(&format!("/v1/fine_tuning/jobs/{id}/events"))
        .await
        .ok();
    insta::assert_json_snapshot!(redacted(&events), @r#"
    {
      "data": [
        {
          "created_at": 1795521600,
          "data": {},
          "id": "[event]",
          "level": "info",
          "message": "Validating training file: [file]",
          "object": "fine_tuning.job.event",
          "type": "message"
        },
        {
          "created_at": 1795521600,
          "data": {},
          "id": "[event]",
          "level": "info",
          "message": "Created fine-tuning job: [job]",
          "object": "fine_tuning.job.event",
          "type": "message"
        }
      ],
      "first_id": "[event]",
      "has_more": false,
      "last_id": "[event]",
      "object": "list"
    }
    "#);
    let claimed = app.claim(&app.worker_store().await).await;
    assert_eq!(claimed.job.id.to_string(), id);
}

#[tokio::test]
async fn cancelling_takes_an_empty_body_and_may_be_repeated() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    let path = format!(
        "/v1/fine_tuning/jobs/{}/cancel",
        job["id"].as_str().unwrap()
    );
    for _ in 0..2 {
        let cancelled = app.alice.post_text(&path, "").await.ok();
        assert_eq!(cancelled["status"], "cancelled");
        assert_eq!(cancelled["finished_at"], 1_795_521_600);
    }
    let events = app
        .alice
        .get(&path.replace("/cancel", "/events"))
        .await
        .ok();
    assert_eq!(
        events["data"].as_array().unwrap().len(),
        3,
        "one event for two calls"
    );
}

#[tokio::test]
async fn cancelling_a_finished_job_is_refused() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({})).await;
    app.finish_next_job().await;
    let path = format!(
        "/v1/fine_tuning/jobs/{}/cancel",
        job["id"].as_str().unwrap()
    );
    let refused = app.alice.post_text(&path, "").await;
    assert_eq!(
        refused.refusal(),
        (400, None, Some("job_is_final".to_owned()))
    );
}

#[tokio::test]
async fn a_finished_job_names_its_model_and_results() {
    let app = TestApp::start().await;
    let job = app.alice.job(json!({"suffix": "s"})).await;
    let done = app.finish_next_job().await;
    let job = app
        .alice
        .get(&format!(
            "/v1/fine_tuning/jobs/{}",
            job["id"].as_str().unwrap()
        ))
        .await
        .ok();
    assert_eq!(
        (&job["status"], &job["trained_tokens"]),
        (&json!("succeeded"), &json!(12))
    );
    assert_eq!(job["fine_tuned_model"], done.model_name);
    assert_eq!(
        job["result_files"],
        json!([done.result_file.unwrap().to_string()])
    );
    assert_eq!(job["attune"]["attempt"], 1);
}

#[tokio::test]
async fn a_tuned_model_can_be_tuned_further() {
    let app = TestApp::start().await;
    app.alice.job(json!({"suffix": "first"})).await;
    let first = app.finish_next_job().await.model_name;
    let job = app
        .alice
        .job(json!({"model": first, "suffix": "second"}))
        .await;
    assert_eq!(
        (&job["model"], &job["attune"]["base_model"]),
        (&json!(first), &json!("tiny"))
    );
}

#[tokio::test]
async fn checkpoints_have_seven_numbers() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let done = app.finish_next_job().await;
    let path = format!("/v1/fine_tuning/jobs/{}/checkpoints", done.id);
    let page = app.alice.get(&path).await.ok();
    assert_eq!(
        page["data"][0]["fine_tuned_model_checkpoint"],
        format!("{}:ckpt-step-1", done.model_name)
    );
    insta::assert_json_snapshot!(page["data"][0]["metrics"], @r#"
    {
      "full_valid_loss": 0.0,
      "full_valid_mean_token_accuracy": 0.0,
      "step": 1,
      "train_loss": 1.5,
      "train_mean_token_accuracy": 0.5,
      "valid_loss": 0.0,
      "valid_mean_token_accuracy": 0.0
    }
    "#);
    assert_eq!(page["data"][0]["step_number"], 1);
    assert_eq!(page["has_more"], false);
}

#[tokio::test]
async fn a_validation_file_is_kept() {
    let app = TestApp::start().await;
    let valid = app.alice.upload(Form::of("fine-tune", ROWS)).await.ok()["id"].clone();
    let job = app.alice.job(json!({"validation_file": valid})).await;
    assert_eq!(job["validation_file"], valid);
}
