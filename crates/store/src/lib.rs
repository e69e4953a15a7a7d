//! Postgres: every tenant's state and the job queue, one file per family of tables.
//!
//! The type of a transaction says whose rows it can see: [`TenantTx`] one project's, [`WorkerTx`] the queue,
//! [`AuthTx`] keys and users, [`OrgTx`] one organization's administration, [`OperatorTx`] the installation. Functions
//! take one of them and never a pool.
//! What a job may do next is decided in `domain`; this crate stores it.

pub mod api_keys;
pub mod archiving;
pub mod audit;
pub mod base_models;
pub mod batches;
pub mod bootstrap;
pub mod buckets;
pub mod checkpoints;
pub mod deletions;
pub mod error;
pub mod events;
pub mod feed;
pub mod files;
pub mod idempotency;
pub mod jobs;
pub mod lease;
pub mod members;
pub mod metrics;
pub mod migrate;
pub mod models;
pub mod nul;
mod number;
pub mod organizations;
pub mod page;
pub mod permissions;
pub mod projects;
pub mod queue;
pub mod quotas;
pub mod sealed;
pub mod service_accounts;
pub mod shares;
pub mod sign_in;
mod slug;
pub mod speeds;
pub mod stranded;
pub mod tx;
pub mod uploads;
pub mod users;
pub mod wake;
pub mod wandb;
pub mod watch;
pub mod webhooks;
pub mod workers;

pub use error::StoreError;
pub use lease::Lease;
pub use migrate::{MIGRATOR, migrate};
pub use page::Page;
pub use tx::{AdminTx, AnyTx, AuthTx, FeedTx, OperatorTx, OrgTx, Store, TenantTx, WorkerTx};
