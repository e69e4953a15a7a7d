//! The whole service over HTTP, with a tiny model, a real Postgres and a real S3 protocol.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod answers;
mod exports;
mod harness;
mod models;
mod queue;
mod streams;
