//! The HTTP service: OpenAI's fine-tuning, files, models and chat endpoints over Postgres and S3.
//!
//! It knows no tensor and loads no model: training is a worker's business, answering a chat the inference
//! service's. Every handler that reaches tenant data takes a [`auth::Tenant`] first.

pub mod answer;
pub mod audit_logs;
pub mod auth;
pub mod batches;
pub mod chat;
mod config;
pub mod docs;
pub mod error;
pub mod extract;
mod feed;
pub mod files;
pub mod graders;
pub mod health;
pub mod idempotency;
pub mod jobs;
pub mod models;
pub mod openapi;
pub mod organization;
pub mod outbound;
pub mod page;
pub mod permissions;
mod queue_gauges;
mod random;
pub mod rate_limits;
pub mod router;
mod serve;
mod state;
pub mod stranded;
pub mod sweeper;
mod telemetry;
mod text_models;
pub mod throttle;
pub mod uploads;
pub mod wandb;
pub mod webhooks;

pub use chat::InferenceClient;
pub use config::Config;
pub use feed::Feed;
pub use router::router;
pub use serve::serve;
pub use state::{AppState, Limits};
pub use text_models::TextModels;
