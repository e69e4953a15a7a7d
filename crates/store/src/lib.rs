//! Postgres: every tenant's state and the job queue, one file per family of tables.
//!
//! The type of a transaction says whose rows it can see: [`TenantTx`] one project's, [`WorkerTx`] the queue,
//! [`AuthTx`] keys, [`OperatorTx`] the installation. Functions take one of them and never a pool.
//! What a job may do next is decided in `domain`; this crate stores it.

pub mod api_keys;
pub mod base_models;
pub mod bootstrap;
pub mod checkpoints;
pub mod deletions;
pub mod error;
pub mod events;
pub mod files;
pub mod jobs;
pub mod lease;
pub mod metrics;
pub mod migrate;
pub mod models;
pub mod nul;
mod number;
pub mod organizations;
pub mod page;
pub mod projects;
pub mod queue;
pub mod sealed;
pub mod tx;

pub use error::StoreError;
pub use lease::Lease;
pub use migrate::{MIGRATOR, migrate};
pub use page::Page;
pub use tx::{AnyTx, AuthTx, OperatorTx, Store, TenantTx, WorkerTx};
