//! What holds for every input.

use dataset::{Limits, QuickScan, read_rows};
use proptest::prelude::*;
use serde_json::json;
use text::{Conversation, Message};

fn small_limits() -> Limits {
    Limits {
        max_line_bytes: 200,
        max_rows: 50,
        max_messages: 5,
    }
}

/// Bytes with the pieces of rows among them, so that more than the first check is reached.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        prop::sample::select(vec![
            "{\"messages\":[",
            "{\"role\":\"assistant\",",
            "\"content\":\"x\"",
            "\"weight\":",
            "]}",
            "\n",
            "}",
            ",",
            "[",
            "null",
            "\\u0000",
            "\"",
            "\"tool_calls\":[{}]",
            "1e999",
            "\u{FEFF}",
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}\n",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

fn message() -> impl Strategy<Value = Message> {
    let role = prop::sample::select(text::ROLES.to_vec());
    // NUL is refused; everything else is text.
    (role, "[^\0]{0,20}", prop::option::of(0..=1u8)).prop_map(|(role, content, weight)| Message {
        weight: weight.filter(|_| role == "assistant"),
        ..Message::new(role, content)
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_lose_count(file in nearly_json()) {
        let mut last_line = 0;
        for row in read_rows(file.as_slice(), &small_limits()) {
            let line = match &row {
                Ok(row) => row.line,
                Err(error) => {
                    prop_assert!(error.byte_offset <= file.len() as u64);
                    prop_assert!(!error.to_string().is_empty());
                    error.line
                }
            };
            prop_assert!(line > last_line);
            last_line = line;
        }
        prop_assert!(last_line > 0, "an empty file is an error too");
    }

    #[test]
    fn a_scan_sees_as_many_rows_as_the_reader(file in nearly_json(), chunk in 1..64usize) {
        let mut scan = QuickScan::new();
        file.chunks(chunk).for_each(|chunk| scan.push(chunk));
        let n_rows = read_rows(file.as_slice(), &Limits::default()).count() as u64;
        let report = scan.finish();
        prop_assert_eq!(report.n_rows.max(1), n_rows);
        prop_assert_eq!(report.n_bytes, file.len() as u64);
    }

    #[test]
    fn rows_come_back_as_they_were_written(
        mut conversations in prop::collection::vec(prop::collection::vec(message(), 0..4), 1..5),
    ) {
        let mut file = String::new();
        for messages in &mut conversations {
            messages.push(Message::new("assistant", "end"));
            file.push_str(&json!({ "messages": messages }).to_string());
            file.push('\n');
        }
        let rows: Vec<_> = read_rows(file.as_bytes(), &Limits::default())
            .map(|row| row.map(|row| row.conversation))
            .collect::<Result<_, _>>()
            .unwrap();
        let expected: Vec<_> = conversations.into_iter().map(Conversation::new).collect();
        prop_assert_eq!(rows, expected);
    }
}
