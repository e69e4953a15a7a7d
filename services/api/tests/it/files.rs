//! Looking at files, listing and downloading them.

use reqwest::Method;
use reqwest::header::RANGE;
use serde_json::json;

use crate::support::{Form, ROWS, START, TestApp, redacted};

#[tokio::test]
async fn a_file_is_described_with_every_key() {
    let app = TestApp::start().await;
    let created = app.alice.upload(Form::of("fine-tune", ROWS)).await.ok();
    insta::assert_json_snapshot!(redacted(&created), @r#"
    {
      "bytes": 176,
      "created_at": 1795521600,
      "expires_at": null,
      "filename": "train.jsonl",
      "id": "[file]",
      "object": "file",
      "purpose": "fine-tune",
      "status": "processed",
      "status_details": null
    }
    "#);
    let id = created["id"].as_str().unwrap();
    assert_eq!(
        app.alice.get(&format!("/v1/files/{id}")).await.ok(),
        created
    );
}

#[tokio::test]
async fn a_file_expires_when_it_was_asked_to() {
    let app = TestApp::start().await;
    let form = Form::default()
        .field("purpose", "user_data")
        .field("expires_after[anchor]", "created_at")
        .field("expires_after[seconds]", "3600")
        .file("a.bin", "\u{0}\u{1}");
    let created = app.alice.upload(form).await.ok();
    assert_eq!(created["expires_at"], START.unix_timestamp() + 3600);
}

#[tokio::test]
async fn the_input_of_a_batch_expires_after_thirty_days() {
    let app = TestApp::start().await;
    let created = app.alice.upload(Form::of("batch", ROWS)).await.ok();
    let days = START.unix_timestamp() + 30 * 24 * 3600;
    assert_eq!(created["expires_at"], days);
}

#[tokio::test]
async fn files_are_listed_newest_first_in_exact_pages() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for purpose in ["fine-tune", "batch", "fine-tune"] {
        let created = app.alice.upload(Form::of(purpose, ROWS)).await.ok();
        ids.push(created["id"].clone());
        app.clock.advance(std::time::Duration::from_secs(1));
    }
    let page = app.alice.get("/v1/files?limit=2").await.ok();
    assert_eq!(page["data"][0]["id"], ids[2]);
    assert_eq!(
        (&page["first_id"], &page["last_id"], &page["has_more"]),
        (&ids[2], &ids[1], &json!(true))
    );
    let after = ids[1].as_str().unwrap();
    let page = app
        .alice
        .get(&format!("/v1/files?limit=2&after={after}"))
        .await
        .ok();
    assert_eq!(
        (&page["last_id"], &page["has_more"]),
        (&ids[0], &json!(false))
    );

    let batch = app.alice.get("/v1/files?purpose=batch").await.ok();
    assert_eq!(batch["data"].as_array().unwrap().len(), 1);
    let oldest = app.alice.get("/v1/files?order=asc&limit=1").await.ok();
    assert_eq!(oldest["data"][0]["id"], ids[0]);
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let app = TestApp::start().await;
    insta::assert_json_snapshot!(app.alice.get("/v1/files").await.ok(), @r#"
    {
      "data": [],
      "first_id": null,
      "has_more": false,
      "last_id": null,
      "object": "list"
    }
    "#);
}

#[tokio::test]
async fn a_list_refuses_what_it_does_not_understand() {
    let app = TestApp::start().await;
    for (query, param) in [
        ("limit=ten", Some("limit")),
        ("order=up", Some("order")),
        ("after=x", Some("after")),
        ("after=file-00000000000000000000000000000000", Some("after")),
        ("purpose=%00", None),
    ] {
        let refusal = app.alice.get(&format!("/v1/files?{query}")).await.refusal();
        assert_eq!((refusal.0, refusal.1.as_deref()), (400, param), "{query}");
    }
}

#[tokio::test]
async fn content_comes_back_whole_and_by_range() {
    let app = TestApp::start().await;
    let id = app.alice.training_file().await;
    let path = format!("/v1/files/{id}/content");
    let whole = app.alice.get(&path).await;
    assert_eq!((whole.status, whole.text.as_str()), (200, ROWS));
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename*=UTF-8''train.jsonl"
    );

    for (range, status, text, shown) in [
        ("bytes=2-9", 206, &ROWS[2..10], "bytes 2-9/176"),
        ("bytes=-4", 206, &ROWS[172..], "bytes 172-175/176"),
        ("bytes=0-1,4-5", 200, ROWS, ""),
    ] {
        let request = app.alice.request(Method::GET, &path).header(RANGE, range);
        let part = app.alice.send(request).await;
        assert_eq!((part.status, part.text.as_str()), (status, text), "{range}");
        assert_eq!(part.header("content-range"), shown);
    }
    let request = app
        .alice
        .request(Method::GET, &path)
        .header(RANGE, "bytes=176-");
    let outside = app.alice.send(request).await;
    assert_eq!(
        (outside.status, outside.header("content-range")),
        (416, "bytes */176")
    );
}
