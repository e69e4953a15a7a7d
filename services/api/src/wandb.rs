//! Reports to Weights & Biases: what a job with such an integration shows there, and the loop that sends it.
//!
//! What is sent are settings and numbers, never a row of data. Training knows nothing of it and never waits for it.

mod client;
mod report;
mod reporter;

pub use client::{Client, base_url};
pub use reporter::Reporter;
