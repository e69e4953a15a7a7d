//! The store against a real Postgres: one database per test, on the cluster that `DATABASE_URL` names.

#![expect(clippy::unwrap_used, reason = "what tests share may panic as tests do")]

mod api_keys;
mod given;
mod isolation;
mod jobs;
mod leases;
mod objects;
mod queue;
mod roles;
mod sealed;
