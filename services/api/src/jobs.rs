//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

mod body;
pub mod cancel;
pub mod checkpoints;
pub mod create;
pub mod events;
mod knobs;
pub mod list;
mod request;
pub mod retrieve;
mod settings;
mod view;

pub use view::FineTuningJob;
