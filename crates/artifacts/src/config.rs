//! Where the bucket is and who we are to it.

use std::fmt;

use crate::ArtifactError;

/// Settings of one bucket on one S3 server.
#[derive(Clone)]
pub struct S3Config {
    /// `http://host:port`, without the bucket.
    pub endpoint: String,
    pub region: String,
    pub bucket: String,
    /// What goes before every key: empty, or ends in `/`.
    pub prefix: String,
    /// Whether the bucket stands in a request's path, which every server speaks, or before the endpoint's name, as AWS
    /// wants it.
    pub path_style: bool,
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl S3Config {
    /// Reads `ATTUNE_S3_ENDPOINT`, `_BUCKET`, `_ACCESS_KEY_ID`, `_SECRET_ACCESS_KEY` and, where it
    /// is not `us-east-1`, `_REGION`.
    ///
    /// # Errors
    ///
    /// [`ArtifactError::Config`] names the variable that is missing.
    pub fn from_env() -> Result<Self, ArtifactError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ArtifactError> {
        let required = |name: &'static str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(ArtifactError::Config { name })
        };
        Ok(Self {
            endpoint: required("ATTUNE_S3_ENDPOINT")?,
            region: required("ATTUNE_S3_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
            bucket: required("ATTUNE_S3_BUCKET")?,
            prefix: String::new(),
            path_style: true,
            access_key_id: required("ATTUNE_S3_ACCESS_KEY_ID")?,
            secret_access_key: required("ATTUNE_S3_SECRET_ACCESS_KEY")?,
        })
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "ATTUNE_S3_ENDPOINT" => Some("http://127.0.0.1:9000".to_owned()),
            "ATTUNE_S3_BUCKET" => Some("attune".to_owned()),
            "ATTUNE_S3_ACCESS_KEY_ID" => Some("id".to_owned()),
            "ATTUNE_S3_SECRET_ACCESS_KEY" => Some("the-secret".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn the_region_has_a_default_and_the_secret_is_not_shown() {
        let config = S3Config::from_variables(variables).unwrap();
        assert_eq!(config.region, "us-east-1");
        assert!(!format!("{config:?}").contains("the-secret"));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let without_bucket = |name: &str| {
            if name == "ATTUNE_S3_BUCKET" {
                None
            } else {
                variables(name)
            }
        };
        let message = S3Config::from_variables(without_bucket)
            .unwrap_err()
            .to_string();
        assert!(message.contains("ATTUNE_S3_BUCKET"), "{message}");
    }
}
