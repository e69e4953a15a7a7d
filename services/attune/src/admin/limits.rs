//! `attune admin project limits`: shows and changes what a project may use at most, and its share of the workers.

use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use domain::ProjectId;
use serde_json::{Value, json};
use store::OperatorTx;
use store::audit::Act;
use store::organizations::Organization;
use store::quotas::{self, Quotas};
use store::shares::{self, Share};
use time::OffsetDateTime;

use super::{Answer, record};

/// A number, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(Option<u64>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse().ok().filter(|n| i64::try_from(*n).is_ok());
        let number: u64 = number.ok_or("a limit is a whole number, or `none`")?;
        Ok(Self(Some(number)))
    }
}

/// What to change. What is not named stays.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Jobs at workers at the same time, or `none`
    #[arg(long, value_name = "N")]
    max_running_jobs: Option<Limit>,
    /// Jobs that wait for a worker, or `none`
    #[arg(long, value_name = "N")]
    max_queued_jobs: Option<Limit>,
    /// Bytes of all files, or `none`
    #[arg(long, value_name = "BYTES")]
    max_storage_bytes: Option<Limit>,
    /// Tokens trained from midnight to midnight, UTC, or `none`
    #[arg(long, value_name = "TOKENS")]
    max_trained_tokens_per_day: Option<Limit>,
    /// Requests a minute, or `none`
    #[arg(long, value_name = "N")]
    max_requests_per_minute: Option<Limit>,
    /// Tokens of chats a minute, or `none`
    #[arg(long, value_name = "TOKENS")]
    max_tokens_per_minute: Option<Limit>,
    /// Jobs for each one that a waiting project of weight 1 gets
    #[arg(long, value_name = "WEIGHT")]
    weight: Option<f64>,
    /// Projects of a lower priority wait as long as this one has a job to claim
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
}

/// Changes the limits if that is asked, and answers with what they are.
pub(super) async fn act(
    args: &LimitArgs,
    tx: &mut OperatorTx,
    org: &Organization,
    project_id: ProjectId,
    now: OffsetDateTime,
) -> Result<Answer> {
    let before = (
        quotas::find(tx, org.id, project_id).await?,
        shares::get(tx, project_id).await?,
    );
    let after = (args.quotas(before.0)?, args.share(before.1)?);
    let json = shown(project_id, &after.0, &after.1);
    if before != after {
        quotas::set(tx, org.id, project_id, &after.0).await?;
        shares::set(tx, project_id, after.1).await?;
        let act = Act::new("rate_limit.updated", "project.rate_limit", "rl-project");
        let act = act.project(project_id).details(json.clone());
        record(tx, org.id, &act, now).await?;
    }
    let fields = json.as_object().into_iter().flatten();
    let lines = fields.map(|(name, value)| format!("{name}: {}", said(value)));
    let text = lines.collect::<Vec<_>>().join("\n");
    Ok(Answer::new(json, text))
}

impl LimitArgs {
    fn quotas(&self, mut quotas: Quotas) -> Result<Quotas> {
        for (limit, asked) in [
            (&mut quotas.max_queued_jobs, self.max_queued_jobs),
            (&mut quotas.max_storage_bytes, self.max_storage_bytes),
            (
                &mut quotas.max_trained_tokens_per_day,
                self.max_trained_tokens_per_day,
            ),
            (
                &mut quotas.max_requests_per_minute,
                self.max_requests_per_minute,
            ),
            (
                &mut quotas.max_tokens_per_minute,
                self.max_tokens_per_minute,
            ),
        ] {
            if let Some(Limit(asked)) = asked {
                *limit = asked;
            }
        }
        let a_minute = [quotas.max_requests_per_minute, quotas.max_tokens_per_minute];
        anyhow::ensure!(
            !a_minute.contains(&Some(0)),
            "a limit per minute is 1 or more, or `none`; revoke the project to let nobody in"
        );
        Ok(quotas)
    }

    fn share(&self, mut share: Share) -> Result<Share> {
        if let Some(Limit(max)) = self.max_running_jobs {
            share.max_running_jobs = max
                .map(i32::try_from)
                .transpose()
                .context("--max-running-jobs is too large")?;
        }
        share.weight = self.weight.unwrap_or(share.weight);
        share.priority = self.priority.unwrap_or(share.priority);
        anyhow::ensure!(
            (0.001..=1000.0).contains(&share.weight),
            "--weight must be between 0.001 and 1000"
        );
        Ok(share)
    }
}

fn shown(project_id: ProjectId, quotas: &Quotas, share: &Share) -> Value {
    json!({
        "project_id": project_id,
        "max_running_jobs": share.max_running_jobs,
        "max_queued_jobs": quotas.max_queued_jobs,
        "max_storage_bytes": quotas.max_storage_bytes,
        "max_trained_tokens_per_day": quotas.max_trained_tokens_per_day,
        "max_requests_per_minute": quotas.max_requests_per_minute,
        "max_tokens_per_minute": quotas.max_tokens_per_minute,
        "weight": share.weight,
        "priority": share.priority,
    })
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!("none".parse(), Ok(Limit(None)));
        assert_eq!("0".parse(), Ok(Limit(Some(0))));
        for text in ["", "-1", "1.5", "18446744073709551615"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
