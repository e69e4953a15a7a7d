//! Which jobs have news: one question for all the jobs that a process watches, of whichever tenant.
//!
//! What the news is, is not told here; a stream reads its own job's events as its tenant.

use domain::{JobId, ProjectId};
use sqlx::types::Uuid;

use crate::tx::Connection;
use crate::{FeedTx, StoreError};

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The job.
    pub job_id: JobId,
    /// The place of its latest event that is told, 0 without one: see [`crate::events::following`].
    pub place: i64,
    /// Whether it is over. What its worker tells ends with that; what is told of it afterwards, such as where Weights &
    /// Biases shows it, no stream waits for.
    pub is_final: bool,
}

/// The heads of these jobs. A job that does not exist has none.
pub async fn heads(tx: &mut FeedTx, jobs: &[(ProjectId, JobId)]) -> Result<Vec<Head>, StoreError> {
    let (projects, ids): (Vec<Uuid>, Vec<Uuid>) =
        jobs.iter().map(|(project, job)| (project.0, job.0)).unzip();
    // Two looks into an index per job, however many events there are.
    let rows = sqlx::query!(
        r#"SELECT j.id, j.status IN ('succeeded', 'failed', 'cancelled') AS "is_final!",
                  COALESCE((SELECT e.seq FROM job_events e
                            WHERE e.project_id = j.project_id AND e.job_id = j.id AND e.withdrawn_at IS NULL
                            ORDER BY e.seq DESC LIMIT 1), 0) AS "place!"
           FROM unnest($1::uuid[], $2::uuid[]) AS w (project_id, id)
           JOIN jobs j ON j.project_id = w.project_id AND j.id = w.id"#,
        &projects,
        &ids,
    )
    .fetch_all(tx.connection())
    .await?;
    let heads = rows.into_iter().map(|row| Head {
        job_id: JobId(row.id),
        place: row.place,
        is_final: row.is_final,
    });
    Ok(heads.collect())
}
