//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

pub mod cancel;
pub mod checkpoints;
pub mod create;
pub mod events;
mod knobs;
pub mod list;
mod request;
pub mod retrieve;
mod view;

pub(crate) use request::metadata;
pub use view::FineTuningJob;
