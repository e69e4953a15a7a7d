//! From a grader, a sample and what judges said to a reward. A grader that fails gives 0 and says why.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::formula::Formula;
use crate::grader::{Grader, Kind, Leaf};
use crate::judge::Question;
use crate::similarity::similarity;
use crate::template::{RenderError, Sample, render};

/// What came of a question.
pub type Answer = Result<Reply, AskError>;

/// A judge that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model `{model}` could not be asked: {reason}")]
pub struct AskError {
    /// The judge.
    pub model: String,
    /// Why, in words for the tenant.
    pub reason: String,
}

/// What a judge said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The answer; none if it refused.
    pub text: Option<String>,
    /// The model as it calls itself.
    pub model: Option<String>,
    /// What it cost.
    pub usage: Usage,
}

/// Tokens that judges took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
}

impl Reply {
    /// Reads a chat completion. None if it is none.
    pub fn read(completion: &Value) -> Option<Self> {
        let choice = completion["choices"].get(0)?;
        let refused =
            choice["finish_reason"] == "content_filter" || choice["message"]["refusal"].is_string();
        let text = choice["message"]["content"].as_str().map(str::to_owned);
        let tokens = |name: &str| completion["usage"][name].as_u64().unwrap_or_default();
        Some(Self {
            text: text.filter(|_| !refused),
            model: completion["model"].as_str().map(str::to_owned),
            usage: Usage {
                prompt_tokens: tokens("prompt_tokens"),
                completion_tokens: tokens("completion_tokens"),
                total_tokens: tokens("total_tokens"),
            },
        })
    }
}

/// What went wrong, in OpenAI's fourteen words. All are always there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "OpenAI's shape")]
pub struct Flags {
    pub formula_parse_error: bool,
    pub sample_parse_error: bool,
    pub truncated_observation_error: bool,
    pub unresponsive_reward_error: bool,
    pub invalid_variable_error: bool,
    pub other_error: bool,
    pub python_grader_server_error: bool,
    pub python_grader_server_error_type: Option<String>,
    pub python_grader_runtime_error: bool,
    pub python_grader_runtime_error_details: Option<String>,
    pub model_grader_server_error: bool,
    pub model_grader_refusal_error: bool,
    pub model_grader_parse_error: bool,
    pub model_grader_server_error_details: Option<String>,
}

/// One single grader's part.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// What results call it.
    pub name: String,
    /// Its reward; 0 if it failed.
    pub reward: f64,
}

/// What a grader gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grading {
    /// The reward; 0 if something failed.
    pub reward: f64,
    /// What failed.
    pub flags: Flags,
    /// What failed, in sentences.
    pub messages: Vec<String>,
    /// The single graders of a `multi`; of one grader, itself.
    pub scored: Vec<Scored>,
    /// Tokens by judge.
    pub usage: BTreeMap<String, Usage>,
    /// What the last judge calls itself.
    pub sampled_model_name: Option<String>,
}

impl Grading {
    /// Tokens of all judges; none if no judge was asked.
    pub fn total_tokens(&self) -> Option<u64> {
        (!self.usage.is_empty()).then(|| self.usage.values().map(|usage| usage.total_tokens).sum())
    }

    fn failed(&mut self, place: &str, error: &Failure) {
        self.messages.push(format!("{place}: {}", error.message()));
        error.raise(&mut self.flags);
    }
}

/// Why a grader has no reward.
enum Failure {
    Render(RenderError),
    Formula(String),
    Ask(AskError),
    Refusal(String),
    Unreadable(String),
    Other(String),
}

impl Failure {
    fn message(&self) -> String {
        match self {
            Self::Render(error) => error.to_string(),
            Self::Ask(error) => error.to_string(),
            Self::Formula(text)
            | Self::Refusal(text)
            | Self::Unreadable(text)
            | Self::Other(text) => text.clone(),
        }
    }

    fn raise(&self, flags: &mut Flags) {
        match self {
            Self::Render(RenderError::NotJson(_)) => flags.sample_parse_error = true,
            Self::Render(RenderError::Missing(_) | RenderError::Template(_)) => {
                flags.invalid_variable_error = true;
            }
            Self::Render(RenderError::TooLong | RenderError::TooMuch) | Self::Other(_) => {
                flags.other_error = true;
            }
            Self::Formula(_) => flags.formula_parse_error = true,
            Self::Ask(error) => {
                flags.model_grader_server_error = true;
                flags.model_grader_server_error_details = Some(error.to_string());
            }
            Self::Refusal(_) => flags.model_grader_refusal_error = true,
            Self::Unreadable(_) => flags.model_grader_parse_error = true,
        }
    }
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        Self::Render(error)
    }
}

impl Grader {
    /// Whether it takes models to grade.
    pub fn asks_models(&self) -> bool {
        let leaves = self.leaves();
        leaves
            .iter()
            .any(|(_, leaf)| matches!(leaf, Leaf::ScoreModel(_) | Leaf::LabelModel(_)))
    }

    /// What judges must be asked, by the number of the single grader; None where none is needed, or where the prompt
    /// cannot be made.
    pub fn questions(&self, sample: &Sample<'_>) -> Vec<Option<Question>> {
        let question = |(_, leaf): (&str, &Leaf)| match leaf {
            Leaf::ScoreModel(judge) => judge.question(sample).ok(),
            Leaf::LabelModel(judge) => judge.question(sample).ok(),
            Leaf::StringCheck { .. } | Leaf::TextSimilarity { .. } => None,
        };
        self.leaves().into_iter().map(question).collect()
    }

    /// The reward, given what became of each of [`Grader::questions`].
    pub fn grade(&self, sample: &Sample<'_>, answers: Vec<Option<Answer>>) -> Grading {
        let mut grading = Grading::default();
        let mut answers = answers.into_iter();
        for (name, leaf) in self.leaves() {
            let answer = answers.next().flatten();
            if let Some(Ok(reply)) = &answer {
                grading.count(leaf, reply);
            }
            let reward = reward(leaf, sample, answer).unwrap_or_else(|error| {
                grading.failed(name, &error);
                0.0
            });
            grading.scored.push(Scored {
                name: name.to_owned(),
                reward,
            });
        }
        match self.total(&grading) {
            // Of graders that failed no formula makes sense; the formula is read all the same.
            Ok(total) if grading.messages.is_empty() => grading.reward = total,
            Ok(_) => {}
            Err(error) => grading.failed("calculate_output", &error),
        }
        grading
    }

    fn total(&self, grading: &Grading) -> Result<f64, Failure> {
        let Kind::Multi {
            graders,
            calculate_output,
        } = &self.kind
        else {
            return Ok(grading.scored[0].reward);
        };
        let names = graders.iter().map(|(name, _)| name.as_str());
        let formula = Formula::parse(calculate_output, names)
            .map_err(|error| Failure::Formula(error.to_string()))?;
        let values = grading
            .scored
            .iter()
            .map(|scored| (scored.name.clone(), scored.reward))
            .collect();
        let total = formula.value(&values);
        if total.is_finite() {
            return Ok(total);
        }
        Err(Failure::Other(format!(
            "the formula gives no finite number for {}",
            grading
                .scored
                .iter()
                .map(|s| format!("{} = {}", s.name, s.reward))
                .collect::<Vec<_>>()
                .join(", ")
        )))
    }
}

impl Grading {
    fn count(&mut self, leaf: &Leaf, reply: &Reply) {
        let (Leaf::ScoreModel(crate::judge::ScoreModel { model, .. })
        | Leaf::LabelModel(crate::judge::LabelModel { model, .. })) = leaf
        else {
            return;
        };
        let usage = self.usage.entry(model.clone()).or_default();
        usage.prompt_tokens += reply.usage.prompt_tokens;
        usage.completion_tokens += reply.usage.completion_tokens;
        usage.total_tokens += reply.usage.total_tokens;
        self.sampled_model_name = reply.model.clone().or_else(|| Some(model.clone()));
    }
}

fn reward(leaf: &Leaf, sample: &Sample<'_>, answer: Option<Answer>) -> Result<f64, Failure> {
    match leaf {
        Leaf::StringCheck {
            input,
            reference,
            operation,
        } => {
            let holds = operation.holds(&render(input, sample)?, &render(reference, sample)?);
            Ok(f64::from(u8::from(holds)))
        }
        Leaf::TextSimilarity {
            input,
            reference,
            metric,
        } => similarity(
            *metric,
            &render(input, sample)?,
            &render(reference, sample)?,
        )
        .map_err(|error| Failure::Other(error.to_string())),
        Leaf::ScoreModel(judge) => {
            judge.question(sample)?;
            judged(answer, |text| judge.score(text), "one number")
        }
        Leaf::LabelModel(judge) => {
            judge.question(sample)?;
            judged(answer, |text| judge.score(text), "one of the labels")
        }
    }
}

fn judged(
    answer: Option<Answer>,
    score: impl Fn(&str) -> Option<f64>,
    wanted: &str,
) -> Result<f64, Failure> {
    let answer = answer.ok_or_else(|| Failure::Other("the judge was not asked".to_owned()))?;
    let reply = answer.map_err(Failure::Ask)?;
    let text = reply
        .text
        .ok_or_else(|| Failure::Refusal("the judge refused to answer".to_owned()))?;
    score(&text).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Failure::Unreadable(format!("the judge's answer is not {wanted}: {shown:?}"))
    })
}
