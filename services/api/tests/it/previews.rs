//! The rows of a file as a model would read them.

use serde_json::{Value, json};

use crate::support::{Form, TestApp, Wordy, tokenizer};

const PREVIEW: &str = "/v1/fine_tuning/jobs/preview";

/// The preview of a file of these rows, with these fields beside the file.
async fn preview(app: &TestApp, rows: &[Value], fields: Value) -> Value {
    app.register_wordy().await;
    preview_of_wordy(app, rows, fields).await
}

async fn preview_of_wordy(app: &TestApp, rows: &[Value], fields: Value) -> Value {
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    let rows = rows.join("\n") + "\n";
    let file = app.alice.upload(Form::of("fine-tune", &rows)).await.ok();
    let mut body = json!({"model": "wordy", "training_file": file["id"]});
    let Value::Object(fields) = fields else {
        panic!("fields are an object")
    };
    body.as_object_mut().unwrap().extend(fields);
    app.alice.post(PREVIEW, &body).await.ok()
}

fn chat(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

/// Line and code of every problem.
fn problems(preview: &Value) -> Vec<(u64, String)> {
    let problems = preview["problems"].as_array().unwrap().iter();
    let pair = |problem: &Value| {
        let code = problem["code"].as_str().unwrap().to_owned();
        (problem["line"].as_u64().unwrap(), code)
    };
    problems.map(pair).collect()
}

#[tokio::test]
async fn a_row_shows_what_is_given_and_what_is_learned() {
    let app = TestApp::start().await;
    let shown = preview(
        &app,
        &[chat("Hi", "Yo"), chat("a", "b")],
        json!({"n_rows": 1}),
    )
    .await;
    assert_eq!(
        (
            shown["rows"].as_array().unwrap().len(),
            &shown["is_whole_file"]
        ),
        (1, &json!(false))
    );
    let row = &shown["rows"][0];
    let learned = ["Y", "o", "<|im_end|>", "\n"];
    let given = "<|im_start|> u s e r \n H i <|im_end|> \n <|im_start|> a s s i s t a n t \n";
    let given = given.split(' ').map(|text| (text, false));
    let tokens = given.chain(learned.map(|text| (text, true)));
    let ids = tokenizer()["model"]["vocab"].take();
    let tokens = tokens
        .map(|(text, supervised)| json!({"id": ids[text], "text": text, "supervised": supervised}));
    let expected = json!({
        "segments": [
            {"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "supervised": false},
            {"text": "Yo<|im_end|>\n", "supervised": true},
        ],
        "tokens": tokens.collect::<Vec<Value>>(),
        "cut_text": "", "n_tokens": 25, "n_loss_tokens": 4, "n_cut_tokens": 0,
    });
    assert_eq!((&row["line"], &row["example"]), (&json!(1), &expected));
    assert_eq!(
        (&row["rejected"], &row["label"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(shown["problems"], json!([]));
}

#[tokio::test]
async fn every_loss_of_data_is_named_with_its_line() {
    let app = TestApp::start().await;
    let rows = [
        chat("a", "b"),
        json!({"messages": "none"}),
        chat("a", &"x".repeat(40)),
        chat(&"x".repeat(40), "b"),
    ];
    let shown = preview(&app, &rows, json!({"attune": {"max_seq_len": 30}})).await;
    let expected = [
        (2, "invalid_row"),
        (3, "truncated"),
        (4, "truncated"),
        (4, "nothing_to_learn"),
    ];
    assert_eq!(
        problems(&shown),
        expected.map(|(line, code)| (line, code.to_owned()))
    );
    let cut = &shown["rows"][1]["example"];
    let kept = cut["tokens"].as_array().unwrap();
    assert_eq!((kept.len(), &kept[29]["text"]), (30, &json!("x")));
    assert_eq!(
        (&cut["n_tokens"], &cut["n_cut_tokens"]),
        (&json!(30), &json!(20 + 42 - 30))
    );
    assert!(cut["cut_text"].as_str().unwrap().ends_with("x<|im_end|>\n"));
    assert_eq!(shown["is_whole_file"], json!(true));
}

/// Ends no turn, and refuses to speak of the weather.
const ENDLESS: &str = "{% for m in messages %}{% if m.content == 'rain' %}{{ raise_exception('no weather') }}{% endif %}\
                       {{ m.role }}: {{ m.content }}\n{% endfor %}\
                       {% if add_generation_prompt %}assistant: {% endif %}";

#[tokio::test]
async fn a_template_that_fails_or_ends_no_turn_is_named_with_the_row() {
    let app = TestApp::start().await;
    app.register_wordy_with(Wordy {
        template: ENDLESS,
        ..Wordy::default()
    })
    .await;
    let rows = [
        chat("a", "b"),
        chat("rain", "b"),
        chat("a", &"x".repeat(40)),
    ];
    let settings = json!({"attune": {"max_seq_len": 40}});
    let shown = preview_of_wordy(&app, &rows, settings).await;
    // The third is cut, so that its end is missing anyway.
    let expected = [
        (1, "no_end_learned"),
        (2, "template_failed"),
        (3, "truncated"),
    ];
    assert_eq!(
        problems(&shown),
        expected.map(|(line, code)| (line, code.to_owned()))
    );
    let failed = shown["problems"][1]["message"].as_str().unwrap();
    assert!(failed.contains("no weather"), "{failed}");
    let lines: Vec<&Value> = shown["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["line"])
        .collect();
    assert_eq!(lines, [1, 3], "what failed is not shown as empty text");
}

#[tokio::test]
async fn what_ends_a_text_is_also_read_from_the_generation_config() {
    let app = TestApp::start().await;
    let template = ENDLESS.replace("m.content }}", "m.content }}<|im_start|>");
    app.register_wordy_with(Wordy {
        template: &template,
        generation_config: json!({"eos_token_id": [0]}),
        ..Wordy::default()
    })
    .await;
    let shown = preview_of_wordy(&app, &[chat("a", "b")], json!({})).await;
    assert_eq!(shown["problems"], json!([]));
}

#[tokio::test]
async fn a_preference_shows_both_answers() {
    let app = TestApp::start().await;
    let row = json!({
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    });
    let shown = preview(&app, &[row], json!({"attune": {"method": "dpo"}})).await;
    let row = &shown["rows"][0];
    assert_eq!(row["example"]["segments"][1]["text"], "good<|im_end|>\n");
    assert_eq!(row["rejected"]["segments"][1]["text"], "bad<|im_end|>\n");
}

#[tokio::test]
async fn so_many_tokens_are_shown_one_by_one_and_no_more() {
    let app = TestApp::start().await;
    let rows = [
        chat("a", &"x".repeat(30_000)),
        chat("a", &"y".repeat(30_000)),
    ];
    app.register_wordy_with(Wordy {
        context_length: 1 << 16,
        ..Wordy::default()
    })
    .await;
    let settings = json!({"attune": {"max_seq_len": 1 << 16}});
    let shown = preview_of_wordy(&app, &rows, settings).await;
    let n_shown = |row: usize| {
        shown["rows"][row]["example"]["tokens"]
            .as_array()
            .unwrap()
            .len()
    };
    let n_tokens = 30_000 + 22;
    assert_eq!((n_shown(0), n_shown(1)), (n_tokens, 50_000 - n_tokens));
    for row in shown["rows"].as_array().unwrap() {
        assert_eq!(row["example"]["n_tokens"], json!(n_tokens));
    }
}

#[tokio::test]
async fn too_many_rows_are_refused() {
    let app = TestApp::start().await;
    let body = json!({"model": "tiny", "training_file": "file-x", "n_rows": 21});
    let refused = app.alice.post(PREVIEW, &body).await.refusal();
    assert_eq!((refused.0, refused.1.as_deref()), (400, Some("n_rows")));
}
