//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

pub mod cancel;
pub mod checkpoints;
pub mod create;
pub mod events;
mod knobs;
pub mod list;
mod needs;
pub mod pause;
mod request;
pub mod resume;
pub mod retrieve;
mod view;
mod words;

pub use view::FineTuningJob;
pub use words::{COMPAT_HEADER, Words};
