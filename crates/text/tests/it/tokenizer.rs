//! Tokens and text.

use std::collections::BTreeMap;

use text::Tokenizer;

use crate::fixture;

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(&fixture::tokenizer_json()).unwrap()
}

fn hard_texts() -> Vec<String> {
    let cases: BTreeMap<String, Vec<u32>> =
        serde_json::from_str(include_str!("../fixtures/tokenizer_cases.json")).unwrap();
    cases.into_keys().collect()
}

#[test]
fn merges_apply_and_special_tokens_are_found_in_the_text() {
    let tokenizer = tokenizer();
    let id = |token| tokenizer.token_id(token).unwrap();
    let ids = tokenizer
        .encode("<|im_start|>hello world<|im_end|>")
        .unwrap();
    let expected = [
        "<|im_start|>",
        "hello",
        "Ġw",
        "o",
        "r",
        "l",
        "d",
        "<|im_end|>",
    ]
    .map(id)
    .to_vec();
    assert_eq!(ids, expected);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "hello world");
    let with_special = tokenizer.decode_with_special_tokens(&ids).unwrap();
    assert_eq!(with_special, "<|im_start|>hello world<|im_end|>");
    assert_eq!(tokenizer.vocab_size(), 3 + 256 + 6);
}

#[test]
fn text_survives_encoding_and_decoding() {
    let tokenizer = tokenizer();
    for text in hard_texts() {
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode_with_special_tokens(&ids).unwrap(), text);
    }
}

#[test]
fn streamed_pieces_are_whole_characters_and_join_to_the_text() {
    let tokenizer = tokenizer();
    for text in hard_texts() {
        let ids = tokenizer.encode(&text).unwrap();
        let mut stream = tokenizer.decode_stream();
        let mut joined = String::new();
        for id in &ids {
            if let Some(piece) = stream.step(*id).unwrap() {
                assert!(!piece.contains('\u{FFFD}'), "{piece:?}");
                joined.push_str(&piece);
            }
        }
        assert_eq!(stream.finish().unwrap(), None);
        assert_eq!(joined, tokenizer.decode(&ids).unwrap());
    }
}

#[test]
fn a_text_that_ends_inside_a_character_is_flushed_at_the_end() {
    let tokenizer = tokenizer();
    let mut ids = tokenizer.encode("aé").unwrap();
    ids.pop();
    let mut stream = tokenizer.decode_stream();
    assert_eq!(stream.step(ids[0]).unwrap(), Some("a".to_owned()));
    assert_eq!(stream.step(ids[1]).unwrap(), None);
    assert_eq!(stream.finish().unwrap(), Some("\u{FFFD}".to_owned()));
}

#[test]
fn bytes_that_never_become_a_character_are_not_held_for_ever() {
    let tokenizer = tokenizer();
    let broken = tokenizer.token_id("ÿ").unwrap();
    let mut stream = tokenizer.decode_stream();
    let pieces: Vec<_> = (0..40)
        .filter_map(|_| stream.step(broken).unwrap())
        .collect();
    assert!(pieces.len() >= 4, "{pieces:?}");
}

#[test]
fn what_is_no_tokenizer_is_an_error() {
    assert!(Tokenizer::from_json(b"{}").is_err());
    assert!(Tokenizer::from_json(b"").is_err());
}
