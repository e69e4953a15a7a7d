//! Uploads in every form that clients send, and in those that break.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Form, MAX_FILE_BYTES, ROWS, TestApp};

#[tokio::test]
async fn the_file_may_come_before_its_purpose() {
    let app = TestApp::start().await;
    let form = Form::default()
        .file("node.jsonl", ROWS)
        .field("purpose", "fine-tune");
    let created = app.alice.upload(form).await.ok();
    assert_eq!(created["filename"], "node.jsonl");
    assert_eq!(app.object_keys().await.len(), 1);
}

/// Uploads each form, expects the refusal, and that nothing is left of any.
async fn expect_refusals(cases: Vec<(Form, u16, &str)>) {
    let app = TestApp::start().await;
    for (form, status, param) in cases {
        let bytes = form.clone().cut();
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let (found, found_param, _) = app.alice.upload(form).await.refusal();
        assert_eq!(
            (found, found_param.as_deref()),
            (status, Some(param)),
            "{shown}"
        );
    }
    assert_eq!(app.object_keys().await, Vec::<String>::new());
    assert_eq!(
        app.alice.get("/v1/files").await.ok()["data"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn a_refused_file_leaves_nothing() {
    let too_large = vec![b'{'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
    let file_first = Form::default().file("a.jsonl", &too_large);
    expect_refusals(vec![
        (Form::of("fine-tune", ""), 400, "file"),
        (Form::of("user_data", ""), 400, "file"),
        (Form::of("fine-tune", "\n \n"), 400, "file"),
        (
            Form::of("fine-tune", "prompt,completion\na,b\n"),
            400,
            "file",
        ),
        (Form::of("fine-tune", [0xff, 0xfe, 0x00]), 400, "file"),
        (Form::of("fine-tune", "[".repeat(60_000)), 400, "file"),
        (Form::of("fine-tune", r#"{"a":1,"a":2}"#), 400, "file"),
        (Form::of("fine-tune", &too_large), 413, "file"),
        (file_first.field("purpose", "fine-tune"), 413, "file"),
    ])
    .await;
}

#[tokio::test]
async fn a_refused_form_leaves_nothing() {
    let form = || Form::of("fine-tune", ROWS);
    let file_first = || Form::default().file("a.jsonl", ROWS);
    expect_refusals(vec![
        (Form::of("no-such", ROWS), 400, "purpose"),
        (Form::of("fine-tune-results", ROWS), 400, "purpose"),
        (Form::of(&"x".repeat(5000), ROWS), 400, "purpose"),
        (file_first(), 400, "purpose"),
        (file_first().field("purpose", "no-such"), 400, "purpose"),
        (Form::default().field("purpose", "fine-tune"), 400, "file"),
        (form().file("b.jsonl", ROWS), 400, "file"),
        (
            form().field("expires_after[seconds]", "5"),
            400,
            "expires_after",
        ),
        (
            form().field("expires_after[anchor]", "now"),
            400,
            "expires_after",
        ),
        (
            form().field("expires_after[anchor]", "created_at"),
            400,
            "expires_after",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_file_that_declares_itself_too_large_is_refused_before_it_is_read() {
    let app = TestApp::start().await;
    let refused = app
        .alice
        .upload(Form::of("fine-tune", vec![b'x'; 1 << 20]))
        .await;
    assert_eq!(refused.status, 413);
    insta::assert_snapshot!(refused.text, @r#"{"error":{"message":"The file is larger than the allowed 65536 bytes.","type":"invalid_request_error","param":"file","code":"request_too_large"}}"#);
}

#[tokio::test]
async fn a_form_without_its_end_leaves_nothing() {
    let app = TestApp::start().await;
    for body in [
        Form::of("fine-tune", ROWS).cut(),
        Form::of("fine-tune", ROWS).cut()[..200].to_vec(),
    ] {
        let request = app.alice.request(reqwest::Method::POST, "/v1/files");
        let request = request
            .header("content-type", Form::CONTENT_TYPE)
            .body(body);
        let refusal = app.alice.send(request).await.refusal();
        assert_eq!(refusal.0, 400, "{refusal:?}");
    }
    assert_eq!(app.object_keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing() {
    let app = TestApp::start().await;
    let body = Form::of("fine-tune", ROWS).cut();
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {}\r\n\
         content-length: 50000\r\n\r\n",
        app.alice.key(),
        Form::CONTENT_TYPE,
    );
    let mut stream = TcpStream::connect(app.alice.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream.shutdown().await.unwrap();
    // The server closes the connection when it is done with it.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(app.object_keys().await, Vec::<String>::new());
    assert_eq!(
        app.alice.get("/v1/files").await.ok()["data"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let app = TestApp::start().await;
    assert_eq!(
        app.alice.post_text("/v1/files", "{}").await.refusal().0,
        415
    );
    let request = app.alice.request(reqwest::Method::POST, "/v1/files");
    let request = request
        .header("content-type", "multipart/form-data")
        .body("x");
    assert_eq!(app.alice.send(request).await.refusal().0, 415);
}

#[tokio::test]
async fn rows_are_only_asked_of_files_to_train_on() {
    let app = TestApp::start().await;
    for purpose in ["assistants", "batch", "vision", "user_data", "evals"] {
        let created = app.alice.upload(Form::of(purpose, [0xff, 0x00])).await.ok();
        assert_eq!(created["purpose"], purpose);
    }
}
