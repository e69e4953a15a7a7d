//! Training on tiny models, and the parity with the reference on a real one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod care;
mod estimating;
mod learning;
mod methods;
mod parity;
mod preparing;
mod resuming;
mod support;
