//! What a project has in its bucket, by its rows.

use std::fmt;

use domain::ProjectId;

use crate::tx::Connection;
use crate::{OperatorTx, StoreError, TenantTx};

/// How many objects, or groups of them, a project has where its objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Files.
    pub files: i64,
    /// Parts of uploads that are not finished.
    pub parts: i64,
    /// Fine-tuned models, checkpoints among them.
    pub models: i64,
    /// Objects of things that were deleted and that the sweep has not taken away yet.
    pub deletions: i64,
}

impl Held {
    /// Whether there is anything.
    pub fn is_any(&self) -> bool {
        self.files + self.parts + self.models + self.deletions > 0
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files, {} parts of uploads, {} models and checkpoints, {} deletions that are under way",
            self.files, self.parts, self.models, self.deletions
        )
    }
}

/// What the project has.
pub async fn held(tx: OperatorTx, project_id: ProjectId) -> Result<(OperatorTx, Held), StoreError> {
    // Seen as the project itself sees it.
    let (mut tx, place) = TenantTx::within(tx, project_id).await?;
    let held = sqlx::query_as!(
        Held,
        r#"SELECT (SELECT count(*) FROM files WHERE project_id = $1) AS "files!",
                  (SELECT count(*) FROM upload_parts WHERE project_id = $1) AS "parts!",
                  (SELECT count(*) FROM fine_tuned_models WHERE project_id = $1 AND deleted_at IS NULL) AS "models!",
                  (SELECT count(*) FROM object_deletions WHERE project_id = $1) AS "deletions!""#,
        project_id.0
    )
    .fetch_one(tx.connection())
    .await?;
    Ok((tx.leave(place).await?, held))
}
