//! What a job would take.

use artifacts::keys;
use domain::FileId;
use serde_json::{Value, json};
use store::files::{self, File, FileStatus};
use store::workers;

use crate::support::{ANY_WORKER, Form, START, TestApp, Wordy};

const ESTIMATE: &str = "/v1/fine_tuning/jobs/estimate";

async fn estimate(app: &TestApp, fields: Value) -> Value {
    let mut body = json!({"model": "wordy", "training_file": app.alice.training_file().await});
    let Value::Object(fields) = fields else {
        panic!("fields are an object")
    };
    body.as_object_mut().unwrap().extend(fields);
    app.alice.post(ESTIMATE, &body).await.ok()
}

#[tokio::test]
async fn a_small_file_is_counted_to_the_token() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let found = estimate(&app, json!({"attune": {"n_epochs": 3, "batch_size": 1}})).await;
    // `<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n` has 20 tokens, `b<|im_end|>\n` three.
    let data = json!({"exact": true, "n_rows": 2, "n_tokens": 46, "n_loss_tokens": 6, "truncated_rows": 0,
                      "skipped_rows": 0, "faulty_rows": 0, "faults": []});
    assert_eq!(found["data"], data);
    assert_eq!(
        (
            &found["steps"],
            &found["steps_per_epoch"],
            &found["trained_tokens"]
        ),
        (&json!(6), &json!(2), &json!(3 * 46))
    );
    let memory = found["memory"].as_object().unwrap();
    let parts = memory.iter().filter(|(name, _)| *name != "total_bytes");
    let sum: u64 = parts.map(|(_, bytes)| bytes.as_u64().unwrap()).sum();
    assert_eq!(memory["total_bytes"], json!(sum));
    assert_eq!(found["hyperparameters"]["n_epochs"], json!(3));
    assert_eq!(found["attune"]["config"]["max_seq_len"], json!(512));
    let jobs = app.alice.get("/v1/fine_tuning/jobs").await.ok();
    assert_eq!(jobs["data"], json!([]), "nothing was made");
}

#[tokio::test]
async fn memory_grows_with_what_is_asked_for() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let bytes = async |asked| {
        let found = estimate(&app, json!({"attune": asked})).await;
        found["memory"]["total_bytes"].as_u64().unwrap()
    };
    let small = bytes(json!({"batch_size": 1, "lora": {"rank": 1}})).await;
    assert!(bytes(json!({"batch_size": 2, "lora": {"rank": 1}})).await > small);
    assert!(bytes(json!({"batch_size": 1, "lora": {"rank": 64}})).await > small);
}

#[tokio::test]
async fn the_worker_that_it_needs_is_named_and_whether_there_is_one() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let worker = async |asked| {
        let found = estimate(&app, json!({"attune": asked})).await;
        let memory = found["worker"]["memory_bytes"].as_u64().unwrap();
        assert!(memory > 0 && memory <= found["memory"]["total_bytes"].as_u64().unwrap());
        (
            found["worker"]["device"].clone(),
            found["worker"]["is_there"].clone(),
        )
    };
    assert_eq!(worker(json!({})).await, (Value::Null, json!(false)));
    let mut tx = app.worker_store().await.worker_tx().await.unwrap();
    workers::announce(&mut tx, &workers::Worker::new("w", ANY_WORKER))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(worker(json!({})).await, (Value::Null, json!(true)));
    assert_eq!(
        worker(json!({"device": "cuda"})).await,
        (json!("cuda"), json!(false))
    );
}

#[tokio::test]
async fn time_is_what_earlier_jobs_took() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let unknown = estimate(&app, json!({})).await;
    assert_eq!(
        (&unknown["seconds"], &unknown["queue_position"]),
        (&Value::Null, &json!(0))
    );
    assert!(
        unknown["seconds_basis"]
            .as_str()
            .unwrap()
            .contains("`wordy`")
    );
    app.alice.job(json!({"model": "wordy"})).await;
    app.finish_next_job().await;
    app.alice.job(json!({"model": "wordy"})).await;
    let known = estimate(&app, json!({"attune": {"n_epochs": 1}})).await;
    assert_eq!(known["seconds"], json!(46.0 / 2000.0));
    assert_eq!(known["queue_position"], json!(1));
}

/// The same estimate as bob's, who has trained nothing.
async fn estimate_of_bob(app: &TestApp, model: &str, attune: Value) -> Value {
    let file = app.bob.training_file().await;
    let body = json!({"model": model, "training_file": file, "attune": attune});
    app.bob.post(ESTIMATE, &body).await.ok()
}

#[tokio::test]
async fn time_is_what_other_projects_jobs_took_before_the_first_of_ones_own() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    app.alice.job(json!({"model": "wordy"})).await;
    app.finish_next_job().await;
    let found = estimate_of_bob(&app, "wordy", json!({"n_epochs": 1})).await;
    assert_eq!(found["seconds"], json!(46.0 / 2000.0));
    let basis = found["seconds_basis"].as_str().unwrap();
    assert!(
        basis.contains("this installation's latest jobs on `wordy`"),
        "{basis}"
    );

    // The worker of that job was one without a GPU.
    for (device, seconds) in [("cpu", json!(46.0 / 2000.0)), ("cuda", Value::Null)] {
        let asked = json!({"n_epochs": 1, "device": device});
        let found = estimate_of_bob(&app, "wordy", asked.clone()).await;
        assert_eq!(found["seconds"], seconds, "{device}");
        let own = estimate(&app, json!({"attune": asked})).await;
        assert_eq!(own["seconds"], seconds, "{device}");
    }
}

#[tokio::test]
async fn time_is_guessed_from_another_model_of_about_its_size() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    // `tiny` has as many parameters as `wordy`.
    app.alice.job(json!({"model": "tiny"})).await;
    app.finish_next_job().await;
    let guess = async |n_params: u64| {
        let name = format!("wordy-{n_params}");
        app.register_wordy_with(Wordy {
            name: &name,
            n_params,
            ..Wordy::default()
        })
        .await;
        let found = estimate_of_bob(&app, &name, json!({"n_epochs": 1})).await;
        let basis = found["seconds_basis"].as_str().unwrap().to_owned();
        (found["seconds"].clone(), basis)
    };
    let (seconds, basis) = guess(2_000_000).await;
    assert_eq!(seconds, json!(46.0 / 1000.0));
    assert!(
        basis.contains("a rough guess") && !basis.contains("tiny"),
        "{basis}"
    );
    assert_eq!(
        guess(1_100_000).await.0,
        json!(46.0 / 1800.0),
        "in two digits"
    );
    let (seconds, basis) = guess(9_000_000).await;
    assert_eq!(seconds, Value::Null);
    assert!(basis.contains("not known"), "{basis}");
}

#[tokio::test]
async fn of_a_large_file_some_rows_stand_for_all() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let n_rows = 30_000;
    let text = format!("{row}\n").repeat(n_rows);
    let id = FileId::new();
    app.objects
        .put_bytes(&keys::file(app.alice_project, id), text.as_bytes())
        .await
        .unwrap();
    let file = File {
        id,
        project_id: app.alice_project,
        filename: "large.jsonl".to_owned(),
        purpose: "fine-tune".to_owned(),
        size_bytes: text.len() as u64,
        sha256: "00".repeat(32),
        n_lines: Some(n_rows as u64),
        status: FileStatus::Processed,
        status_details: None,
        created_at: START,
        expires_at: None,
    };
    let mut tx = app
        .database
        .store()
        .tenant_tx(app.alice_project)
        .await
        .unwrap();
    files::create(&mut tx, &file).await.unwrap();
    tx.commit().await.unwrap();
    let found = estimate(&app, json!({"training_file": id.to_string()})).await;
    let data = &found["data"];
    assert_eq!(data["exact"], json!(false));
    let near = |n: &Value, expected: u64| n.as_u64().unwrap().abs_diff(expected) * 100 <= expected;
    assert!(near(&data["n_rows"], 30_000), "{data}");
    assert!(near(&data["n_tokens"], 30_000 * 23), "{data}");
    assert_eq!(
        data["faulty_rows"],
        json!(0),
        "pieces begin and end with lines: {data}"
    );
}

#[tokio::test]
async fn rows_that_would_be_lost_are_counted() {
    let app = TestApp::start().await;
    app.register_wordy().await;
    let long = "x".repeat(40);
    let rows = format!(
        "{{\"messages\": [{{\"role\": \"user\", \"content\": \"a\"}}, {{\"role\": \"assistant\", \"content\": \"{long}\"}}]}}\n\
         {{\"messages\": [{{\"role\": \"user\", \"content\": \"{long}\"}}, {{\"role\": \"assistant\", \"content\": \"b\"}}]}}\n\
         {{\"messages\": []}}\n"
    );
    let file = app.alice.upload(Form::of("fine-tune", &rows)).await.ok();
    let fields = json!({"training_file": file["id"], "attune": {"max_seq_len": 30}});
    let data = estimate(&app, fields).await["data"].take();
    assert_eq!(
        (
            &data["n_rows"],
            &data["truncated_rows"],
            &data["skipped_rows"],
            &data["faulty_rows"]
        ),
        (&json!(1), &json!(2), &json!(1), &json!(1))
    );
    assert!(
        data["faults"][0].as_str().unwrap().starts_with("line 3 "),
        "{data}"
    );
}

#[tokio::test]
async fn what_a_job_would_be_refused_for_an_estimate_is_too() {
    let app = TestApp::start().await;
    let file = app.alice.training_file().await;
    let body = json!({"model": "tiny", "training_file": file, "attune": {"n_epochs": 0}});
    let refused = app.alice.post(ESTIMATE, &body).await.refusal();
    assert_eq!(
        (refused.0, refused.1.as_deref()),
        (400, Some("attune.n_epochs"))
    );
    // `tiny` has no tokenizer.
    let body = json!({"model": "tiny", "training_file": file});
    let refused = app.alice.post(ESTIMATE, &body).await.refusal();
    assert_eq!(refused.2.as_deref(), Some("tokenizer_not_available"));
}
