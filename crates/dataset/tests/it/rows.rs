//! What a good row becomes.

use dataset::{Limits, Row, read_rows};
use serde_json::json;

pub(crate) fn rows(file: &str) -> Vec<Row> {
    read_rows(file.as_bytes(), &Limits::default())
        .collect::<Result<_, _>>()
        .unwrap()
}

pub(crate) fn chat(question: &str, answer: &str) -> String {
    json!({"messages": [{"role": "user", "content": question},
                        {"role": "assistant", "content": answer}]})
    .to_string()
}

#[test]
fn blank_lines_a_byte_order_mark_and_windows_line_ends_are_tolerated() {
    let file = format!("\u{FEFF}{}\r\n\r\n  \t\n{}", chat("a", "b"), chat("c", "d"));
    let rows = rows(&file);
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(
        rows[1].conversation.messages[1].content.as_deref(),
        Some("d")
    );
}

#[test]
fn every_field_of_a_message_is_kept() {
    let row = json!({
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be "},
                                              {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Weather?", "name": "ana"},
            {"role": "assistant", "content": null, "weight": 1, "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
            {"role": "tool", "content": "rain", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Rain.", "weight": 0, "refusal": null},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
        "parallel_tool_calls": false,
        "metadata": {"source": "x"},
    });
    let row = rows(&row.to_string()).remove(0);
    let messages = &row.conversation.messages;
    assert_eq!(messages[0].content.as_deref(), Some("Be brief."));
    assert_eq!(messages[1].name.as_deref(), Some("ana"));
    assert_eq!(messages[2].content, None);
    assert!(messages[2].is_supervised() && messages[2].tool_calls.is_some());
    assert_eq!(messages[3].tool_call_id.as_deref(), Some("c1"));
    assert!(!messages[4].is_supervised() && messages[4].extra.contains_key("refusal"));
    assert!(row.conversation.tools.is_some());
}

#[test]
fn the_older_functions_become_tools() {
    let row = json!({"messages": [{"role": "assistant", "content": "x"}],
                     "functions": [{"name": "f"}]});
    let row = rows(&row.to_string()).remove(0);
    let expected = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(row.conversation.tools, Some(expected));
}

#[test]
fn a_hash_is_of_the_words_and_not_of_how_they_are_written() {
    let hash = |row: &str| rows(row)[0].hash;
    let plain = hash(&chat("a\nb", "c"));
    assert_eq!(plain, hash(&chat(" a\r\nb ", "c")));
    let spelt_otherwise = r#" {"metadata": {}, "messages": [{"content": [{"type": "text",
        "text": "a\nb"}], "role": "user"}, {"weight": 1, "content": "c", "role": "assistant"}]}"#;
    assert_eq!(plain, hash(&spelt_otherwise.replace('\n', "")));
    assert_ne!(plain, hash(&chat("a\nb", "C")));
    assert_ne!(hash(&chat("ab", "c")), hash(&chat("a", "bc")));
}
