//! How fast jobs run here, for estimates: no device is at hand to ask.

use domain::DeviceKind;

use crate::base_models::BaseModel;
use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx};

/// How fast jobs ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Tokens of their steps, prompts included.
    pub tokens_per_second: f64,
    /// Which jobs they were.
    pub basis: Basis,
}

/// Where a speed comes from, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// So many of the project's latest jobs on the base model.
    OwnJobs(u64),
    /// The installation's latest jobs on the base model, of all projects. Rounded to two digits: a number is all that a
    /// tenant learns of the others' jobs.
    AllJobs,
    /// The same on another base model, the nearest in size of up to eight times the parameters or an eighth, scaled by
    /// them.
    OtherBase,
}

/// How fast a job on this base model would run on workers of this kind, or of any; `None` where nothing like it has run.
pub async fn expected(
    tx: &mut TenantTx,
    base: &BaseModel,
    device: Option<DeviceKind>,
) -> Result<Option<Speed>, StoreError> {
    let device = device.map(DeviceKind::as_str);
    if let Some(own) = of_own_jobs(tx, &base.name, device).await? {
        return Ok(Some(own));
    }
    let row = sqlx::query!(
        "SELECT training_speed($1, $2) AS same_base, training_speed_by_size($3, $2) AS other_base",
        base.name,
        device,
        to_bigint("n_params", base.n_params)?,
    )
    .fetch_one(tx.connection())
    .await?;
    let of = |tokens_per_second: Option<f64>, basis| {
        tokens_per_second.map(|tokens_per_second| Speed {
            tokens_per_second,
            basis,
        })
    };
    Ok(of(row.same_base, Basis::AllJobs).or_else(|| of(row.other_base, Basis::OtherBase)))
}

/// By the last steps of each of the project's latest jobs.
async fn of_own_jobs(
    tx: &mut TenantTx,
    base_model: &str,
    device: Option<&str>,
) -> Result<Option<Speed>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(DISTINCT j.id) AS "n_jobs!", sum(m.n_tokens)::float8 * 1000 / NULLIF(sum(m.step_ms), 0) AS speed
           FROM (SELECT id FROM jobs
                 WHERE project_id = $1 AND base_model = $2 AND status = 'succeeded'
                   AND ($3::text IS NULL OR COALESCE(device, needs_device) = $3)
                 ORDER BY created_at DESC LIMIT 5) AS j
           CROSS JOIN LATERAL (SELECT n_tokens, step_ms FROM job_metrics
                               WHERE project_id = $1 AND job_id = j.id
                               ORDER BY step DESC LIMIT 200) AS m"#,
        tx.project_id().0,
        base_model,
        device,
    )
    .fetch_one(tx.connection())
    .await?;
    let n_jobs = from_bigint("count", row.n_jobs)?;
    let speed = row.speed.filter(|speed| *speed > 0.0);
    Ok(speed.map(|tokens_per_second| Speed {
        tokens_per_second,
        basis: Basis::OwnJobs(n_jobs),
    }))
}
