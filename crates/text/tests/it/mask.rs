//! The loss mask, against its definition: compare tokens of prefixes.

use std::time::{Duration, Instant};

use text::{Conversation, Example, TextError, TextModel};

use crate::fixture::{self, CHATML, conversation};

const TURNS: [(&str, &str); 5] = [
    ("system", "Answer."),
    ("user", "hello 12"),
    ("assistant", "hell é"),
    ("user", "again\n\n"),
    ("assistant", "\n done"),
];

fn supervised_text(model: &TextModel, example: &Example) -> String {
    let chosen: Vec<u32> = example
        .ids
        .iter()
        .zip(&example.supervised)
        .filter_map(|(id, supervised)| supervised.then_some(*id))
        .collect();
    model
        .tokenizer()
        .decode_with_special_tokens(&chosen)
        .unwrap()
}

/// The definition, by prefixes, where the template is incremental.
fn mask_by_prefixes(model: &TextModel, whole: &Conversation) -> Vec<bool> {
    let n_tokens = |n_messages: usize, generation| {
        let part = Conversation::new(whole.messages[..n_messages].to_vec());
        let text = model.render(&part, generation).unwrap();
        model.tokenizer().encode(&text).unwrap().len()
    };
    let mut mask = vec![false; n_tokens(whole.messages.len(), false)];
    for (index, message) in whole.messages.iter().enumerate() {
        if message.is_supervised() {
            mask[n_tokens(index, true)..n_tokens(index + 1, false)].fill(true);
        }
    }
    mask
}

#[test]
fn supervised_is_each_answer_with_its_end_of_turn() {
    let model = fixture::model(CHATML);
    let turns = [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "x"),
        ("assistant", "12"),
    ];
    let example = model.encode_example(&conversation(&turns), 1000).unwrap();
    assert_eq!(
        supervised_text(&model, &example),
        "hello<|im_end|>\n12<|im_end|>\n"
    );
    assert!(!example.truncated);
    assert_eq!(example.n_tokens(), example.supervised.len());
}

#[test]
fn the_mask_is_the_one_that_prefixes_give() {
    let model = fixture::model(CHATML);
    let mut turns = conversation(&TURNS);
    // With a newline first, the answer would share a token with its prompt.
    turns.messages[4].content = Some("done".to_owned());
    let example = model.encode_example(&turns, 1000).unwrap();
    assert_eq!(example.supervised, mask_by_prefixes(&model, &turns));
}

#[test]
fn a_token_that_holds_some_of_the_prompt_is_no_target() {
    let model = fixture::model(CHATML);
    let turns = conversation(&[("user", "q"), ("assistant", "\n yes")]);
    let example = model.encode_example(&turns, 1000).unwrap();
    // The newline that ends the prompt and the one that begins the answer are one token.
    assert_eq!(supervised_text(&model, &example), " yes<|im_end|>\n");
}

#[test]
fn weight_zero_masks_a_message() {
    let model = fixture::model(CHATML);
    let mut turns = conversation(&TURNS);
    turns.messages[2].weight = Some(0);
    turns.messages[4].weight = Some(1);
    let example = model.encode_example(&turns, 1000).unwrap();
    assert!(supervised_text(&model, &example).ends_with(" done<|im_end|>\n"));
    assert!(!supervised_text(&model, &example).contains("hell"));
}

#[test]
fn a_cut_row_is_flagged_and_keeps_the_mask_of_its_beginning() {
    let model = fixture::model(CHATML);
    let turns = conversation(&TURNS);
    let whole = model.encode_example(&turns, 1000).unwrap();
    for n_kept in [0, 1, 5, 40, whole.n_tokens() - 1] {
        let cut = model.encode_example(&turns, n_kept).unwrap();
        assert!(cut.truncated);
        assert_eq!(cut.ids, whole.ids[..n_kept]);
        assert_eq!(cut.supervised, whole.supervised[..n_kept]);
    }
    assert!(
        !model
            .encode_example(&turns, whole.n_tokens())
            .unwrap()
            .truncated
    );
}

#[test]
fn the_first_token_is_never_a_target() {
    let model = fixture::model("{% for m in messages %}{{ m.content }}{% endfor %}");
    let example = model
        .encode_example(&conversation(&[("assistant", "abc")]), 10)
        .unwrap();
    assert_eq!(example.supervised, [false, true, true]);
}

#[test]
fn a_template_that_rewrites_history_is_refused_with_the_message() {
    let rewriting = "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}(cut)\
                     {% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}\
                     {% if add_generation_prompt %}<assistant>{% endif %}";
    let model = fixture::model(rewriting);
    let mut turns = conversation(&TURNS);
    let error = model.encode_example(&turns, 1000).unwrap_err();
    assert!(
        matches!(error, TextError::NotIncremental { message: 2 }),
        "{error:?}"
    );
    assert!(error.to_string().contains("`weight` 0"));
    turns.messages[2].weight = Some(0);
    let example = model.encode_example(&turns, 1000).unwrap();
    assert_eq!(supervised_text(&model, &example), "\n done");
}

#[test]
fn a_long_conversation_takes_no_longer_than_what_is_kept_of_it() {
    let model = fixture::model(CHATML);
    let turns: Vec<_> = (0..5_000)
        .flat_map(|_| [("user", "hi"), ("assistant", "yes")])
        .collect();
    let started = Instant::now();
    let example = model.encode_example(&conversation(&turns), 2048).unwrap();
    assert!(example.truncated && example.n_supervised() > 100);
    // Rendering every beginning of the 10,000 messages takes minutes.
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}
