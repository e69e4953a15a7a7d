//! Every object key, in one place.
//!
//! A tenant's keys start with its project id, so a bucket policy or a sweep can name one tenant.
//! Base models belong to the installation: they live in its bucket, beside the projects that have none of their own.
//! Ids appear as on the wire.
//!
//! Our keys stay under [`MAX_EMBEDDED_KEY_BYTES`]: the embedded server makes file names of them.

use domain::{BaseModelId, FileId, FineTunedModelId, JobId, PartId, ProjectId, UploadId};

use crate::ArtifactError;

/// S3's own limit.
const MAX_KEY_BYTES: usize = 1_024;

/// The embedded server keeps a side file whose name holds the key in base64, and file names end at
/// 255 bytes.
pub const MAX_EMBEDDED_KEY_BYTES: usize = 128;

/// The longest name of a file below a prefix of a project's.
pub const LONGEST_NAME: &str = "adapter_model.safetensors";

/// What the keys of every project's objects begin with.
pub const PROJECTS_PREFIX: &str = "proj_";

/// What the keys of every base model's objects begin with.
pub(crate) const BASES_PREFIX: &str = "base/";

/// Everything of one project.
pub fn project_prefix(project: ProjectId) -> String {
    format!("{project}/")
}

/// All files of one project, for the sweep of orphans.
pub fn files_prefix(project: ProjectId) -> String {
    format!("{project}/files/")
}

/// The content of an uploaded or produced file.
pub fn file(project: ProjectId, file: FileId) -> String {
    format!("{project}/files/{file}")
}

/// The prefix of an upload's parts, ending in `/`.
pub fn upload_prefix(project: ProjectId, upload: UploadId) -> String {
    format!("{project}/uploads/{upload}/")
}

/// A part of an upload, until the upload becomes a file or is given up.
pub fn upload_part(project: ProjectId, upload: UploadId, part: PartId) -> String {
    format!("{project}/uploads/{upload}/{part}")
}

/// Everything that attempts of one job wrote.
pub fn job_prefix(project: ProjectId, job: JobId) -> String {
    format!("{project}/jobs/{job}/")
}

/// The prefix of one checkpoint's files, ending in `/`.
///
/// The attempt is part of it: a worker that lost its lease and uploads late cannot overwrite what
/// the next attempt wrote.
pub fn checkpoint(project: ProjectId, job: JobId, attempt: u32, step: u64) -> String {
    format!("{project}/jobs/{job}/{attempt}/{step:08}/")
}

/// The result file (CSV) of a job's attempt, before it becomes a file of the project.
pub fn result(project: ProjectId, job: JobId, attempt: u32) -> String {
    format!("{project}/jobs/{job}/{attempt}/result.csv")
}

/// The prefix of a fine-tuned model's adapter, ending in `/`.
pub fn adapter(project: ProjectId, model: FineTunedModelId) -> String {
    format!("{project}/models/{model}/")
}

/// The prefix of all files of a base model, ending in `/`.
pub fn base_prefix(base: BaseModelId) -> String {
    format!("{BASES_PREFIX}{base}/")
}

/// One file of a base model.
pub fn base(base: BaseModelId, name: &str) -> String {
    format!("{BASES_PREFIX}{base}/{name}")
}

/// Refuses what could name something else than it says.
///
/// # Errors
///
/// [`ArtifactError::InvalidKey`] says why.
pub(crate) fn check(key: &str) -> Result<(), ArtifactError> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_KEY_BYTES {
        "it is too long"
    } else if key
        .split('/')
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        "it has an empty, `.` or `..` segment"
    } else if key
        .bytes()
        .any(|byte| byte.is_ascii_control() || byte == b'\\')
    {
        "it contains a control character or a backslash"
    } else {
        return Ok(());
    };
    Err(ArtifactError::InvalidKey {
        key: key.chars().take(160).collect(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_keys_start_with_its_project() {
        let (project, job) = (ProjectId::new(), JobId::new());
        for key in [
            file(project, FileId::new()),
            upload_part(project, UploadId::new(), PartId::new()),
            checkpoint(project, job, 1, 2),
            result(project, job, 1),
            adapter(project, FineTunedModelId::new()),
        ] {
            assert!(key.starts_with(&project_prefix(project)), "{key}");
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let prefix = checkpoint(ProjectId::new(), JobId::new(), 9_999, 99_999_999);
        let longest = format!("{prefix}{LONGEST_NAME}");
        assert!(longest.len() <= MAX_EMBEDDED_KEY_BYTES, "{longest}");
        let part = upload_part(ProjectId::new(), UploadId::new(), PartId::new());
        assert!(part.len() <= MAX_EMBEDDED_KEY_BYTES, "{part}");
        let shard = base(BaseModelId::new(), "model-00001-of-00100.safetensors");
        assert!(shard.len() <= MAX_EMBEDDED_KEY_BYTES, "{shard}");
    }

    #[test]
    fn a_key_that_leaves_its_prefix_is_refused() {
        for key in [
            "",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "a/.",
            "..",
            "a\\b",
            "a\0b",
            "a/",
        ] {
            assert!(check(key).is_err(), "{key:?}");
        }
        assert!(check(&"a".repeat(MAX_KEY_BYTES + 1)).is_err());
    }
}
