//! Rendering as the reference does.

use serde_json::{Value, json};
use text::{Conversation, Message, TextError, TextModel};
use time::macros::datetime;

use crate::fixture::{self, CHATML, conversation};

fn render(template: &str, messages: &[(&str, &str)]) -> String {
    fixture::model(template)
        .render(&conversation(messages), false)
        .unwrap()
}

#[test]
fn chatml_adds_its_default_system_message_and_the_generation_prompt() {
    let model = fixture::model(CHATML);
    let text = model
        .render(&conversation(&[("user", "hi")]), true)
        .unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging \
         Face<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(model.eos_ids(), [2]);
    for (document, ids) in [
        (r#"{"eos_token_id": [0, 2]}"#, &[0, 2][..]),
        (r#"{"eos_token_id": 1}"#, &[1, 2]),
        (r#"{"eos_token_id": null}"#, &[2]),
        ("{}", &[2]),
        ("no document", &[2]),
    ] {
        let model = model.clone().with_generation_config(document.as_bytes());
        assert_eq!(model.eos_ids(), ids, "{document}");
    }
}

#[test]
fn a_developer_message_is_rendered_as_a_system_message() {
    assert!(render(CHATML, &[("developer", "Be brief.")]).starts_with("<|im_start|>system\nBe"));
}

#[test]
fn variables_blocks_and_python_methods_behave_as_in_the_reference() {
    let cases = [
        (
            "{{ bos_token }}{{ eos_token }}|{{ unknown }}",
            "<|im_start|><|im_end|>|",
        ),
        (
            "{{ tools is none }} {{ documents is none }} {{ tools }}",
            "True True None",
        ),
        ("{%- if tools is defined and tools %}x{% endif %}y", "y"),
        ("  {% if true %}\na\n  {% endif %}\nb", "a\nb"),
        ("{{ ' a b '.strip().split(' ')[-1].upper() }}", "B"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "system",
        ),
        ("{{ messages[0].get('nothing', 'default') }}", "default"),
        (
            "{{ {'k': 'é<'} | tojson }} {{ [1] | tojson(indent=1) }}",
            "{\"k\": \"é<\"} [\n 1\n]",
        ),
        (
            "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}{% endfor %}",
            "sux",
        ),
    ];
    for (template, expected) in cases {
        let messages = [("system", "s"), ("user", "u"), ("user", "x")];
        assert_eq!(render(template, &messages), expected, "{template}");
    }
}

#[test]
fn raise_exception_carries_the_templates_words() {
    let model = fixture::model("{{ raise_exception('roles must alternate') }}");
    let error = model
        .render(&conversation(&[("user", "hi")]), true)
        .unwrap_err();
    assert!(matches!(&error, TextError::TemplateRefused(words) if words == "roles must alternate"));
}

#[test]
fn the_time_is_what_we_say_and_undefined_otherwise() {
    let template =
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}never{% endif %}";
    assert_eq!(render(template, &[]), "never");
    let model = fixture::model(template).with_now(datetime!(2026-11-24 00:00 UTC));
    assert_eq!(
        model.render(&conversation(&[]), false).unwrap(),
        "24 Nov 2026"
    );
}

#[test]
fn tool_arguments_are_objects_in_the_template_and_keep_their_order() {
    let template = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments | \
                    tojson }}{% endfor %}{% endfor %}";
    let calls = json!([{"id": "1", "type": "function",
                        "function": {"name": "f", "arguments": "{\"z\":1,\"a\":[true]}"}}]);
    let message = Message {
        role: "assistant".to_owned(),
        tool_calls: Some(calls),
        ..Message::default()
    };
    let text = fixture::model(template)
        .render(&Conversation::new(vec![message]), false)
        .unwrap();
    assert_eq!(text, "{\"z\": 1, \"a\": [true]}");
}

#[test]
fn the_template_for_tools_is_used_when_there_are_tools() {
    let model = fixture::model_of_config(&json!({"chat_template": [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} tools"},
    ]}));
    let mut with_tools = conversation(&[]);
    with_tools.tools = Some(json!([{"type": "function"}]));
    assert_eq!(model.render(&with_tools, false).unwrap(), "1 tools");
    assert_eq!(model.render(&conversation(&[]), false).unwrap(), "plain");
}

#[test]
fn a_template_bomb_is_stopped_and_a_long_chat_is_not() {
    let bomb = "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}";
    let error = fixture::model(bomb)
        .render(&conversation(&[]), false)
        .unwrap_err();
    assert!(
        matches!(error, TextError::TemplateTooExpensive { .. }),
        "{error:?}"
    );
    let long: Vec<_> = (0..10_000).map(|_| ("user", "hi")).collect();
    assert!(render(CHATML, &long).len() > 200_000);
}

#[test]
fn a_message_without_content_is_an_error_and_no_panic() {
    let message = Message {
        role: "assistant".to_owned(),
        ..Message::default()
    };
    let error = fixture::model(CHATML).render(&Conversation::new(vec![message]), false);
    assert!(matches!(error, Err(TextError::Template(_))));
}

#[test]
fn a_model_without_a_template_is_refused() {
    let load = |config: Value, file| {
        let config = config.to_string();
        TextModel::from_parts(&fixture::tokenizer_json(), config.as_bytes(), file).err()
    };
    assert!(matches!(
        load(json!({}), None),
        Some(TextError::NoChatTemplate)
    ));
    assert!(matches!(
        load(json!([]), None),
        Some(TextError::TokenizerConfig(_))
    ));
    assert!(matches!(
        load(json!({}), Some("{% if")),
        Some(TextError::TemplateSyntax { .. })
    ));
    let unknown = json!({"chat_template": "x", "eos_token": "<no>"});
    assert!(matches!(
        load(unknown, None),
        Some(TextError::UnknownSpecialToken { .. })
    ));
    assert!(load(json!({}), Some("from the file")).is_none());
}
