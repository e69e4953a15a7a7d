//! What no batch is made of, and how batches are listed and left.

use std::time::Duration;

use serde_json::json;

use super::{PACE, input, request, runner, start, take_turn};
use crate::support::{Form, MAX_FILE_BYTES, ROWS};

#[tokio::test]
async fn a_new_batch_names_its_faults() {
    let (app, _stand_in) = start().await;
    let file = app.alice.batch_input(&input(&["ok"])).await;
    let to_train_on = app.alice.training_file().await;
    let bobs = app.bob.batch_input(&input(&["ok"])).await;
    for (field, value, status, param) in [
        ("input_file_id", json!(null), 400, "input_file_id"),
        ("input_file_id", json!("file-1"), 404, "input_file_id"),
        ("input_file_id", json!(bobs), 404, "input_file_id"),
        ("input_file_id", json!(to_train_on), 400, "input_file_id"),
        ("endpoint", json!("/v1/embeddings"), 400, "endpoint"),
        ("endpoint", json!(null), 400, "endpoint"),
        ("completion_window", json!("1h"), 400, "completion_window"),
        ("metadata", json!({"a": 1}), 400, "metadata"),
        (
            "output_expires_after",
            json!({"anchor": "created_at", "seconds": 1}),
            400,
            "output_expires_after.seconds",
        ),
    ] {
        let mut body = request(&file);
        body[field] = value;
        let refusal = app.alice.post("/v1/batches", &body).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (status, Some(param)),
            "{body}"
        );
    }
    app.clock.advance(Duration::from_hours(30 * 24));
    let expired = app.alice.post("/v1/batches", &request(&file)).await;
    assert_eq!(expired.refusal().0, 404);
}

#[tokio::test]
async fn the_input_of_a_batch_may_be_so_long_and_no_longer() {
    let (app, _stand_in) = start().await;
    let lines = input(&["ok"]);
    let max = usize::try_from(MAX_FILE_BYTES).unwrap();
    for (n_bytes, status) in [(max, 200), (max + 1, 400)] {
        let content = format!("{lines}{}", "\n".repeat(n_bytes - lines.len()));
        let file = app.alice.file_in_parts("batch", &content).await;
        let answer = app.alice.post("/v1/batches", &request(&file)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        if status == 400 {
            assert_eq!(answer.refusal().1.as_deref(), Some("input_file_id"));
        }
    }
}

#[tokio::test]
async fn batches_are_listed_newest_first_in_exact_pages() {
    let (app, _stand_in) = start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(app.alice.batch(&["ok"]).await);
        app.clock.advance(Duration::from_secs(1));
    }
    let page = app.alice.get("/v1/batches?limit=2").await.ok();
    assert_eq!(
        (&page["first_id"], &page["last_id"], &page["has_more"]),
        (&json!(ids[2]), &json!(ids[1]), &json!(true))
    );
    let path = format!("/v1/batches?limit=2&after={}", ids[1]);
    let page = app.alice.get(&path).await.ok();
    assert_eq!(
        (&page["last_id"], &page["has_more"]),
        (&json!(ids[0]), &json!(false))
    );
}

#[tokio::test]
async fn the_input_stays_as_long_as_its_batch_needs_it() {
    let (app, stand_in) = start().await;
    let file = app.alice.batch_input(&input(&["ok"])).await;
    let batch = app.alice.post("/v1/batches", &request(&file)).await.ok();
    let path = format!("/v1/files/{file}");
    let refused = app.alice.delete(&path).await;
    assert_eq!(refused.refusal().2.as_deref(), Some("file_in_use"));
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    app.alice.delete(&path).await.ok();

    // A batch that has ended another way cannot be cancelled.
    let id = batch["id"].as_str().unwrap();
    let path = format!("/v1/batches/{id}/cancel");
    let refused = app.alice.post_text(&path, "").await.refusal();
    assert_eq!(
        (refused.0, refused.2.as_deref()),
        (400, Some("batch_is_final"))
    );
}

#[tokio::test]
async fn a_batch_cancelled_before_its_turn_answers_nothing() {
    let (app, stand_in) = start().await;
    let id = app.alice.batch(&["ok"]).await;
    app.alice.cancel_batch(&id).await;
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    let done = app.alice.found_batch(&id).await;
    assert_eq!(done["status"], "cancelled");
    assert_eq!(
        (&done["output_file_id"], &done["error_file_id"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(stand_in.n_asked(), 0);
}

#[tokio::test]
async fn an_input_that_vanished_fails_its_batch() {
    let (app, stand_in) = start().await;
    let file = app.alice.batch_input(&input(&["ok"])).await;
    let batch = app.alice.post("/v1/batches", &request(&file)).await.ok();
    let key = artifacts::keys::file(app.alice_project, file.parse().unwrap());
    app.objects.delete(&key).await.unwrap();
    take_turn(&runner(&app, &stand_in, PACE).await).await;
    let failed = app.alice.found_batch(batch["id"].as_str().unwrap()).await;
    assert_eq!(failed["errors"]["data"][0]["code"], "input_file_not_found");
}

#[tokio::test]
async fn a_project_has_only_so_many_batches_open() {
    let (app, _stand_in) = start().await;
    let file = app.alice.upload(Form::of("batch", ROWS)).await.ok()["id"].clone();
    let body = request(file.as_str().unwrap());
    for _ in 0..domain::limits::MAX_OPEN_BATCHES {
        app.alice.post("/v1/batches", &body).await.ok();
    }
    let refused = app.alice.post("/v1/batches", &body).await.refusal();
    assert_eq!(
        (refused.0, refused.2.as_deref()),
        (400, Some("too_many_batches"))
    );
}
