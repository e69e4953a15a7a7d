//! What is found in a file on its way to rows.

use dataset::Limits;
use domain::config::RowKind;
use lm::testing::{tiny_tokenizer_config, tiny_tokenizer_json};
use serde_json::json;
use tempfile::TempDir;
use text::TextModel;
use training::report::data_warnings;
use training::{Format, Rows};

/// Writes turns as plain lines: no token ends them.
const ENDLESS: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                       {% if add_generation_prompt %}assistant: {% endif %}";

fn text_model(template: Option<&str>) -> TextModel {
    let config = tiny_tokenizer_config().to_string();
    TextModel::from_parts(&tiny_tokenizer_json(), config.as_bytes(), template).unwrap()
}

/// Two chats of which the second does not fit, read with this model's template.
fn read(text: &TextModel, kind: RowKind) -> Rows {
    let question = |text: &str| json!({"role": "user", "content": text});
    let answer = |text: &str| json!({"role": "assistant", "content": text});
    let long = "x ".repeat(300);
    let row = |said: &str| match kind {
        RowKind::Preference => json!({"input": {"messages": [question("a")]},
            "preferred_output": [answer(said)], "non_preferred_output": [answer("c")]}),
        _ => json!({"messages": [question("a"), answer(said)]}),
    };
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, format!("{}\n{}\n", row("b"), row(&long))).unwrap();
    let format = Format {
        kind,
        max_seq_len: 100,
    };
    Rows::read(&path, text, format, &Limits::default(), dir.path()).unwrap()
}

#[test]
fn rows_that_teach_no_end_are_counted_and_said() {
    let endless = read(&text_model(Some(ENDLESS)), RowKind::Chat).report;
    assert_eq!((endless.rows_without_end, endless.truncated_rows), (1, 1));
    let said = data_warnings(&endless);
    assert!(
        said[1].contains("1 rows teach no token that ends a text"),
        "{said:?}"
    );

    let ending = read(&text_model(None), RowKind::Chat).report;
    assert_eq!((ending.rows_without_end, ending.truncated_rows), (0, 1));
    assert_eq!(data_warnings(&ending).len(), 1);
}

#[test]
fn either_answer_of_a_preference_may_lack_its_end() {
    // The worse answers are short: both rows have one that was not cut.
    let endless = read(&text_model(Some(ENDLESS)), RowKind::Preference).report;
    assert_eq!(endless.rows_without_end, 2);
    let ending = read(&text_model(None), RowKind::Preference).report;
    assert_eq!(ending.rows_without_end, 0);
}
