//! The API over real HTTP, a real Postgres and a real S3 protocol server.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not what tests share"
)]

mod access;
mod audit;
mod batches;
mod buckets;
mod chat;
mod deletion;
mod downloads;
mod errors;
mod estimates;
mod files;
mod graders;
mod health;
mod idempotency;
mod isolation;
mod job_lists;
mod job_metrics;
mod job_refusals;
mod job_streams;
mod jobs;
mod models;
mod oidc;
mod openapi;
mod organization;
mod parts;
mod pausing;
mod permissions;
mod previews;
mod quotas;
mod serving;
mod stranded;
mod support;
mod sweeping;
mod uploads;
mod wandb;
mod webhooks;
