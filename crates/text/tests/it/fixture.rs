//! A byte-level BPE tokenizer of 256 bytes, a few merges and `ChatML`'s special tokens.

use serde_json::{Value, json};
use text::{Conversation, Message, TextModel};

/// `SmolLM2`'s chat template.
pub(crate) const CHATML: &str = "{% for message in messages %}{% if loop.first and \
messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named \
SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + \
'\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
'<|im_start|>assistant\n' }}{% endif %}";

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [[&str; 2]; 6] = [
    ["h", "e"],
    ["l", "l"],
    ["he", "ll"],
    ["hell", "o"],
    ["Ġ", "w"],
    ["Ċ", "Ċ"],
];

/// The printable stand-in that byte-level tokenizers use for `byte`.
fn stand_in(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_itself(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|other| !is_itself(*other)).count();
    char::from_u32(256 + u32::try_from(n_before).unwrap()).unwrap()
}

pub(crate) fn tokenizer_json() -> Vec<u8> {
    let bytes = (0..=u8::MAX).map(|byte| stand_in(byte).to_string());
    let merged = MERGES.iter().map(|[left, right]| format!("{left}{right}"));
    let tokens: Vec<String> = SPECIAL
        .iter()
        .map(|token| (*token).to_owned())
        .chain(bytes)
        .chain(merged)
        .collect();
    let vocab: Value = tokens
        .iter()
        .zip(0..)
        .map(|(token, id): (_, u32)| (token.clone(), json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let added: Vec<Value> = SPECIAL
        .iter()
        .zip(0..)
        .map(|(content, id): (_, u32)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
                            "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": MERGES},
    });
    serde_json::to_vec(&tokenizer).unwrap()
}

pub(crate) fn model(chat_template: &str) -> TextModel {
    let config = json!({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"},
                        "chat_template": chat_template});
    model_of_config(&config)
}

pub(crate) fn model_of_config(config: &Value) -> TextModel {
    TextModel::from_parts(&tokenizer_json(), config.to_string().as_bytes(), None).unwrap()
}

/// A conversation of plain messages.
pub(crate) fn conversation(messages: &[(&str, &str)]) -> Conversation {
    Conversation::new(
        messages
            .iter()
            .map(|(role, content)| Message::new(*role, *content))
            .collect(),
    )
}
