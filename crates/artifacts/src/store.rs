//! The client of one bucket: set-up, existence and deletion of objects.

use std::error::Error as StdError;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

use crate::{ArtifactError, S3Config, keys};

/// How long [`ObjectStore::ready`] waits before it calls the server unavailable.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// One bucket, or what lies below a prefix of it. Cheap to clone; all clones share a connection pool.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    /// What goes before every key, and is in none that a caller sees.
    prefix: String,
    /// What every key that a caller names must begin with.
    within: String,
    /// Whether the bucket is a project's own: errors say so then.
    is_own: bool,
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
            .force_path_style(config.path_style)
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
            prefix: config.prefix.clone(),
            within: String::new(),
            is_own: false,
        }
    }

    /// The same bucket, for keys that begin with `prefix`. Any other is refused before it is sent.
    #[must_use]
    pub fn within(self, prefix: String) -> Self {
        Self {
            within: prefix,
            ..self
        }
    }

    /// The same bucket, as a project's own: when it fails, the error says whose it is.
    #[must_use]
    pub fn as_own(self) -> Self {
        Self {
            is_own: true,
            ..self
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
            Ok(Err(error)) => {
                let error = match ArtifactError::from_sdk("reach bucket", &self.bucket, error) {
                    ArtifactError::NotFound { key } => ArtifactError::Refused {
                        operation: "reach bucket",
                        key,
                        code: "NoSuchBucket".to_owned(),
                        source: "there is no such bucket".into(),
                    },
                    error => error,
                };
                Err(self.blamed(error))
            }
            Err(elapsed) => Err(self.blamed(ArtifactError::Unavailable {
                operation: "reach bucket",
                key: self.bucket.clone(),
                source: elapsed.into(),
            })),
        }
    }

    /// The object's size in bytes, or `None` if there is no such object.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, ArtifactError> {
        let head = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(self.stored_key(key)?)
            .send()
            .await;
        match head.map_err(|error| self.failed("find", key, error)) {
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
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.stored_key(key)?)
            .send()
            .await;
        match deleted.map_err(|error| self.failed("delete", key, error)) {
            Ok(_) | Err(ArtifactError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The key as the bucket knows it.
    pub(crate) fn stored_key(&self, key: &str) -> Result<String, ArtifactError> {
        keys::check(key)?;
        self.stored_prefix(key)
    }

    /// The beginning of keys as the bucket knows it.
    pub(crate) fn stored_prefix(&self, prefix: &str) -> Result<String, ArtifactError> {
        if prefix.starts_with(&self.within) {
            return Ok(format!("{}{prefix}", self.prefix));
        }
        let reason = "it is not among the objects that are reached in this way";
        Err(ArtifactError::InvalidKey {
            key: prefix.chars().take(160).collect(),
            reason,
        })
    }

    /// The key as callers know it.
    pub(crate) fn shown_key(&self, stored: &str) -> Option<String> {
        stored.strip_prefix(&self.prefix).map(str::to_owned)
    }

    /// What the SDK reports, by what the caller can do about it.
    pub(crate) fn failed<E>(
        &self,
        operation: &'static str,
        key: &str,
        error: SdkError<E, HttpResponse>,
    ) -> ArtifactError
    where
        E: StdError + ProvideErrorMetadata + RequestId + Send + Sync + 'static,
    {
        self.blamed(ArtifactError::from_sdk(operation, key, error))
    }

    /// The error, which says whose bucket failed if it is a project's own.
    pub(crate) fn blamed(&self, error: ArtifactError) -> ArtifactError {
        if self.is_own {
            error.of_own(&self.bucket)
        } else {
            error
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
