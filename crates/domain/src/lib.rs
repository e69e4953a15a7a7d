//! What Attune is about, free of IO and async: ids, the life of a job, its settings and their limits.
//!
//! Nothing here knows Postgres, S3, HTTP or a tensor. Everything else may depend on it.

pub mod access;
pub mod auto;
pub mod batch;
pub mod clock;
pub mod config;
pub mod cost;
pub mod data;
pub mod failure;
pub mod field;
pub mod id;
pub mod job;
pub mod limits;
pub mod model_name;
pub mod needs;
pub mod upload;

pub use access::{OrgRole, Role, Scope, Scopes};
pub use batch::{Batch, BatchStatus};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{Hyperparameters, TrainingConfig};
pub use data::{DataReport, JobData};
pub use failure::Failure;
pub use field::{FieldError, Setting, SettingKind};
pub use id::{
    ApiKeyId, BaseModelId, BatchId, CheckpointId, EventId, FileId, FineTunedModelId, JobId,
    LeaseToken, OrgId, PartId, PermissionId, ProjectId, ServiceAccountId, UploadId, UserId,
};
pub use job::{Job, JobError, JobStatus};
pub use needs::{DeviceKind, Needs, WorkerKind};
pub use upload::{Upload, UploadStatus};
