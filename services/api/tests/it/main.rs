//! The API over real HTTP, a real Postgres and a real S3 protocol server.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what tests share"
)]

mod audit;
mod chat;
mod deletion;
mod errors;
mod files;
mod health;
mod isolation;
mod job_lists;
mod job_refusals;
mod jobs;
mod models;
mod pausing;
mod quotas;
mod serving;
mod support;
mod sweeping;
mod uploads;
