//! Integration tests of `lm`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod adapter;
mod base;
mod dora;
mod export;
mod forward;
mod full;
mod gguf;
#[cfg(feature = "wgpu")]
mod gpu;
mod oracle;
mod parity;
mod quantised;
mod recompute;
mod session;
mod tiny;
