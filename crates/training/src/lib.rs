//! Training: from rows of conversations to an adapter. Synchronous, on local files.
//!
//! Knows nothing of tenants, HTTP, Postgres, S3 or tokio. Whoever runs it watches through an [`Observer`].
//! A run is a function of (rows, config, base model, kernels): no wall clock, no hidden randomness.
//!
//! Read [`train`] first; it is the loop, and every other module is one line of it.

pub mod adamw;
pub mod batch;
pub mod checkpoint;
pub mod estimate;
pub mod eval;
pub mod memory;
pub mod objective;
pub mod observer;
pub mod prepare;
pub mod probe;
pub mod random;
pub mod report;
pub mod rows;
pub mod schedule;
pub mod selection;
pub mod settings;
mod sizes;
pub mod train;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use estimate::{Estimate, check_before_loading, estimate};
pub use eval::Evaluation;
pub use observer::{CheckpointReport, Next, Observer, StepReport};
pub use prepare::{DataFault, Format};
pub use probe::{Forgetting, Probe};
pub use report::Report;
pub use rows::{Rows, Sample};
pub use train::{Run, TrainError, Trained, train};
