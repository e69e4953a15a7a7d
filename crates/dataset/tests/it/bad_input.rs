//! What a bad row is told.

use std::fmt::Write;
use std::io::{self, BufReader, Read};

use dataset::{Limits, RowError, RowErrorKind, collect_rows, read_rows};
use serde_json::{Value, json};

use crate::rows::chat;

/// The only error of a file of one line.
fn error_of(line: impl AsRef<[u8]>) -> RowError {
    let mut rows = read_rows(line.as_ref(), &Limits::default());
    let error = rows.next().unwrap().unwrap_err();
    assert!(rows.next().is_none());
    error
}

/// A row of a question and `message`.
fn with(message: &Value) -> Value {
    json!({"messages": [{"role": "user", "content": "q"}, message]})
}

fn assert_told(cases: &[(Value, &str)]) {
    for (row, expected) in cases {
        let text = error_of(row.to_string()).to_string();
        assert!(text.starts_with("line 1 (byte 0): "), "{text}");
        assert!(text.contains(expected), "{row}\n{text}");
    }
}

#[test]
fn a_row_without_usable_messages_is_told_what_to_write() {
    let user = json!({"role": "user", "content": "q"});
    assert_told(&[
        (
            json!([1]),
            "the row is an array; it has to be an object with `messages`",
        ),
        (
            json!({"text": "x"}),
            "`messages` is missing; a row is {\"messages\":",
        ),
        (
            json!({"prompt": "a", "completion": "b"}),
            "write `prompt` and `completion` as",
        ),
        (
            json!({"messages": "x"}),
            "`messages` is a string; it has to be an array",
        ),
        (json!({"messages": []}), "the row has no assistant message"),
        (
            json!({"messages": [user]}),
            "the row has no assistant message",
        ),
        (
            with(&json!(3)),
            "`messages[1]` is a number; it has to be an object",
        ),
        (
            with(&json!({"content": "x"})),
            "`messages[1].role` is missing",
        ),
        (
            with(&json!({"role": "bot", "content": "x"})),
            "`messages[1].role` is `bot`; a role is",
        ),
        (
            with(&json!({"role": 1, "content": "x"})),
            "`messages[1].role` is a number",
        ),
        (
            with(&json!({"role": "assistant", "content": 5})),
            "`messages[1].content` is a number",
        ),
        (
            with(&json!({"role": "assistant"})),
            "`messages[1].content` is missing",
        ),
        (
            with(&json!({"role": "user", "content": null})),
            "`messages[1].content` is missing",
        ),
    ]);
    let image = json!([{"type": "image_url", "image_url": {}}]);
    let expected = "`messages[1].content` has a part 0 of type `image_url`; only `text`";
    assert_told(&[(with(&json!({"role": "user", "content": image})), expected)]);
}

#[test]
fn a_wrong_weight_names_its_message() {
    let weighted =
        |role: &str, weight: Value| with(&json!({"role": role, "content": "x", "weight": weight}));
    let told = "`messages[1].weight` is";
    assert_told(&[
        (
            weighted("assistant", json!(2)),
            &format!("{told} 2; a weight is 0 (not trained on) or 1"),
        ),
        (
            weighted("assistant", json!(0.5)),
            &format!("{told} 0.5; a weight"),
        ),
        (
            weighted("assistant", json!("0")),
            &format!("{told} \"0\"; a weight"),
        ),
        (
            weighted("assistant", json!(0)),
            "every assistant message of the row has `weight` 0",
        ),
        (
            weighted("user", json!(1)),
            &format!("{told} on a user message"),
        ),
    ]);
}

#[test]
fn tool_arguments_have_to_be_json_in_a_string() {
    let call = |arguments: Value| {
        with(&json!({"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}))
    };
    let field = "`messages[1].tool_calls[0].function.arguments`";
    assert_told(&[
        (call(json!("{city: Oslo")), &format!("{field} is not JSON")),
        (
            call(json!({"city": "Oslo"})),
            &format!("{field} is an object; it has to be a string"),
        ),
    ]);
}

#[test]
fn bytes_that_are_no_row_are_told_apart() {
    let broken_utf8 = [chat("a", "b").as_bytes(), b" \xFF"].concat();
    let cases: [(&[u8], &str); 9] = [
        (
            b"id,text",
            "the line is not JSON (column 1: expected value)",
        ),
        (
            b"{\"messages\": [",
            "the line ends in the middle of its JSON",
        ),
        (
            b"{\"a\":1,\"a\":2}",
            "the key `a` appears twice in one object (column 10)",
        ),
        (
            b"{\"messages\":[{\"role\":\"user\",\"role\":\"user\"}]}",
            "the key `role` appears twice",
        ),
        (
            b"{\"messages\":\"a\\u0000\"}",
            "`messages` contains a NUL character",
        ),
        (
            b"{\"messages\":\"a\0\"}",
            "the line is not JSON (column 15: control character",
        ),
        (
            &broken_utf8,
            "of the line is not UTF-8; save the file as UTF-8",
        ),
        (b"", "the file has no rows"),
        (b"\n \r\n", "the file has no rows"),
    ];
    for (file, expected) in cases {
        let text = error_of(file).to_string();
        assert!(text.contains(expected), "{}\n{text}", file.escape_ascii());
    }
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(matches!(error_of(utf16).kind, RowErrorKind::NotJson { .. }));
}

#[test]
fn a_million_levels_of_json_are_refused_by_name() {
    let deep = format!("{{\"messages\":{}", "[".repeat(1_000_000));
    assert!(matches!(error_of(deep).kind, RowErrorKind::TooDeep { .. }));
    let arguments = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let row = json!({"messages": [{"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": arguments}}]}]});
    assert!(matches!(
        error_of(row.to_string()).kind,
        RowErrorKind::Arguments { .. }
    ));
}

#[test]
fn a_two_gigabyte_line_is_refused_and_the_next_one_read() {
    let next = format!("\n{}\n", chat("a", "b"));
    let file = io::repeat(b'x').take(2 << 30).chain(next.as_bytes());
    let rows: Vec<_> =
        read_rows(BufReader::with_capacity(1 << 20, file), &Limits::default()).collect();
    assert_eq!(rows.len(), 2);
    let error = rows[0].as_ref().unwrap_err();
    assert!(
        error.to_string().contains("longer than 4194304 bytes"),
        "{error}"
    );
    assert_eq!(rows[1].as_ref().unwrap().line, 2);
}

#[test]
fn all_faulty_lines_are_counted_and_the_first_ones_shown() {
    let mut file = String::new();
    for index in 0..10 {
        let line = if index % 2 == 0 {
            "nope".to_owned()
        } else {
            chat("q", &index.to_string())
        };
        writeln!(file, "{line}").unwrap();
    }
    let faults = collect_rows(file.as_bytes(), &Limits::default(), 2).unwrap_err();
    assert_eq!(faults.total, 5);
    let text = faults.to_string();
    let first_line = chat("q", "1").len() + 1 + 5;
    assert!(
        text.contains(&format!("line 3 (byte {first_line}): ")),
        "{text}"
    );
    assert!(text.ends_with("and 3 more faulty lines"), "{text}");
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn limits_on_rows_and_messages_hold() {
    let limits = Limits {
        max_rows: 2,
        max_messages: 2,
        ..Limits::default()
    };
    let file = format!("{0}\n{0}\n{0}\n{0}\n", chat("a", "b"));
    let rows: Vec<_> = read_rows(file.as_bytes(), &limits).collect();
    assert_eq!(rows.len(), 3);
    assert!(matches!(
        rows[2].as_ref().unwrap_err().kind,
        RowErrorKind::TooManyRows { max_rows: 2 }
    ));
    let message = json!({"role": "assistant", "content": "x"});
    let long = json!({"messages": [message, message, message]}).to_string();
    let error = read_rows(long.as_bytes(), &limits)
        .next()
        .unwrap()
        .unwrap_err();
    assert!(matches!(
        error.kind,
        RowErrorKind::TooManyMessages { found: 3, max: 2 }
    ));
}

#[test]
fn a_reader_that_fails_is_not_the_datas_fault() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let first_row = format!("{}\n", chat("a", "b"));
    let file = BufReader::new(first_row.as_bytes().chain(Broken));
    let rows: Vec<_> = read_rows(file, &Limits::default()).collect();
    assert_eq!(rows.len(), 2);
    assert!(!rows[1].as_ref().unwrap_err().kind.is_fault());
}
