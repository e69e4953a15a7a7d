//! One machine's parts, run for real: Postgres as a child, and the binary itself.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod admin;
mod device;
mod postgres;
mod up;
