//! From JSON to a grader. Keys that are not known are left aside, as OpenAI's clients send some of evaluations' own.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    Grader, GraderError, Kind, Leaf, MAX_GRADERS, MAX_LABELS, MAX_MESSAGES, MAX_NAME_CHARS, invalid,
};
use crate::formula;
use crate::judge::{Effort, LabelModel, Message, Role, Sampling, ScoreModel};

const TYPES: &str = "`string_check`, `text_similarity`, `score_model` or `multi`";

pub(super) fn grader(path: &str, value: &Value) -> Result<Grader, GraderError> {
    let fields = Fields::of(path, value)?;
    match fields.required("type", TYPES)?.as_str() {
        Some("multi") => multi(&fields),
        Some("label_model") => Err(fields.refuse(
            "type",
            "`label_model` stands only inside a `multi`, whose formula turns its 0 or 1 into a reward",
        )),
        _ => single(&fields),
    }
}

fn single(fields: &Fields<'_>) -> Result<Grader, GraderError> {
    let leaf = match fields.required("type", TYPES)?.as_str() {
        Some("string_check") => Leaf::StringCheck {
            input: fields.text("input")?,
            reference: fields.text("reference")?,
            operation: fields.word("operation", "`eq`, `ne`, `like` or `ilike`")?,
        },
        Some("text_similarity") => Leaf::TextSimilarity {
            input: fields.text("input")?,
            reference: fields.text("reference")?,
            metric: fields.word(
                "evaluation_metric",
                "`cosine`, `fuzzy_match`, `bleu`, `gleu`, `meteor`, `rouge_1` to `rouge_5` or `rouge_l`",
            )?,
        },
        Some("score_model") => Leaf::ScoreModel(score_model(fields)?),
        Some("label_model") => Leaf::LabelModel(label_model(fields)?),
        Some("python") => {
            let message = "`python` graders are not run yet: code of a tenant needs a sandbox, which this version does \
                           not have; use `string_check`, `text_similarity`, `score_model` or a `multi` of them";
            return Err(GraderError { is_unsupported: true, ..fields.refuse("type", message) });
        }
        Some("multi") => return Err(fields.refuse("type", "a `multi` cannot stand inside a `multi`")),
        _ => return Err(fields.refuse("type", format!("must be {TYPES}"))),
    };
    Ok(Grader {
        name: fields.name()?,
        kind: Kind::Single(leaf),
    })
}

/// The reference describes `graders` as a single grader and shows it as a map; lists are a natural third.
fn multi(fields: &Fields<'_>) -> Result<Grader, GraderError> {
    let given = fields.required("graders", "a map of names to graders")?;
    let path = format!("{}.graders", fields.path);
    let mut graders = Vec::new();
    match given {
        Value::Object(map) if map.get("type").is_some_and(Value::is_string) => {
            let grader = single(&Fields::of(&path, given)?)?;
            graders.push((grader.name.clone(), grader));
        }
        Value::Object(map) => {
            bounded(fields, map.len())?;
            for (name, value) in map {
                let shown: String = name.chars().take(MAX_NAME_CHARS).collect();
                let grader = single(&Fields::of(&format!("{path}.{shown}"), value)?)?;
                graders.push((name.clone(), grader));
            }
        }
        Value::Array(list) => {
            bounded(fields, list.len())?;
            for (index, value) in list.iter().enumerate() {
                let grader = single(&Fields::of(&format!("{path}[{index}]"), value)?)?;
                graders.push((grader.name.clone(), grader));
            }
        }
        _ => {
            return Err(fields.refuse(
                "graders",
                "must be a map of names to graders, a list of graders or one grader",
            ));
        }
    }
    for (index, (name, _)) in graders.iter().enumerate() {
        if !formula::is_name(name) || name.chars().count() > MAX_NAME_CHARS {
            let message = format!(
                "a grader's name in a `multi` is what the formula calls it: letters, digits and `_`, at most \
                 {MAX_NAME_CHARS}, not a function's name; one is {:?}",
                name.chars().take(64).collect::<String>()
            );
            return Err(fields.refuse("graders", message));
        }
        if graders[..index].iter().any(|(other, _)| other == name) {
            return Err(fields.refuse("graders", format!("two graders are called `{name}`")));
        }
    }
    let calculate_output = fields.text("calculate_output")?;
    Ok(Grader {
        name: fields.name()?,
        kind: Kind::Multi {
            graders,
            calculate_output,
        },
    })
}

fn bounded(fields: &Fields<'_>, length: usize) -> Result<(), GraderError> {
    if (1..=MAX_GRADERS).contains(&length) {
        return Ok(());
    }
    Err(fields.refuse(
        "graders",
        format!("must hold 1 to {MAX_GRADERS} graders, but holds {length}"),
    ))
}

fn score_model(fields: &Fields<'_>) -> Result<ScoreModel, GraderError> {
    let range = match fields.optional("range") {
        None => [0.0, 1.0],
        Some(value) => serde_json::from_value::<[f64; 2]>(value.clone())
            .ok()
            .filter(|[low, high]| low < high)
            .ok_or_else(|| fields.refuse("range", "must be two numbers, the smaller one first"))?,
    };
    Ok(ScoreModel {
        model: fields.model()?,
        sampling: sampling(fields)?,
        messages: messages(fields)?,
        range,
    })
}

fn label_model(fields: &Fields<'_>) -> Result<LabelModel, GraderError> {
    let (labels, passing_labels) = (fields.labels("labels")?, fields.labels("passing_labels")?);
    if let Some(unknown) = passing_labels.iter().find(|label| !labels.contains(label)) {
        let message = format!("has `{unknown}`, which is not one of `labels`");
        return Err(fields.refuse("passing_labels", message));
    }
    Ok(LabelModel {
        model: fields.model()?,
        messages: messages(fields)?,
        labels,
        passing_labels,
    })
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, GraderError> {
    let Some(value) = fields.optional("sampling_params") else {
        return Ok(Sampling::default());
    };
    let fields = Fields::of(&format!("{}.sampling_params", fields.path), value)?;
    Ok(Sampling {
        seed: fields.number("seed", "a whole number", Value::as_i64)?,
        top_p: fields.number("top_p", "a number from 0 to 1", |value| {
            value.as_f64().filter(|p| (0.0..=1.0).contains(p))
        })?,
        temperature: fields.number("temperature", "a number from 0 to 2", |value| {
            value.as_f64().filter(|t| (0.0..=2.0).contains(t))
        })?,
        max_completions_tokens: fields.number(
            "max_completions_tokens",
            "a whole number, 1 or more",
            |value| value.as_u64().filter(|n| *n >= 1),
        )?,
        reasoning_effort: fields.number(
            "reasoning_effort",
            "`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`",
            |value| serde_json::from_value::<Effort>(value.clone()).ok(),
        )?,
    })
}

fn messages(fields: &Fields<'_>) -> Result<Vec<Message>, GraderError> {
    let list = fields.required("input", "a list of messages")?.as_array();
    let list = list.filter(|list| (1..=MAX_MESSAGES).contains(&list.len()));
    let list = list.ok_or_else(|| {
        fields.refuse(
            "input",
            format!("must be a list of 1 to {MAX_MESSAGES} messages"),
        )
    })?;
    let read = |(index, value)| {
        let fields = Fields::of(&format!("{}.input[{index}]", fields.path), value)?;
        let role: Role = fields.word("role", "`user`, `assistant`, `system` or `developer`")?;
        let content = fields.required("content", "a text")?;
        let text = content_text(content).ok_or_else(|| {
            fields.refuse("content", "must be a text, or a list of `{\"type\": \"input_text\", \"text\": …}`; judges read \
                 neither images nor sound here")
        })?;
        Ok(Message { role, text })
    };
    list.iter().enumerate().map(read).collect()
}

fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Option<Vec<String>> = parts.iter().map(part_text).collect();
            texts.map(|texts| texts.join("\n"))
        }
        part => part_text(part),
    }
}

fn part_text(part: &Value) -> Option<String> {
    match part {
        Value::String(text) => Some(text.clone()),
        _ if matches!(
            part["type"].as_str(),
            Some("input_text" | "output_text" | "text")
        ) =>
        {
            part["text"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// An object and where it stands.
struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(path: &str, value: &'a Value) -> Result<Self, GraderError> {
        let map = value
            .as_object()
            .ok_or_else(|| invalid(path, "", "must be an object"))?;
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    fn refuse(&self, field: &str, message: impl Into<String>) -> GraderError {
        invalid(&self.path, field, message)
    }

    fn optional(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn required(&self, field: &str, wanted: &str) -> Result<&'a Value, GraderError> {
        self.optional(field)
            .ok_or_else(|| self.refuse(field, format!("is missing; it must be {wanted}")))
    }

    fn text(&self, field: &str) -> Result<String, GraderError> {
        let text = self.required(field, "a text")?.as_str();
        text.map(str::to_owned)
            .ok_or_else(|| self.refuse(field, "must be a text"))
    }

    fn name(&self) -> Result<String, GraderError> {
        let name = self.text("name")?;
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
            return Err(self.refuse(
                "name",
                format!("must have 1 to {MAX_NAME_CHARS} characters"),
            ));
        }
        Ok(name)
    }

    fn model(&self) -> Result<String, GraderError> {
        let model = self.text("model")?;
        if model.is_empty() {
            return Err(self.refuse("model", "must name a model of `GET /v1/models`"));
        }
        Ok(model)
    }

    fn word<T: DeserializeOwned>(&self, field: &str, wanted: &str) -> Result<T, GraderError> {
        let value = self.required(field, wanted)?.clone();
        serde_json::from_value(value).map_err(|_| self.refuse(field, format!("must be {wanted}")))
    }

    fn number<T>(
        &self,
        field: &str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, GraderError> {
        let Some(value) = self.optional(field) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| self.refuse(field, format!("must be {wanted}")))
    }

    fn labels(&self, field: &str) -> Result<Vec<String>, GraderError> {
        let labels: Vec<String> = self.word(field, "a list of texts")?;
        let good = (1..=MAX_LABELS).contains(&labels.len())
            && labels.iter().all(|label| !label.trim().is_empty());
        if !good {
            return Err(self.refuse(
                field,
                format!("must be a list of 1 to {MAX_LABELS} texts, none of them empty"),
            ));
        }
        Ok(labels)
    }
}
