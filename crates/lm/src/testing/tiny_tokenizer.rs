//! The vocabulary of the tiny model: three special tokens, 256 bytes, 41 merges.

use crate::gguf::tokenizer_document::{TOKEN_TYPE_CONTROL, TOKEN_TYPE_NORMAL, Vocabulary};

/// Number of tokens.
pub(super) const VOCAB_SIZE: usize = 300;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Frequent pairs of English and JSON. `Ġ` is the space in the byte-level alphabet.
const MERGES: [&str; 41] = [
    "Ġ t", "h e", "i n", "e r", "a n", "r e", "o n", "Ġ a", "Ġ s", "o r", "e n", "Ġ c", "t i",
    "a t", "Ġ w", "i s", "e s", "Ġ o", "i t", "o u", "Ġ b", "Ġ p", "in g", "Ġt he", "a l", "u s",
    "e d", "Ġ f", "Ġ m", "Ġ d", "l e", "s t", "a s", "Ġ i", "v e", "Ġ \"", "\" :", "\" ,", "ti on",
    "us er", "s y",
];

/// Tokens, merges and types in the form of GGUF metadata.
pub(super) fn vocabulary() -> Vocabulary {
    let mut tokens: Vec<String> = SPECIAL.iter().map(ToString::to_string).collect();
    tokens.extend(byte_alphabet().map(String::from));
    tokens.extend(MERGES.iter().map(|pair| pair.replace(' ', "")));
    assert_eq!(tokens.len(), VOCAB_SIZE);
    let mut token_types = vec![TOKEN_TYPE_NORMAL; tokens.len()];
    token_types[..SPECIAL.len()].fill(TOKEN_TYPE_CONTROL);
    let merges = MERGES.iter().map(ToString::to_string).collect();
    Vocabulary {
        tokens,
        token_types,
        merges,
    }
}

/// The characters that byte-level BPE writes for the bytes 0 to 255, in that order: printable
/// Latin-1 stands for itself, all else moves to U+0100 and up.
fn byte_alphabet() -> impl Iterator<Item = char> {
    let mut moved = 0x100u32;
    (0..=255u8).map(move |byte| {
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            return char::from(byte);
        }
        let character = char::from_u32(moved).expect("below the surrogates");
        moved += 1;
        character
    })
}
