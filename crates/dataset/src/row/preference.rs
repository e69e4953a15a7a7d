//! Rows that say which answer is better, or whether one is good.

use serde_json::{Map, Value};
use text::{Conversation, Message};

use super::{Judgement, parse_messages, tools, wrong_type};
use crate::{Limits, RowErrorKind};

/// OpenAI's guides and its specification disagree about the names.
const PREFERRED: [&str; 2] = ["preferred_output", "preferred_completion"];
const NON_PREFERRED: [&str; 2] = ["non_preferred_output", "non_preferred_completion"];
/// TRL's name, and LLaMA-Factory's.
const LABEL: [&str; 2] = ["label", "kto_tag"];

/// `{"input": {"messages", "tools"}, "preferred_output": […], "non_preferred_output": […]}`: the
/// conversation with the better answer, and that with the worse one. Only the answers are to be
/// learned from, whatever the assistant said before them.
pub(super) fn pair(
    mut row: Map<String, Value>,
    limits: &Limits,
) -> Result<(Conversation, Judgement<Conversation>), RowErrorKind> {
    let expected = "an object with `messages`: what both answers are answers to";
    let mut input = match row.remove("input") {
        Some(Value::Object(input)) => input,
        Some(other) => return Err(wrong_type("input".to_owned(), expected, &other)),
        None if row.contains_key("messages") => return Err(RowErrorKind::ChatRow),
        None => return Err(RowErrorKind::NoPreference),
    };
    let field = "input.messages";
    let messages = input
        .remove("messages")
        .ok_or_else(|| RowErrorKind::Missing {
            field: field.to_owned(),
            expected: "an array of the messages before the answers",
        })?;
    let mut prompt = parse_messages(field, messages, limits)?;
    for message in prompt.iter_mut().filter(|message| message.is_supervised()) {
        message.weight = Some(0);
    }
    let tools = tools(&mut input)?;
    let mut with_answer = |names: [&'static str; 2]| {
        let mut messages = prompt.clone();
        messages.extend(answer(&mut row, names, limits)?);
        let tools = tools.clone();
        Ok(Conversation { messages, tools })
    };
    let preferred = with_answer(PREFERRED)?;
    let other = with_answer(NON_PREFERRED)?;
    if preferred == other {
        return Err(RowErrorKind::SameAnswers);
    }
    Ok((preferred, Judgement::BetterThan(other)))
}

fn answer(
    row: &mut Map<String, Value>,
    names: [&'static str; 2],
    limits: &Limits,
) -> Result<Vec<Message>, RowErrorKind> {
    let found = names
        .into_iter()
        .find_map(|name| Some((name, row.remove(name)?)));
    let Some((name, messages)) = found else {
        return Err(RowErrorKind::Missing {
            field: names[0].to_owned(),
            expected: "an array with an assistant message",
        });
    };
    let messages = parse_messages(name, messages, limits)?;
    if !messages.iter().any(Message::is_supervised) {
        return Err(RowErrorKind::NoAnswer { field: name });
    }
    Ok(messages)
}

/// `"label": true` or `false`.
pub(super) fn label(row: &Map<String, Value>) -> Result<Judgement<Conversation>, RowErrorKind> {
    let expected = "true for a good answer and false for a bad one";
    let found = LABEL
        .into_iter()
        .find_map(|name| Some((name, row.get(name)?)));
    match found {
        Some((_, Value::Bool(true))) => Ok(Judgement::Good),
        Some((_, Value::Bool(false))) => Ok(Judgement::Bad),
        Some((name, other)) => Err(wrong_type(name.to_owned(), expected, other)),
        None => Err(RowErrorKind::Missing {
            field: LABEL[0].to_owned(),
            expected,
        }),
    }
}
