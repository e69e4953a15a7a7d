//! Integration tests of `lm`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod adapter;
mod base;
mod forward;
mod gguf;
#[cfg(feature = "wgpu")]
mod gpu;
mod oracle;
mod parity;
mod session;
mod tiny;
