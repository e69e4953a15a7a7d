//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

mod body;
pub mod cancel;
pub mod checkpoints;
pub mod create;
pub mod estimate;
pub mod events;
pub(crate) mod integrations;
mod knobs;
pub mod list;
pub mod metrics;
mod needs;
pub mod pause;
pub mod preview;
mod request;
pub mod resume;
pub mod retrieve;
mod sample;
mod settings;
mod stream;
mod thinning;
mod view;
mod wish;
mod words;

pub(crate) use request::metadata;
pub use view::FineTuningJob;
pub use words::{COMPAT_HEADER, Words};
