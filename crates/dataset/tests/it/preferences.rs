//! Rows that judge answers.

use dataset::{Judgement, Limits, Row, read_rows_of};
use domain::config::RowKind;
use serde_json::{Value, json};

fn read(kind: RowKind, row: &Value) -> Result<Row, String> {
    let line = row.to_string();
    let mut rows = read_rows_of(kind, line.as_bytes(), &Limits::default());
    rows.next().unwrap().map_err(|error| error.to_string())
}

fn said(content: &str) -> Value {
    json!([{"role": "assistant", "content": content}])
}

fn pair() -> Value {
    json!({
        "input": {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "parallel_tool_calls": true,
        },
        "preferred_output": said("good"),
        "non_preferred_output": said("bad"),
    })
}

#[test]
fn a_preference_is_two_conversations_that_differ_in_their_answer() {
    let row = read(RowKind::Preference, &pair()).unwrap();
    let Judgement::BetterThan(other) = row.judgement else {
        panic!("no pair")
    };
    let texts = |messages: &[text::Message]| -> Vec<String> {
        messages
            .iter()
            .map(|message| message.content.clone().unwrap())
            .collect()
    };
    assert_eq!(texts(&row.conversation.messages), ["a", "b", "c", "good"]);
    assert_eq!(texts(&other.messages), ["a", "b", "c", "bad"]);
    assert!(other.tools.is_some() && other.tools == row.conversation.tools);
    // Of what the assistant says only the answer counts.
    let supervised = |message: &text::Message| message.is_supervised();
    let supervised: Vec<bool> = other.messages.iter().map(supervised).collect();
    assert_eq!(supervised, [false, false, false, true]);
}

#[test]
fn the_specifications_names_for_the_outputs_are_read_too() {
    let mut row = pair();
    row["preferred_completion"] = row["preferred_output"].take();
    row["non_preferred_completion"] = row["non_preferred_output"].take();
    row.as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    let found = read(RowKind::Preference, &row).unwrap();
    let expected = read(RowKind::Preference, &pair()).unwrap();
    assert_eq!(found.hash, expected.hash);
}

#[test]
fn a_label_makes_a_conversation_good_or_bad() {
    let row = |name: &str, value: Value| {
        let messages =
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        let mut row = json!({ "messages": messages });
        row[name] = value;
        read(RowKind::Judged, &row)
    };
    let (good, bad) = (row("label", true.into()), row("kto_tag", false.into()));
    let (good, bad) = (good.unwrap(), bad.unwrap());
    assert_eq!(
        (good.judgement, bad.judgement),
        (Judgement::Good, Judgement::Bad)
    );
    assert_ne!(good.hash, bad.hash);
    let error = row("label", "yes".into()).unwrap_err();
    assert!(
        error.contains("`label` is a string; it has to be true"),
        "{error}"
    );
    let error = row("lable", true.into()).unwrap_err();
    assert!(error.contains("`label` is missing"), "{error}");
}

#[test]
fn what_is_wrong_with_a_preference_is_named() {
    let without = |name: &str| {
        let mut row = pair();
        row.as_object_mut().unwrap().remove(name);
        row
    };
    let with = |name: &str, value: Value| {
        let mut row = pair();
        row[name] = value;
        row
    };
    for (row, expected) in [
        (without("input"), "`input` is missing"),
        (without("preferred_output"), "`preferred_output` is missing"),
        (
            without("non_preferred_output"),
            "`non_preferred_output` is missing",
        ),
        (with("input", json!({})), "`input.messages` is missing"),
        (with("input", json!([])), "`input` is an array"),
        (
            with("preferred_output", json!([])),
            "`preferred_output` has no assistant message",
        ),
        (
            with("preferred_output", json!("x")),
            "`preferred_output` is a string",
        ),
        (
            with("non_preferred_output", said("good")),
            "both outputs are the same",
        ),
        (
            with("preferred_output", json!([{"role": "assistant"}])),
            "`preferred_output[0].content` is missing",
        ),
    ] {
        let error = read(RowKind::Preference, &row).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_of_the_other_kind_name_the_methods_they_are_for() {
    let error = read(RowKind::Chat, &pair()).unwrap_err();
    assert!(error.contains("dpo, ipo, orpo and simpo"), "{error}");
    let chat = json!({"messages": [{"role": "assistant", "content": "b"}]});
    let error = read(RowKind::Preference, &chat).unwrap_err();
    assert!(error.contains("for the method supervised"), "{error}");
}
