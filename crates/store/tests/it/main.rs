//! The store against a real Postgres: one database per test, on the cluster that `DATABASE_URL` names.

#![expect(clippy::unwrap_used, reason = "what tests share may panic as tests do")]

mod api_keys;
mod archiving;
mod audit;
mod batches;
mod buckets;
mod connections;
mod given;
mod isolation;
mod jobs;
mod leases;
mod objects;
mod queue;
mod queue_fairness;
mod queue_model;
mod quotas;
mod roles;
mod sealed;
mod upgrade;
mod uploads;
mod waking;
mod wandb;
