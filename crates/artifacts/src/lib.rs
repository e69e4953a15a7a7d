//! S3: object keys, streaming upload and download with checksums, and an S3 server in process.
//!
//! Nothing here knows what an object means: tenants, jobs and models are words of `domain` that
//! only [`keys`] turns into names. Only this crate names the S3 SDK.

mod config;
pub mod embedded;
mod error;
pub mod keys;
mod list;
mod mirror;
mod part;
mod probe;
mod read;
mod shared;
mod store;
mod write;
mod zip;

pub use config::S3Config;
pub use error::{ArtifactError, OwnBucketFault};
pub use list::ObjectInfo;
pub use read::{ByteStream, ObjectBody};
pub use shared::SharedObjects;
pub use store::ObjectStore;
pub use write::{PART_BYTES, Stored};
pub use zip::{ZipEntry, ZipSource, zip_size_bytes, zip_stream};
