//! The crate from outside, on a small byte-level tokenizer and `SmolLM2`'s chat template.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod chat_template;
mod fixture;
mod mask;
mod tokenizer;
