//! What Weights & Biases is told of a job.

use domain::limits::MAX_WANDB_TAG_CHARS;
use domain::{Job, JobId, JobStatus};
use reqwest::Url;
use serde_json::{Map, Value, json};
use store::jobs::StoredJob;
use store::metrics::RecordedStep;
use store::wandb::accounts::Account;
use store::wandb::runs::Place;
use time::OffsetDateTime;

use crate::jobs::integrations::Wandb;

const HISTORY: &str = "wandb-history.jsonl";
const SUMMARY: &str = "wandb-summary.json";
/// How a run ends that somebody stopped: what Weights & Biases' own client says after Ctrl-C.
const STOPPED: u8 = 255;

/// What the run is called in paths. It is the job's, so making it twice makes one; a job's second integration has another.
pub(super) fn run_name(job_id: JobId, integration: usize) -> String {
    match integration {
        0 => job_id.to_string(),
        n => format!("{job_id}-{}", n + 1),
    }
}

/// The variables of the request that makes the run.
pub(super) fn run(
    stored: &StoredJob,
    integration: usize,
    asked: &Wandb,
    account: &Account,
) -> Value {
    let job = &stored.job;
    let config: Map<String, Value> = settings(stored)
        .into_iter()
        .map(|(name, value)| (name, json!({ "value": value })))
        .collect();
    let ours = ["finetune", &job.base_model, &job.id.to_string()].map(|word| {
        let tag = format!("attune/{word}");
        tag.chars().take(MAX_WANDB_TAG_CHARS).collect::<String>()
    });
    let tags: Vec<&String> = ours.iter().chain(&asked.tags).collect();
    json!({
        "name": run_name(job.id, integration),
        "project": asked.project,
        "entity": asked.entity.as_ref().or(account.entity.as_ref()),
        "displayName": asked.name.clone().unwrap_or_else(|| job.id.to_string()),
        "config": Value::Object(config).to_string(),
        "jobType": "fine-tune",
        "tags": tags,
    })
}

/// Settings by their names, and ids. No row of data and no note of the client's is among them.
fn settings(StoredJob { job, request }: &StoredJob) -> Map<String, Value> {
    let config = &job.config;
    let mut settings = Map::new();
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    set("job_id", json!(job.id));
    set("model", json!(job.model));
    set("base_model", json!(job.base_model));
    set("training_file", json!(job.training_file));
    set("validation_file", json!(job.validation_file));
    set("method", json!(config.method.kind()));
    set("seed", json!(config.seed));
    set("hyperparameters", request.hyperparameters.clone());
    set("learning_rate", json!(config.learning_rate));
    set("lr_schedule", json!(config.lr_schedule));
    set("max_seq_len", json!(config.max_seq_len));
    set("tuning", json!(config.tuning.kind()));
    if let Some(lora) = config.lora() {
        set("lora_rank", json!(lora.rank));
        set("lora_alpha", json!(lora.alpha));
        set("lora_dropout", json!(lora.dropout));
    }
    settings
}

/// Whether there is anything to show. A run that waits with its job would look as if it had crashed.
pub(super) fn has_begun(job: &Job) -> bool {
    job.status == JobStatus::Running || job.status.is_final()
}

/// What is added to a run: lines of its history from `next_line` on, and with `ends` that it is over. Without either it says
/// that the run is alive. The summary shows `last`, the last step that there is.
pub(super) fn addition(
    StoredJob { job, .. }: &StoredJob,
    next_line: u64,
    steps: &[RecordedStep],
    last: Option<&RecordedStep>,
    ends: bool,
) -> Value {
    let mut addition = json!({});
    if steps.is_empty() && !ends {
        return addition;
    }
    let shown = |step| line(step, job.created_at);
    if !steps.is_empty() {
        let lines = steps.iter().map(|step| Value::Object(shown(step)));
        let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
        addition["files"][HISTORY] = json!({"offset": next_line, "content": lines});
    }
    let mut summary = last.map(shown).unwrap_or_default();
    if ends {
        summary.insert("status".to_owned(), json!(job.status));
        summary.insert("trained_tokens".to_owned(), json!(job.trained_tokens));
        summary.insert("fine_tuned_model".to_owned(), json!(job.fine_tuned_model()));
        addition["complete"] = json!(true);
        addition["exitcode"] = json!(exit_code(job.status));
    }
    // Always the same line: the server reads the last one.
    let summary = Value::Object(summary).to_string();
    addition["files"][SUMMARY] = json!({"offset": 0, "content": [summary]});
    addition
}

fn exit_code(status: JobStatus) -> u8 {
    match status {
        JobStatus::Succeeded => 0,
        JobStatus::Cancelled => STOPPED,
        _ => 1,
    }
}

/// One line of the history, which names the numbers as the result file does.
fn line(step: &RecordedStep, began_at: OffsetDateTime) -> Map<String, Value> {
    let RecordedStep {
        metrics,
        recorded_at,
    } = step;
    let mut line = Map::new();
    line.insert("_step".to_owned(), json!(metrics.step));
    for (name, value) in [
        ("_timestamp", Some(seconds(*recorded_at))),
        ("_runtime", Some((*recorded_at - began_at).as_seconds_f64())),
        ("train_loss", Some(metrics.train_loss)),
        ("train_accuracy", Some(metrics.train_accuracy)),
        ("valid_loss", metrics.valid_loss),
        ("valid_mean_token_accuracy", metrics.valid_accuracy),
        ("learning_rate", Some(metrics.learning_rate)),
        ("grad_norm", Some(metrics.grad_norm)),
    ] {
        // JSON has no word for a loss that is no number any more; the step itself is shown.
        if let Some(value) = value.filter(|value| value.is_finite()) {
            line.insert(name.to_owned(), json!(value));
        }
    }
    line.insert("n_tokens".to_owned(), json!(metrics.n_tokens));
    line
}

fn seconds(time: OffsetDateTime) -> f64 {
    (time - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

/// Where people look at the run. Servers of one's own show it where their API is.
pub(super) fn page(base_url: &str, place: &Place, run_name: &str) -> Option<String> {
    let mut url = Url::parse(base_url).ok()?;
    let host = url.host_str()?;
    let shown = match host.strip_prefix("api.") {
        Some(rest) if rest.starts_with("wandb.") => Some(rest.to_owned()),
        Some(rest) => Some(format!("app.{rest}")),
        None => None,
    };
    if let Some(host) = shown {
        url.set_host(Some(&host)).ok()?;
    }
    url.path_segments_mut().ok()?.pop_if_empty().extend([
        place.entity.as_str(),
        &place.project,
        "runs",
        run_name,
    ]);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_page_is_where_the_server_shows_it() {
        let place = Place {
            entity: "my team".to_owned(),
            project: "support".to_owned(),
        };
        for (base_url, expected) in [
            (
                "https://api.wandb.ai",
                "https://wandb.ai/my%20team/support/runs/r",
            ),
            (
                "https://api.corp.com",
                "https://app.corp.com/my%20team/support/runs/r",
            ),
            (
                "http://10.0.0.7:8080",
                "http://10.0.0.7:8080/my%20team/support/runs/r",
            ),
        ] {
            assert_eq!(page(base_url, &place, "r").as_deref(), Some(expected));
        }
    }

    #[test]
    fn how_a_job_ended_is_an_exit_code() {
        let codes = [
            JobStatus::Succeeded,
            JobStatus::Failed,
            JobStatus::Cancelled,
        ]
        .map(exit_code);
        assert_eq!(codes, [0, 1, 255]);
    }
}
