//! The client of one bucket: set-up, existence and deletion of objects.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::ProvideErrorMetadata;

use crate::{ArtifactError, S3Config, keys};

/// How long [`ObjectStore::ready`] waits before it calls the server unavailable.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// One bucket. Cheap to clone; all clones share a connection pool.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    pub(crate) client: Client,
    pub(crate) bucket: String,
}

impl ObjectStore {
    /// A client for the bucket. Nothing is sent yet, so this works while the server is down.
    pub fn connect(config: &S3Config) -> Self {
        let credentials = Credentials::new(
            &config.access_key_id,
            &config.secret_access_key,
            None,
            None,
            "attune settings",
        );
        let sdk_config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&config.endpoint)
            .region(Region::new(config.region.clone()))
            .force_path_style(true)
            .credentials_provider(credentials)
            .retry_config(retries())
            .timeout_config(timeouts())
            // Payloads are signed, which already covers the way to the server, and files carry a
            // SHA-256 of ours. The SDK's own trailing checksums are refused by some S3 servers.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            client: Client::from_conf(sdk_config),
            bucket: config.bucket.clone(),
        }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Creates the bucket if it is not there.
    ///
    /// # Errors
    ///
    /// When the server is away, or the credentials may not create buckets.
    pub async fn ensure_bucket(&self) -> Result<(), ArtifactError> {
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        match head.map_err(|error| ArtifactError::from_sdk("find bucket", &self.bucket, error)) {
            Ok(_) => return Ok(()),
            Err(ArtifactError::NotFound { .. }) => {}
            Err(ArtifactError::Refused { code, .. }) if code == "NoSuchBucket" => {}
            Err(error) => return Err(error),
        }
        match self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .send()
            .await
        {
            Ok(_) => Ok(()),
            // Another process was faster.
            Err(error)
                if matches!(
                    error.code(),
                    Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(ArtifactError::from_sdk(
                "create bucket",
                &self.bucket,
                error,
            )),
        }
    }

    /// Whether the bucket can be reached now, without retries.
    ///
    /// # Errors
    ///
    /// Says why not.
    pub async fn ready(&self) -> Result<(), ArtifactError> {
        let once = aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled());
        let probe = self
            .client
            .head_bucket()
            .bucket(&self.bucket)
            .customize()
            .config_override(once)
            .send();
        match tokio::time::timeout(READY_TIMEOUT, probe).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ArtifactError::from_sdk("reach bucket", &self.bucket, error)),
            Err(elapsed) => Err(ArtifactError::Unavailable {
                operation: "reach bucket",
                key: self.bucket.clone(),
                source: elapsed.into(),
            }),
        }
    }

    /// The object's size in bytes, or `None` if there is no such object.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, ArtifactError> {
        keys::check(key)?;
        let head = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        match head.map_err(|error| ArtifactError::from_sdk("find", key, error)) {
            Ok(object) => Ok(Some(size(object.content_length()))),
            Err(ArtifactError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the object. Deleting what is not there succeeds.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses.
    pub async fn delete(&self, key: &str) -> Result<(), ArtifactError> {
        keys::check(key)?;
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        match deleted.map_err(|error| ArtifactError::from_sdk("delete", key, error)) {
            Ok(_) | Err(ArtifactError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A size from the wire; S3 never sends a negative one.
pub(crate) fn size(content_length: Option<i64>) -> u64 {
    content_length
        .and_then(|length| u64::try_from(length).ok())
        .unwrap_or(0)
}

/// Short outages (a restart) are waited out here; longer ones are the caller's business.
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(2))
}

/// The read timeout is generous because completing a multipart upload can copy the whole object
/// before the first byte of the answer.
fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(Duration::from_mins(2))
        .build()
}
