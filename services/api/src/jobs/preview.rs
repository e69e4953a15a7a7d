//! `POST /v1/fine_tuning/jobs/preview`: the first rows of a file as a model would read them, before anything is trained.
//!
//! Rendered by the code that training uses: the text after the chat template, its tokens, which of them are learned, what
//! is cut off, and what is wrong with which line. Only the beginning of the file is read.

use axum::Json;
use axum::extract::State;
use dataset::{Judgement, Row, RowErrorKind};
use domain::{Scope, TrainingConfig};
use serde::Serialize;
use serde_json::Value;
use text::{Shown, TextModel};
use utoipa::ToSchema;

use super::create::inputs;
use super::request::NewJob;
use super::sample::Sample;
use crate::AppState;
use crate::auth::Tenant;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::text_models::BaseText;

const DEFAULT_ROWS: u64 = 5;
const MAX_ROWS: u64 = 20;
/// Rows longer than this together are not shown: an answer holds several times as much.
const MAX_BYTES: u64 = 2 << 20;
/// Tokens of all rows that are shown one by one: some megabytes.
const MAX_TOKENS: usize = 50_000;

/// The beginning of a file as it would be trained on.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetPreview {
    object: &'static str,
    model: String,
    training_file: String,
    /// Where rows are cut.
    max_seq_len: u64,
    /// Whether these are all of the file's rows.
    is_whole_file: bool,
    rows: Vec<PreviewRow>,
    /// Lines that cannot be trained on, and rows that would be but probably should not.
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PreviewRow {
    line: u64,
    /// What is learned; of a preference, the better answer.
    example: PreviewText,
    /// The other answer of a preference.
    rejected: Option<PreviewText>,
    /// What a judged row says of itself.
    label: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PreviewText {
    /// The text that is kept, in pieces that are learned or given.
    segments: Vec<PreviewSegment>,
    /// The same, token by token: what the loss sees. The first 50,000 of the answer; where these are fewer than
    /// `n_tokens`, ask for fewer rows.
    tokens: Vec<PreviewToken>,
    /// The text that is cut off.
    cut_text: String,
    n_tokens: usize,
    n_loss_tokens: usize,
    n_cut_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct PreviewSegment {
    text: String,
    supervised: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct PreviewToken {
    id: u32,
    /// Empty where the token ends within a character, which is then the text of the token that ends it.
    text: String,
    /// Whether the model learns to write it.
    supervised: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PreviewProblem)]
struct Problem {
    line: u64,
    code: &'static str,
    message: String,
}

/// Show the first rows of a training file as text, with what is learned of it.
///
/// Takes the request of a new job and beside it `n_rows`, at most 20.
#[utoipa::path(
    post,
    path = "/v1/fine_tuning/jobs/preview",
    tag = "Fine-tuning",
    request_body(content = super::body::DatasetToPreview),
    responses((status = 200, body = DatasetPreview, description = "The rows as text."))
)]
pub async fn preview_dataset(
    State(state): State<AppState>,
    tenant: Tenant,
    JsonBody(body): JsonBody,
) -> Result<Json<DatasetPreview>, ApiError> {
    // It shows what a file holds.
    tenant.needs(Scope::Files)?;
    let n_rows = n_rows(&body)?;
    let new = NewJob::read(&body)?;
    let now = state.clock.now();
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let inputs = inputs(&mut tx, &new, now).await?;
    let objects = state.buckets.of(&mut tx).await?;
    tx.commit().await?;
    let config = new.asked.resolve(&inputs.facts()?);
    let file = &inputs.training;
    let key = artifacts::keys::file(file.project_id, file.id);
    let sample = Sample::head(&objects, &key, file.size_bytes, MAX_BYTES, n_rows).await?;
    let max_seq_len = config.max_seq_len;
    let is_whole_file = sample.is_whole;
    let work = move |base: &BaseText| {
        let text = base.text.clone().with_now(now);
        Ok(Preview::of(&sample, &text, &config))
    };
    let Preview { rows, problems, .. } = state.texts.with(&inputs.model.base, work).await?;
    Ok(Json(DatasetPreview {
        object: "fine_tuning.preview",
        model: new.model,
        training_file: new.training_file,
        max_seq_len,
        is_whole_file,
        rows,
        problems,
    }))
}

fn n_rows(body: &Value) -> Result<usize, ApiError> {
    let asked = match body.get("n_rows") {
        None | Some(Value::Null) => DEFAULT_ROWS,
        Some(n) => n
            .as_u64()
            .filter(|n| (1..=MAX_ROWS).contains(n))
            .ok_or_else(|| {
                let message = format!("`n_rows` must be a whole number between 1 and {MAX_ROWS}.");
                ApiError::invalid("n_rows", message)
            })?,
    };
    Ok(usize::try_from(asked).expect("at most 20"))
}

#[derive(Default)]
struct Preview {
    rows: Vec<PreviewRow>,
    /// In these rows.
    n_tokens: usize,
    problems: Vec<Problem>,
}

impl Preview {
    fn of(sample: &Sample, text: &TextModel, config: &TrainingConfig) -> Self {
        let mut preview = Self::default();
        for row in sample.rows(config.method.row_kind()) {
            match row {
                Ok(row) => preview.row(&row, text, config),
                Err(error) => {
                    let code = match error.kind {
                        RowErrorKind::LineTooLong { .. } => "line_too_long",
                        _ => "invalid_row",
                    };
                    preview.problem(error.line, code, error.kind.to_string());
                }
            }
        }
        if sample.n_bytes() == 0 {
            let message =
                format!("The first row is longer than {MAX_BYTES} bytes, so it is not shown.");
            preview.problem(1, "not_shown", message);
        }
        preview
    }

    fn row(&mut self, row: &Row, text: &TextModel, config: &TrainingConfig) {
        let max_seq_len = usize::try_from(config.max_seq_len).unwrap_or(usize::MAX);
        let mut show = |conversation| match text.show_example(conversation, max_seq_len) {
            Ok(shown) => {
                self.judge(row.line, &shown, text, max_seq_len);
                let text = PreviewText::of(&shown, MAX_TOKENS - self.n_tokens);
                self.n_tokens += text.tokens.len();
                Some(text)
            }
            Err(error) => {
                let message = domain::failure::error_chain(&error);
                self.problem(row.line, "template_failed", message);
                None
            }
        };
        let Some(example) = show(&row.conversation) else {
            return;
        };
        let rejected = match &row.judgement {
            Judgement::BetterThan(other) => show(other),
            Judgement::None | Judgement::Good | Judgement::Bad => None,
        };
        self.rows.push(PreviewRow {
            line: row.line,
            example,
            rejected,
            label: match row.judgement {
                Judgement::Good => Some(true),
                Judgement::Bad => Some(false),
                Judgement::None | Judgement::BetterThan(_) => None,
            },
        });
    }

    /// What would be trained without a word, and is rarely meant.
    fn judge(&mut self, line: u64, shown: &Shown, text: &TextModel, max_seq_len: usize) {
        let example = &shown.example;
        if example.truncated {
            let n_cut = shown.n_uncut_tokens - example.n_tokens();
            let message = format!(
                "{n_cut} of its {} tokens are cut off at `max_seq_len` {max_seq_len}; raise it or split the row",
                shown.n_uncut_tokens
            );
            self.problem(line, "truncated", message);
        }
        if example.n_supervised() == 0 {
            let message = "nothing of it is learned: the assistant's words are all cut off";
            self.problem(line, "nothing_to_learn", message.to_owned());
        } else if !example.truncated && !text.learns_to_end(example) {
            let message = "no token that ends a text is learned, so the model may not stop; look at the chat template";
            self.problem(line, "no_end_learned", message.to_owned());
        }
    }

    fn problem(&mut self, line: u64, code: &'static str, message: String) {
        self.problems.push(Problem {
            line,
            code,
            message,
        });
    }
}

impl PreviewText {
    fn of(shown: &Shown, max_tokens: usize) -> Self {
        let segments = shown.segments().into_iter();
        let tokens = shown.tokens().take(max_tokens);
        Self {
            segments: segments
                .map(|segment| PreviewSegment {
                    text: segment.text.to_owned(),
                    supervised: segment.supervised,
                })
                .collect(),
            tokens: tokens
                .map(|token| PreviewToken {
                    id: token.id,
                    text: token.text.to_owned(),
                    supervised: token.supervised,
                })
                .collect(),
            cut_text: shown.cut_text().to_owned(),
            n_tokens: shown.example.n_tokens(),
            n_loss_tokens: shown.example.n_supervised(),
            n_cut_tokens: shown.n_uncut_tokens - shown.example.n_tokens(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_counted_within_bounds() {
        assert_eq!(n_rows(&json!({})).unwrap(), 5);
        assert_eq!(n_rows(&json!({"n_rows": 20})).unwrap(), 20);
        for asked in [json!(0), json!(21), json!("5"), json!(1.5), json!(-1)] {
            assert!(n_rows(&json!({"n_rows": asked})).is_err(), "{asked}");
        }
    }
}
