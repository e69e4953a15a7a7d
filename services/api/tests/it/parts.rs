//! Files that come in parts, and everything that can be wrong with those.

use std::time::Duration;

use futures::future::join_all;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};
use store::quotas::{self, Quotas};

use crate::support::{
    Answer, Client, Form, MAX_FILE_BYTES, MAX_UPLOAD_BYTES, ROWS, START, TestApp, redacted,
};

fn request(bytes: usize) -> Value {
    json!({"filename": "train.jsonl", "purpose": "fine-tune", "bytes": bytes, "mime_type": "text/jsonl"})
}

fn md5_of(content: &str) -> String {
    hex::encode(Md5::digest(content))
}

impl Client {
    /// The id of a new upload of a file to train on.
    pub(crate) async fn begin_upload(&self, bytes: usize) -> String {
        let answer = self.post("/v1/uploads", &request(bytes)).await;
        answer.ok()["id"].as_str().unwrap().to_owned()
    }

    /// The id of a new part.
    pub(crate) async fn add_part(&self, upload: &str, content: &str) -> String {
        let answer = self.post_part(upload, Form::part(content)).await;
        answer.ok()["id"].as_str().unwrap().to_owned()
    }

    /// The id of a new file, sent in two parts.
    pub(crate) async fn file_in_parts(&self, purpose: &str, content: &str) -> String {
        let mut body = request(content.len());
        body["purpose"] = purpose.into();
        let begun = self.post("/v1/uploads", &body).await.ok();
        let id = begun["id"].as_str().unwrap();
        let (first, second) = content.split_at(content.len() / 2);
        let parts = [
            self.add_part(id, first).await,
            self.add_part(id, second).await,
        ];
        let done = self.complete(id, &json!({"part_ids": parts})).await.ok();
        done["file"]["id"].as_str().unwrap().to_owned()
    }

    async fn post_part(&self, upload: &str, form: Form) -> Answer {
        self.post_form(&format!("/v1/uploads/{upload}/parts"), form)
            .await
    }

    async fn complete(&self, upload: &str, body: &Value) -> Answer {
        self.post(&format!("/v1/uploads/{upload}/complete"), body)
            .await
    }

    async fn cancel(&self, upload: &str) -> Answer {
        self.post_text(&format!("/v1/uploads/{upload}/cancel"), "")
            .await
    }
}

fn code(answer: &Answer) -> String {
    let (status, _, code) = answer.refusal();
    assert_eq!(status, 400, "{}", answer.text);
    code.unwrap_or_default()
}

#[tokio::test]
async fn parts_sent_at_once_become_a_file_in_the_order_that_is_named_last() {
    let app = TestApp::start().await;
    let began = app
        .alice
        .post("/v1/uploads", &request(ROWS.len()))
        .await
        .ok();
    insta::assert_json_snapshot!(redacted(&began), @r#"
    {
      "bytes": 176,
      "created_at": 1795521600,
      "expires_at": 1795525200,
      "file": null,
      "filename": "train.jsonl",
      "id": "[upload]",
      "object": "upload",
      "purpose": "fine-tune",
      "status": "pending"
    }
    "#);
    let id = began["id"].as_str().unwrap();
    // Cut in the middle of rows; the last part is stored first.
    let pieces = [&ROWS[..50], &ROWS[50..51], &ROWS[51..]];
    let added = join_all(
        pieces
            .iter()
            .rev()
            .map(|piece| app.alice.add_part(id, piece)),
    )
    .await;
    let in_order: Vec<_> = added.into_iter().rev().collect();

    let body = json!({"part_ids": in_order, "md5": md5_of(ROWS).to_uppercase()});
    let done = app.alice.complete(id, &body).await.ok();
    insta::assert_json_snapshot!(redacted(&done), @r#"
    {
      "bytes": 176,
      "created_at": 1795521600,
      "expires_at": 1795525200,
      "file": {
        "bytes": 176,
        "created_at": 1795521600,
        "expires_at": null,
        "filename": "train.jsonl",
        "id": "[file]",
        "object": "file",
        "purpose": "fine-tune",
        "status": "processed",
        "status_details": null
      },
      "filename": "train.jsonl",
      "id": "[upload]",
      "object": "upload",
      "purpose": "fine-tune",
      "status": "completed"
    }
    "#);
    let file = done["file"]["id"].as_str().unwrap();
    let content = app.alice.get(&format!("/v1/files/{file}/content")).await;
    assert_eq!(content.text, ROWS);
    // It can be trained on like any other.
    app.alice.job(json!({"training_file": file})).await;
}

#[tokio::test]
async fn what_is_too_large_for_one_request_comes_in_parts_none_of_which_is() {
    let app = TestApp::start().await;
    let max = usize::try_from(MAX_FILE_BYTES).unwrap();
    let content = ROWS.repeat(max / ROWS.len() + 1);
    let whole = app.alice.upload(Form::of("fine-tune", &content)).await;
    assert_eq!(whole.status, 413);
    let id = app.alice.file_in_parts("fine-tune", &content).await;
    let file = app.alice.get(&format!("/v1/files/{id}")).await.ok();
    assert_eq!(file["bytes"], content.len());

    let upload = app.alice.begin_upload(max + 1).await;
    let part = Form::part(vec![b'x'; max + 1]);
    assert_eq!(app.alice.post_part(&upload, part).await.refusal().0, 413);
    app.alice.add_part(&upload, &"x".repeat(max)).await;
}

#[tokio::test]
async fn a_part_says_what_it_is_a_part_of() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(8).await;
    let part = app.alice.post_part(&id, Form::part("abcd")).await.ok();
    assert_eq!(
        (&part["object"], &part["upload_id"], &part["created_at"]),
        (
            &json!("upload.part"),
            &json!(id),
            &json!(START.unix_timestamp())
        )
    );
}

#[tokio::test]
async fn a_new_upload_names_its_faults() {
    let app = TestApp::start().await;
    for (field, value, param) in [
        ("filename", json!(null), "filename"),
        ("filename", json!(3), "filename"),
        ("filename", json!("x".repeat(2000)), "filename"),
        ("purpose", json!("fine-tune-results"), "purpose"),
        ("mime_type", json!(null), "mime_type"),
        ("bytes", json!(null), "bytes"),
        ("bytes", json!(0), "bytes"),
        ("bytes", json!(-1), "bytes"),
        ("bytes", json!(1.5), "bytes"),
        ("bytes", json!(MAX_UPLOAD_BYTES + 1), "bytes"),
        ("bytes", json!(u64::MAX), "bytes"),
        ("expires_after", json!(60), "expires_after.anchor"),
        (
            "expires_after",
            json!({"anchor": "created_at", "seconds": 60}),
            "expires_after.seconds",
        ),
    ] {
        let mut body = request(8);
        body[field] = value;
        let refusal = app.alice.post("/v1/uploads", &body).await.refusal();
        assert_eq!(
            (refusal.0, refusal.1.as_deref()),
            (400, Some(param)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn the_file_of_an_upload_expires_when_it_was_asked_to() {
    let app = TestApp::start().await;
    let mut body = request(ROWS.len());
    body["expires_after"] = json!({"anchor": "created_at", "seconds": 3600});
    let id = app.alice.post("/v1/uploads", &body).await.ok()["id"].clone();
    let id = id.as_str().unwrap();
    let part = app.alice.add_part(id, ROWS).await;
    app.clock.advance(Duration::from_mins(1));
    let body = json!({"part_ids": [part]});
    let file = app.alice.complete(id, &body).await.ok()["file"].clone();
    assert_eq!(file["expires_at"], START.unix_timestamp() + 3660);
}

#[tokio::test]
async fn a_part_that_cannot_be_one_leaves_nothing() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(8).await;
    for (form, status) in [
        (Form::part(""), 400),
        (Form::part("123456789"), 413),
        (Form::default().field("other", "x"), 400),
        (Form::part("abcd").part_too("abcd"), 400),
    ] {
        let (found, param, _) = app.alice.post_part(&id, form).await.refusal();
        assert_eq!((found, param.as_deref()), (status, Some("data")));
    }
    let huge = Form::part(vec![b'x'; 200_000]);
    assert_eq!(app.alice.post_part(&id, huge).await.refusal().0, 413);
    assert_eq!(app.object_keys().await, Vec::<String>::new());
}

impl Form {
    fn part_too(self, content: &str) -> Self {
        let mut bytes = self.cut();
        bytes.extend_from_slice(&Self::part(content).cut());
        Self::from_bytes(bytes)
    }
}

#[tokio::test]
async fn an_upload_is_no_place_to_store_things_without_end() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(8).await;
    for _ in 0..4 {
        app.alice.add_part(&id, "abcd").await;
    }
    let refused = app.alice.post_part(&id, Form::part("e")).await;
    assert_eq!(code(&refused), "too_many_parts");
    assert_eq!(app.object_keys().await.len(), 4);
}

#[tokio::test]
async fn what_does_not_add_up_makes_no_file_and_can_be_put_right() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(ROWS.len()).await;
    let first = app.alice.add_part(&id, &ROWS[..100]).await;
    let second = app.alice.add_part(&id, &ROWS[100..]).await;
    let other = app.alice.begin_upload(8).await;
    let of_another = app.alice.add_part(&other, "abcd").await;
    let missing = format!("part_{}", "0".repeat(32));
    for (body, wanted) in [
        (json!({"part_ids": [first]}), "upload_size_mismatch"),
        (json!({"part_ids": [first, first]}), "invalid_value"),
        (json!({"part_ids": [first, of_another]}), "part_not_found"),
        (json!({"part_ids": [first, missing]}), "part_not_found"),
        (json!({"part_ids": [first, "x"]}), "part_not_found"),
        (json!({"part_ids": [first, 3]}), "invalid_value"),
        (json!({"part_ids": []}), "invalid_value"),
        (json!({}), "invalid_value"),
        (
            json!({"part_ids": [first, second], "md5": "0"}),
            "invalid_value",
        ),
        (
            json!({"part_ids": [first, second], "md5": "0".repeat(32)}),
            "checksum_mismatch",
        ),
        // Whole, but the second half comes first: no row begins there.
        (json!({"part_ids": [second, first]}), "invalid_file_format"),
        (
            json!({"part_ids": [second, first], "md5": md5_of(ROWS)}),
            "checksum_mismatch",
        ),
    ] {
        let refused = app.alice.complete(&id, &body).await;
        assert_eq!(code(&refused), wanted, "{body}");
    }
    let listed = app.alice.get("/v1/files").await.ok();
    assert_eq!(listed["data"], json!([]));
    assert_eq!(app.object_keys().await.len(), 3, "only the parts");
    let body = json!({"part_ids": [first, second], "md5": md5_of(ROWS)});
    app.alice.complete(&id, &body).await.ok();
}

#[tokio::test]
async fn another_tenants_part_is_no_part() {
    let app = TestApp::start().await;
    let alices = app.alice.begin_upload(4).await;
    let part = app.alice.add_part(&alices, "abcd").await;
    let bobs = app.bob.begin_upload(4).await;
    let refused = app.bob.complete(&bobs, &json!({"part_ids": [part]})).await;
    assert_eq!(code(&refused), "part_not_found");
}

#[tokio::test]
async fn completing_at_once_and_again_makes_one_file() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(ROWS.len()).await;
    let part = app.alice.add_part(&id, ROWS).await;
    let body = json!({"part_ids": [part]});
    let answers = join_all((0..6).map(|_| app.alice.complete(&id, &body))).await;
    let first = answers[0].ok();
    for answer in &answers {
        assert_eq!(answer.ok(), first);
    }
    assert_eq!(app.alice.complete(&id, &body).await.ok(), first);
    let listed = app.alice.get("/v1/files").await.ok();
    assert_eq!(listed["data"], json!([first["file"]]));
    // The part waits for the sweep; the losers' objects are gone.
    assert_eq!(app.object_keys().await.len(), 2);

    let other = json!({"part_ids": [part], "md5": md5_of(ROWS)});
    let refused = app.alice.complete(&id, &other).await;
    assert_eq!(code(&refused), "upload_is_final");
    assert_eq!(code(&app.alice.cancel(&id).await), "upload_is_final");
    let late = app.alice.post_part(&id, Form::part("x")).await;
    assert_eq!(code(&late), "upload_is_final");
}

#[tokio::test]
async fn a_cancelled_upload_stays_cancelled() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(4).await;
    let part = app.alice.add_part(&id, "abcd").await;
    let cancelled = app.alice.cancel(&id).await.ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(app.alice.cancel(&id).await.ok(), cancelled);
    let body = json!({"part_ids": [part]});
    assert_eq!(
        code(&app.alice.complete(&id, &body).await),
        "upload_is_final"
    );
}

#[tokio::test]
async fn an_upload_takes_nothing_after_its_hour() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(4).await;
    let part = app.alice.add_part(&id, "abcd").await;
    app.clock.advance(Duration::from_hours(1));
    let late = app.alice.post_part(&id, Form::part("x")).await;
    assert_eq!(code(&late), "upload_expired");
    let body = json!({"part_ids": [part]});
    assert_eq!(
        code(&app.alice.complete(&id, &body).await),
        "upload_expired"
    );
}

#[tokio::test]
async fn parts_make_no_file_that_the_project_may_not_store() {
    let app = TestApp::start().await;
    let id = app.alice.begin_upload(ROWS.len()).await;
    let part = app.alice.add_part(&id, ROWS).await;
    let job = app.alice.job(json!({})).await;
    let org_id = job["organization_id"].as_str().unwrap().parse().unwrap();
    let quotas = Quotas {
        max_storage_bytes: Some(ROWS.len() as u64 + 1),
        ..Quotas::default()
    };
    let mut tx = app.database.store().operator_tx().await.unwrap();
    quotas::set(&mut tx, org_id, app.alice_project, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let n_objects = app.object_keys().await.len();
    let refused = app.alice.complete(&id, &json!({"part_ids": [part]})).await;
    let refusal = refused.refusal();
    assert_eq!(
        (refusal.0, refusal.2.as_deref()),
        (429, Some("insufficient_quota"))
    );
    assert_eq!(app.object_keys().await.len(), n_objects);
    let refused = app.alice.post("/v1/uploads", &request(8)).await;
    assert_eq!(refused.status, 429);
}

#[tokio::test]
async fn parts_count_until_they_are_a_file_or_nothing() {
    let app = TestApp::start().await;
    let quotas = Quotas {
        max_storage_bytes: Some(ROWS.len() as u64 + 10),
        ..Quotas::default()
    };
    let mut tx = app.database.store().operator_tx().await.unwrap();
    quotas::set(&mut tx, app.alice_org, app.alice_project, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let first = app.alice.begin_upload(ROWS.len()).await;
    let second = app.alice.begin_upload(ROWS.len()).await;
    let part = app.alice.add_part(&first, ROWS).await;
    let refused = app.alice.post_part(&second, Form::part(ROWS)).await;
    assert_eq!(
        refused.refusal(),
        (429, None, Some("insufficient_quota".to_owned()))
    );
    assert!(
        refused.text.contains("max_storage_bytes"),
        "{}",
        refused.text
    );
    assert_eq!(app.object_keys().await.len(), 1);
    // They make room for what is made of them.
    let made = app
        .alice
        .complete(&first, &json!({"part_ids": [part]}))
        .await
        .ok();
    let refused = app.alice.post_part(&second, Form::part(ROWS)).await;
    assert_eq!(refused.status, 429);
    let file = made["file"]["id"].as_str().unwrap();
    app.alice.delete(&format!("/v1/files/{file}")).await.ok();
    app.alice.add_part(&second, ROWS).await;
    app.alice.cancel(&second).await.ok();
    app.alice.training_file().await;
}

#[tokio::test]
async fn parts_at_once_fill_the_quota_and_no_more() {
    let app = TestApp::start().await;
    let quotas = Quotas {
        max_storage_bytes: Some(30),
        ..Quotas::default()
    };
    let id = app.alice.begin_upload(30).await;
    let mut tx = app.database.store().operator_tx().await.unwrap();
    quotas::set(&mut tx, app.alice_org, app.alice_project, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let sent = (0..6).map(|_| app.alice.post_part(&id, Form::part("0123456789")));
    let stored = join_all(sent).await;
    let stored = stored.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((stored, app.object_keys().await.len()), (3, 3));
}
