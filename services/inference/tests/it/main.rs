//! The whole service over HTTP, with a tiny model, a real Postgres and a real S3 protocol.

mod access;
mod answers;
mod harness;
mod models;
mod queue;
mod streams;
