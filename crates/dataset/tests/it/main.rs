//! The crate from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bad_input;
mod example_tickets;
mod overlap;
mod preferences;
mod properties;
mod rows;
