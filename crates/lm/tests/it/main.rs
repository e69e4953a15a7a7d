//! Integration tests of `lm`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod adapter;
mod base;
mod export;
mod forward;
mod gguf;
mod oracle;
mod parity;
mod session;
mod tiny;
