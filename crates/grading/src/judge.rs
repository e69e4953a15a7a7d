//! Models as judges: what they are asked, and what their answers mean.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::template::{self, RenderError, Sample};

/// Tokens of an answer unless the grader says otherwise: a number or a label needs few.
const DEFAULT_MAX_TOKENS: u64 = 256;

/// A chat completion to ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The judge.
    pub model: String,
    /// The body of `POST /v1/chat/completions`.
    pub request: Value,
}

/// Who speaks in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The rules.
    System,
    /// The rules, in OpenAI's newer word.
    Developer,
}

/// A message of a prompt; its text is a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(rename = "content")]
    pub text: String,
}

/// How much a reasoning model thinks. Taken and shown; no model here reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// How a judge's answer is drawn.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sampling {
    /// For the same answer again.
    pub seed: Option<i64>,
    /// Nucleus.
    pub top_p: Option<f64>,
    /// Temperature.
    pub temperature: Option<f64>,
    /// OpenAI's spelling.
    pub max_completions_tokens: Option<u64>,
    /// Not used.
    pub reasoning_effort: Option<Effort>,
}

/// A judge that says a number.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreModel {
    /// The judge.
    pub model: String,
    /// How it is asked.
    pub sampling: Sampling,
    /// What it is asked.
    pub messages: Vec<Message>,
    /// The least and the greatest score. What lies outside is moved to the nearer end.
    pub range: [f64; 2],
}

/// A judge that says a label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelModel {
    /// The judge.
    pub model: String,
    /// What it is asked.
    pub messages: Vec<Message>,
    /// What it may say.
    pub labels: Vec<String>,
    /// What gives 1.
    pub passing_labels: Vec<String>,
}

impl ScoreModel {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "model": self.model, "sampling_params": self.sampling, "input": self.messages, "range": self.range,
        })
    }

    pub(crate) fn question(&self, sample: &Sample<'_>) -> Result<Question, RenderError> {
        let [low, high] = self.range;
        let rule = format!("Answer with one number from {low} to {high} and nothing else.");
        question(&self.model, &self.messages, &rule, &self.sampling, sample)
    }

    /// The score in an answer: the text is a number, or JSON with one under `result` or `score`, or has exactly one number
    /// in it.
    pub(crate) fn score(&self, answer: &str) -> Option<f64> {
        let [low, high] = self.range;
        let number = number_in(answer).filter(|number| number.is_finite())?;
        Some(number.clamp(low, high))
    }
}

impl LabelModel {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "model": self.model, "input": self.messages, "labels": self.labels, "passing_labels": self.passing_labels,
        })
    }

    pub(crate) fn question(&self, sample: &Sample<'_>) -> Result<Question, RenderError> {
        let rule = format!(
            "Answer with one of these labels and nothing else: {}",
            self.labels.join(", ")
        );
        question(
            &self.model,
            &self.messages,
            &rule,
            &Sampling::default(),
            sample,
        )
    }

    /// 1 or 0 by the label in an answer, whatever its case: the whole text, or the only label that occurs in it.
    pub(crate) fn score(&self, answer: &str) -> Option<f64> {
        let said = answer
            .trim()
            .trim_matches(['"', '\'', '.', '`'])
            .to_lowercase();
        let is = |label: &&String| label.trim().to_lowercase() == said;
        let label = if let Some(label) = self.labels.iter().find(is) {
            label
        } else {
            let is_named = |label: &&String| names(&said, &label.trim().to_lowercase());
            let mut named = self.labels.iter().filter(is_named);
            named.next().filter(|_| named.next().is_none())?
        };
        Some(f64::from(u8::from(self.passing_labels.contains(label))))
    }
}

fn question(
    model: &str,
    messages: &[Message],
    answer_rule: &str,
    sampling: &Sampling,
    sample: &Sample<'_>,
) -> Result<Question, RenderError> {
    let mut rendered = Vec::with_capacity(messages.len() + 1);
    let mut rule_said = false;
    for message in messages {
        let mut text = template::render(&message.text, sample)?;
        let is_rules = matches!(message.role, Role::System | Role::Developer);
        if is_rules && !rule_said {
            text = format!("{text}\n\n{answer_rule}");
            rule_said = true;
        }
        // Chat templates of open models know no `developer`.
        let role = if is_rules { Role::System } else { message.role };
        rendered.push(Message { role, text });
    }
    if !rule_said {
        rendered.insert(
            0,
            Message {
                role: Role::System,
                text: answer_rule.to_owned(),
            },
        );
    }
    let mut request = Map::from_iter([
        ("model".to_owned(), json!(model)),
        ("messages".to_owned(), json!(rendered)),
        (
            "max_tokens".to_owned(),
            json!(
                sampling
                    .max_completions_tokens
                    .unwrap_or(DEFAULT_MAX_TOKENS)
            ),
        ),
        // A judge that is asked twice should say the same.
        (
            "temperature".to_owned(),
            json!(sampling.temperature.unwrap_or(0.0)),
        ),
    ]);
    for (name, value) in [
        ("seed", json!(sampling.seed)),
        ("top_p", json!(sampling.top_p)),
    ] {
        if !value.is_null() {
            request.insert(name.to_owned(), value);
        }
    }
    Ok(Question {
        model: model.to_owned(),
        request: Value::Object(request),
    })
}

fn number_in(answer: &str) -> Option<f64> {
    let text = answer.trim();
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let named = ["result", "score"]
            .into_iter()
            .find_map(|name| value.get(name));
        if let Some(number) = named.unwrap_or(&value).as_f64() {
            return Some(number);
        }
    }
    let mut numbers = text
        .split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .filter_map(|word| word.trim_end_matches(['.', '-', '+']).parse::<f64>().ok());
    numbers.next().filter(|_| numbers.next().is_none())
}

/// Whether the label stands in the text as words of its own: `fail` is not in `failure`.
fn names(text: &str, label: &str) -> bool {
    text.match_indices(label).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + label.len()..].chars().next();
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> ScoreModel {
        let message = |role, text: &str| Message {
            role,
            text: text.to_owned(),
        };
        ScoreModel {
            model: "judge".to_owned(),
            sampling: Sampling {
                seed: Some(3),
                ..Sampling::default()
            },
            messages: vec![
                message(Role::Developer, "Be strict."),
                message(Role::User, "How good is {{sample.output_text}}?"),
            ],
            range: [0.0, 5.0],
        }
    }

    #[test]
    fn the_rule_joins_the_prompts_own_rules() {
        let item = json!({});
        let asked = judge().question(&Sample::new(&item, "it")).unwrap().request;
        let rule = "Be strict.\n\nAnswer with one number from 0 to 5 and nothing else.";
        let messages = json!([
            {"role": "system", "content": rule}, {"role": "user", "content": "How good is it?"}
        ]);
        assert_eq!(
            asked,
            json!({"model": "judge", "messages": messages, "max_tokens": 256, "temperature": 0.0, "seed": 3})
        );
        let mut without = judge();
        without.messages.remove(0);
        let asked = without.question(&Sample::new(&item, "it")).unwrap().request;
        assert_eq!(asked["messages"][0]["role"], "system");
        assert_eq!(asked["messages"][1]["content"], "How good is it?");
    }

    #[test]
    fn a_score_is_the_only_number() {
        for (answer, score) in [
            ("4", Some(4.0)),
            (" 3.5\n", Some(3.5)),
            (r#"{"steps": [], "result": 2}"#, Some(2.0)),
            ("Score: 4.", Some(4.0)),
            ("I give -1", Some(0.0)),
            ("77", Some(5.0)),
            ("between 3 and 4", None),
            ("good", None),
            ("", None),
            ("1e999", None),
            (r#"{"result": "good"}"#, None),
        ] {
            assert_eq!(judge().score(answer), score, "{answer}");
        }
    }

    #[test]
    fn a_label_is_the_only_one_named() {
        let judge = LabelModel {
            model: "judge".to_owned(),
            messages: Vec::new(),
            labels: ["good", "bad", "not good"].map(str::to_owned).to_vec(),
            passing_labels: vec!["good".to_owned()],
        };
        for (answer, score) in [
            ("good", Some(1.0)),
            (" \"Good.\" ", Some(1.0)),
            ("bad", Some(0.0)),
            ("not good", Some(0.0)),
            ("I would say bad, sadly", Some(0.0)),
            ("good or bad", None),
            ("goodness", None),
            ("", None),
        ] {
            assert_eq!(judge.score(answer), score, "{answer}");
        }
    }
}
