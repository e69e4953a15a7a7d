//! Whether a bucket does what is asked of one, tried with an object of our own.

use domain::{JobId, ProjectId};

use crate::{ArtifactError, ObjectStore, keys};

const CONTENT: &[u8] =
    b"Attune tries whether it may use this bucket. This object can be deleted.\n";

impl ObjectStore {
    /// Looks whether the bucket exists, puts a small object among the project's, lists it, reads it and deletes it. Its
    /// key is as long as any that a project's objects have.
    ///
    /// # Errors
    ///
    /// The first step that fails. What was put is deleted if that is allowed.
    pub async fn probe(&self, project: ProjectId) -> Result<(), ArtifactError> {
        let key = format!(
            "{}{}",
            keys::checkpoint(project, JobId::new(), 9_999, 99_999_999),
            keys::LONGEST_NAME
        );
        // First, since some servers would make a bucket that is missing.
        self.list_page(&keys::project_prefix(project), None, 1)
            .await?;
        self.put_bytes(&key, CONTENT).await?;
        let found = self.find_probe(&key).await;
        let deleted = self.delete(&key).await;
        found.and(deleted)
    }

    async fn find_probe(&self, key: &str) -> Result<(), ArtifactError> {
        let listed = self.list(key).await?;
        if !listed.iter().any(|object| object.key == key) {
            return Err(ArtifactError::NotFound {
                key: key.to_owned(),
            });
        }
        let read = self.get_bytes(key, CONTENT.len() as u64).await?;
        if read != CONTENT {
            return Err(ArtifactError::NotFound {
                key: key.to_owned(),
            });
        }
        Ok(())
    }
}
