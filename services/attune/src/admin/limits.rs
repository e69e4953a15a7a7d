//! `attune admin project limits`: shows and changes what a project may use at most, and its share of the workers.
//!
//! What is set here is a ceiling: the organization's administrators may set lower limits of their own, which are shown.

use std::str::FromStr;

use anyhow::Result;
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
    /// Bytes of all files, models and checkpoints, or `none`
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
        quotas::ceiling(tx, org.id, project_id).await?,
        shares::get(tx, project_id).await?,
    );
    let organizations = quotas::find(tx, org.id, project_id).await?;
    let after = (args.quotas(before.0)?, args.share(before.1)?);
    let json = shown(project_id, &after.0, &organizations, &after.1);
    if before != after {
        quotas::set_ceiling(tx, org.id, project_id, &after.0).await?;
        shares::set(tx, project_id, after.1).await?;
        let act = Act::new("rate_limit.updated", "project.rate_limit", "rl-project");
        let act = act.project(project_id).details(json.clone());
        record(tx, org.id, &act, now).await?;
    }
    let text = text(&json);
    Ok(Answer::new(json, text))
}

impl LimitArgs {
    fn quotas(&self, mut quotas: Quotas) -> Result<Quotas> {
        for (limit, asked) in [
            (&mut quotas.max_running_jobs, self.max_running_jobs),
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
        anyhow::ensure!(
            quotas
                .max_running_jobs
                .is_none_or(|max| i32::try_from(max).is_ok()),
            "--max-running-jobs is too large"
        );
        let a_minute = [quotas.max_requests_per_minute, quotas.max_tokens_per_minute];
        anyhow::ensure!(
            !a_minute.contains(&Some(0)),
            "a limit per minute is 1 or more, or `none`; revoke the project to let nobody in"
        );
        Ok(quotas)
    }

    fn share(&self, mut share: Share) -> Result<Share> {
        share.weight = self.weight.unwrap_or(share.weight);
        share.priority = self.priority.unwrap_or(share.priority);
        anyhow::ensure!(
            (0.001..=1000.0).contains(&share.weight),
            "--weight must be between 0.001 and 1000"
        );
        Ok(share)
    }
}

/// The operator's limits, and under `organization` those of its administrators.
fn shown(project_id: ProjectId, ceiling: &Quotas, own: &Quotas, share: &Share) -> Value {
    let mut shown = limits(ceiling);
    shown["project_id"] = json!(project_id);
    shown["weight"] = share.weight.into();
    shown["priority"] = share.priority.into();
    shown["organization"] = limits(own);
    shown
}

fn limits(quotas: &Quotas) -> Value {
    json!({
        "max_running_jobs": quotas.max_running_jobs,
        "max_queued_jobs": quotas.max_queued_jobs,
        "max_storage_bytes": quotas.max_storage_bytes,
        "max_trained_tokens_per_day": quotas.max_trained_tokens_per_day,
        "max_requests_per_minute": quotas.max_requests_per_minute,
        "max_tokens_per_minute": quotas.max_tokens_per_minute,
    })
}

/// A line for each, with the organization's own limit beside the operator's.
fn text(shown: &Value) -> String {
    let own = &shown["organization"];
    let fields = shown.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| *name != "organization");
    let lines = fields.map(|(name, value)| match &own[name] {
        Value::Null => format!("{name}: {}", said(value)),
        set => format!("{name}: {} (its administrators: {set})", said(value)),
    });
    lines.collect::<Vec<_>>().join("\n")
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
    fn what_administrators_have_set_stands_beside_the_operators_limit() {
        let of = |n| Quotas {
            max_queued_jobs: n,
            ..Quotas::default()
        };
        let shown = shown(ProjectId::new(), &of(None), &of(Some(3)), &Share::default());
        let text = text(&shown);
        assert!(
            text.contains("max_queued_jobs: none (its administrators: 3)"),
            "{text}"
        );
        assert!(text.contains("max_running_jobs: none\n"), "{text}");
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!("none".parse(), Ok(Limit(None)));
        assert_eq!("0".parse(), Ok(Limit(Some(0))));
        for text in ["", "-1", "1.5", "18446744073709551615"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
