//! The fine-tuning endpoints. A job's ranges are checked here, at once; its data by a worker, later.

mod cancel;
mod checkpoints;
mod create;
mod events;
mod knobs;
mod list;
mod needs;
mod pause;
mod request;
mod resume;
mod retrieve;
mod view;
mod words;

pub use cancel::cancel_job;
pub use checkpoints::list_job_checkpoints;
pub use create::create_job;
pub use events::list_job_events;
pub use list::list_jobs;
pub use pause::pause_job;
pub use resume::resume_job;
pub use retrieve::retrieve_job;
pub use view::FineTuningJob;
pub use words::{COMPAT_HEADER, Words};
