//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

mod cancel;
mod checkpoints;
mod create;
mod estimate;
mod events;
mod knobs;
mod list;
mod metrics;
mod preview;
mod request;
mod retrieve;
mod sample;
mod stream;
mod thinning;
mod view;

pub use cancel::cancel_job;
pub use checkpoints::list_job_checkpoints;
pub use create::create_job;
pub use estimate::estimate_job;
pub use events::list_job_events;
pub use list::list_jobs;
pub use metrics::list_job_metrics;
pub use preview::preview_dataset;
pub use retrieve::retrieve_job;
pub use view::FineTuningJob;
