//! How far each report is: take what is due, send, say what came of it.
//!
//! A run sleeps until its job moves (a trigger of `jobs` wakes it) or until the time that was said last. Whoever takes one
//! and dies leaves it to the next, a little later, with the same step and line: what is sent twice lands in one place.

use std::time::Duration;

use domain::webhook::pause_after;
use domain::{JobId, LeaseToken, ProjectId};
use sqlx::postgres::PgQueryResult;
use time::OffsetDateTime;

use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx, WorkerTx};

/// Runs of one project that are taken at once: a slow server holds up its own project more than others.
const PER_PROJECT: i64 = 4;

/// Where a run is, as the server calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The user or team.
    pub entity: String,
    /// The project there.
    pub project: String,
}

/// A run that somebody reports to, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job_id: JobId,
    /// Its tenant, in whose transactions the rest is done.
    pub project_id: ProjectId,
    /// Which of the job's integrations, from 0.
    pub integration: usize,
    /// Where it is; `None` until it was made.
    pub place: Option<Place>,
    /// The last step that was sent; 0 before the first.
    pub last_step: u64,
    /// Where the next line goes in its history.
    pub next_line: u64,
    /// Since the last success.
    pub n_failures: i32,
    /// Whether the job was told that reporting fails.
    pub is_warned: bool,
    /// The fence.
    pub lease_token: LeaseToken,
}

/// Makes the rows of a new job that has so many integrations.
pub async fn create(
    tx: &mut TenantTx,
    job_id: JobId,
    n_integrations: usize,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let n = i16::try_from(n_integrations).map_err(|_| StoreError::Number {
        field: "integrations",
    })?;
    sqlx::query!(
        "INSERT INTO wandb_runs (project_id, job_id, integration, created_at)
         SELECT $1, $2, n, $4 FROM generate_series(0, $3::smallint - 1) AS n",
        tx.project_id().0,
        job_id.0,
        n,
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Takes on up to `limit` runs that are due. Commit, send, then say what came of each; what nobody said anything about
/// within `lease_for` comes up again.
pub async fn take(
    tx: &mut WorkerTx,
    limit: u32,
    lease_for: Duration,
) -> Result<Vec<Run>, StoreError> {
    // What is due is asked again under the lock: another may have taken it in between.
    let rows = sqlx::query!(
        "WITH due AS (
             SELECT project_id, job_id, integration,
                    row_number() OVER (PARTITION BY project_id ORDER BY wakes_at) AS place
             FROM wandb_runs WHERE finished_at IS NULL AND wakes_at <= now()
         ), taken AS (
             SELECT r.project_id, r.job_id, r.integration
             FROM wandb_runs r JOIN due USING (project_id, job_id, integration)
             WHERE due.place <= $3 AND r.finished_at IS NULL AND r.wakes_at <= now()
             ORDER BY r.wakes_at LIMIT $1
             FOR NO KEY UPDATE OF r SKIP LOCKED
         )
         UPDATE wandb_runs r
         SET lease_token = gen_random_uuid(), wakes_at = now() + make_interval(secs => $2), has_news = false
         FROM taken t
         WHERE r.project_id = t.project_id AND r.job_id = t.job_id AND r.integration = t.integration
         RETURNING r.project_id, r.job_id, r.integration, r.entity, r.wandb_project, r.last_step, r.next_line,
             r.n_failures, r.warned_at, r.lease_token",
        i64::from(limit),
        lease_for.as_secs_f64(),
        PER_PROJECT,
    )
    .fetch_all(tx.connection())
    .await?;
    let runs = rows.into_iter().map(|row| {
        let place = row.entity.zip(row.wandb_project);
        Ok(Run {
            job_id: JobId(row.job_id),
            project_id: ProjectId(row.project_id),
            integration: usize::try_from(row.integration)
                .map_err(|error| StoreError::corrupt("place of an integration", error))?,
            place: place.map(|(entity, project)| Place { entity, project }),
            last_step: from_bigint("last step", row.last_step)?,
            next_line: from_bigint("next line", row.next_line)?,
            n_failures: row.n_failures,
            is_warned: row.warned_at.is_some(),
            lease_token: row
                .lease_token
                .map(LeaseToken)
                .ok_or(StoreError::LeaseLost)?,
        })
    });
    runs.collect()
}

/// The run was made, or found, there.
///
/// # Errors
/// [`StoreError::LeaseLost`] if somebody else has taken it on since.
pub async fn made(tx: &mut TenantTx, run: &Run, place: &Place) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE wandb_runs SET entity = $5, wandb_project = $6
         WHERE project_id = $1 AND job_id = $2 AND integration = $3::int AND lease_token = $4",
        run.project_id.0,
        run.job_id.0,
        number(run),
        run.lease_token.0,
        place.entity,
        place.project,
    )
    .execute(tx.connection())
    .await?;
    held(&done)
}

/// When a run that went well is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// After so long, or as soon as its job moves.
    After(Duration),
    /// When its job moves.
    Asleep,
    /// Never: it is over.
    Finished,
}

/// Everything up to `last_step` was sent, and the next line is `next_line`.
///
/// # Errors
/// [`StoreError::LeaseLost`] if somebody else has taken it on since.
pub async fn sent(
    tx: &mut TenantTx,
    run: &Run,
    last_step: u64,
    next_line: u64,
    next: Next,
) -> Result<(), StoreError> {
    let after = match next {
        Next::After(pause) => Some(pause.as_secs_f64()),
        Next::Asleep | Next::Finished => None,
    };
    let done = sqlx::query!(
        "UPDATE wandb_runs
         SET last_step = $5, next_line = $6, n_failures = 0, last_error = NULL, lease_token = NULL,
             wakes_at = CASE WHEN has_news THEN now()
                        ELSE COALESCE(now() + make_interval(secs => $7), 'infinity') END,
             finished_at = CASE WHEN $8 THEN now() END
         WHERE project_id = $1 AND job_id = $2 AND integration = $3::int AND lease_token = $4",
        run.project_id.0,
        run.job_id.0,
        number(run),
        run.lease_token.0,
        to_bigint("last_step", last_step)?,
        to_bigint("next_line", next_line)?,
        after,
        next == Next::Finished,
    )
    .execute(tx.connection())
    .await?;
    held(&done)
}

/// Something went wrong; `reason` holds no secret. `warns` says that the job is told of it in this transaction. Says
/// whether there is another attempt: with the pauses of a webhook's delivery, so for three days.
///
/// # Errors
/// [`StoreError::LeaseLost`] if somebody else has taken it on since.
pub async fn failed(
    tx: &mut TenantTx,
    run: &Run,
    reason: &str,
    warns: bool,
) -> Result<bool, StoreError> {
    let n_failures = run.n_failures.saturating_add(1);
    let pause = pause_after(n_failures);
    let done = sqlx::query!(
        "UPDATE wandb_runs
         SET n_failures = $5, last_error = $6, lease_token = NULL,
             warned_at = CASE WHEN $7 THEN now() ELSE warned_at END,
             wakes_at = now() + make_interval(secs => $8),
             finished_at = CASE WHEN $9 THEN now() END
         WHERE project_id = $1 AND job_id = $2 AND integration = $3::int AND lease_token = $4",
        run.project_id.0,
        run.job_id.0,
        number(run),
        run.lease_token.0,
        n_failures,
        reason,
        warns,
        pause.unwrap_or_default().as_secs_f64(),
        pause.is_none(),
    )
    .execute(tx.connection())
    .await?;
    held(&done)?;
    Ok(pause.is_some())
}

fn number(run: &Run) -> i32 {
    // `take` read it from a smallint.
    i32::try_from(run.integration).unwrap_or(i32::MAX)
}

fn held(done: &PgQueryResult) -> Result<(), StoreError> {
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}
