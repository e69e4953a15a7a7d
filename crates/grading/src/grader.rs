//! A grader as a client writes it, read and bounded; and as it is shown again.

mod read;

use serde_json::{Map, Value, json};

use crate::formula::Formula;
use crate::judge::{LabelModel, ScoreModel};
use crate::similarity::Metric;
use crate::{Operation, template};

/// Graders in one `multi`.
pub const MAX_GRADERS: usize = 16;
/// Characters of a grader's name.
pub const MAX_NAME_CHARS: usize = 128;
/// Messages of a prompt.
pub const MAX_MESSAGES: usize = 64;
/// Labels of a `label_model`.
pub const MAX_LABELS: usize = 64;

/// A grader that cannot be used: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct GraderError {
    /// The field's full path, for instance `grader.graders.math.input`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// Whether it is right in itself, but this version cannot run it.
    pub is_unsupported: bool,
}

/// A grader.
#[derive(Debug, Clone, PartialEq)]
pub struct Grader {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
}

/// One grader, or several under a formula.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// One.
    Single(Leaf),
    /// Several, by the names that the formula uses. There is no `multi` in a `multi`.
    Multi {
        /// The graders.
        graders: Vec<(String, Grader)>,
        /// The formula over their names.
        calculate_output: String,
    },
}

/// What a single grader does.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf {
    /// 1 if the operation holds, else 0.
    StringCheck {
        /// A template.
        input: String,
        /// A template.
        reference: String,
        /// The comparison.
        operation: Operation,
    },
    /// From 0 to 1.
    TextSimilarity {
        /// A template.
        input: String,
        /// A template.
        reference: String,
        /// The measure.
        metric: Metric,
    },
    /// The number that a model says.
    ScoreModel(ScoreModel),
    /// 1 if a model says one of the good labels, else 0.
    LabelModel(LabelModel),
}

impl Leaf {
    /// OpenAI's word for its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StringCheck { .. } => "string_check",
            Self::TextSimilarity { .. } => "text_similarity",
            Self::ScoreModel(_) => "score_model",
            Self::LabelModel(_) => "label_model",
        }
    }

    fn templates(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::StringCheck {
                input, reference, ..
            }
            | Self::TextSimilarity {
                input, reference, ..
            } => {
                vec![("input", input), ("reference", reference)]
            }
            Self::ScoreModel(ScoreModel { messages, .. })
            | Self::LabelModel(LabelModel { messages, .. }) => messages
                .iter()
                .map(|message| ("input", message.text.as_str()))
                .collect(),
        }
    }
}

impl Grader {
    /// Reads a grader; `path` is where it stands in the request. Templates and the formula are looked at by
    /// [`Grader::check`], or when it runs.
    ///
    /// # Errors
    /// Names the field.
    pub fn read(path: &str, value: &Value) -> Result<Self, GraderError> {
        read::grader(path, value)
    }

    /// OpenAI's word for its type.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Single(leaf) => leaf.kind(),
            Kind::Multi { .. } => "multi",
        }
    }

    /// Whether its templates and its formula can be read.
    ///
    /// # Errors
    /// Names the field and what stands in it.
    pub fn check(&self, path: &str) -> Result<(), GraderError> {
        match &self.kind {
            Kind::Single(leaf) => leaf.templates().into_iter().try_for_each(|(field, text)| {
                template::check(text).map_err(|error| invalid(path, field, error.to_string()))
            }),
            Kind::Multi {
                graders,
                calculate_output,
            } => {
                for (name, grader) in graders {
                    grader.check(&format!("{path}.graders.{name}"))?;
                }
                let names = graders.iter().map(|(name, _)| name.as_str());
                Formula::parse(calculate_output, names)
                    .map(drop)
                    .map_err(|error| invalid(path, "calculate_output", error.to_string()))
            }
        }
    }

    /// The grader with every default written out.
    pub fn to_json(&self) -> Value {
        let mut shown = Map::from_iter([
            ("type".to_owned(), json!(self.kind())),
            ("name".to_owned(), json!(self.name)),
        ]);
        let rest = match &self.kind {
            Kind::Single(Leaf::StringCheck {
                input,
                reference,
                operation,
            }) => {
                json!({"input": input, "reference": reference, "operation": operation})
            }
            Kind::Single(Leaf::TextSimilarity {
                input,
                reference,
                metric,
            }) => {
                json!({"input": input, "reference": reference, "evaluation_metric": metric})
            }
            Kind::Single(Leaf::ScoreModel(judge)) => judge.to_json(),
            Kind::Single(Leaf::LabelModel(judge)) => judge.to_json(),
            Kind::Multi {
                graders,
                calculate_output,
            } => {
                let graders = graders
                    .iter()
                    .map(|(name, grader)| (name.clone(), grader.to_json()));
                json!({"graders": graders.collect::<Map<_, _>>(), "calculate_output": calculate_output})
            }
        };
        if let Value::Object(rest) = rest {
            shown.extend(rest);
        }
        Value::Object(shown)
    }

    /// Every single grader with the name that results go by.
    pub(crate) fn leaves(&self) -> Vec<(&str, &Leaf)> {
        match &self.kind {
            Kind::Single(leaf) => vec![(&self.name, leaf)],
            Kind::Multi { graders, .. } => graders
                .iter()
                .filter_map(|(name, grader)| match &grader.kind {
                    Kind::Single(leaf) => Some((name.as_str(), leaf)),
                    Kind::Multi { .. } => None,
                })
                .collect(),
        }
    }
}

pub(crate) fn invalid(path: &str, field: &str, message: impl Into<String>) -> GraderError {
    let field = if field.is_empty() {
        path.to_owned()
    } else {
        format!("{path}.{field}")
    };
    GraderError {
        field,
        message: message.into(),
        is_unsupported: false,
    }
}

#[cfg(test)]
mod tests;
