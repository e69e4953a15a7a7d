//! Reading settings out of a JSON object, field by field, with errors that name the field.
//!
//! serde's own errors name a line and a column of text the client never saw as such; a person who set `lora.rank`
//! to 0 wants to read `lora.rank`.

mod range;

use serde_json::{Map, Value};

pub use range::Range;

/// A field whose value cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The path of the field, for instance `lora.rank`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FieldError {
    /// An error of the field `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// The same error, one level further out.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            ..self
        }
    }
}

/// A setting, and what it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The path of the field, for instance `lora.rank`.
    pub field: String,
    /// What it takes, beside `null` and `"auto"`.
    pub kind: SettingKind,
}

/// What a setting takes.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingKind {
    /// A whole number between these two.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A number in a range.
    Number(Range),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Word(Vec<String>),
}

/// The fields of one JSON object that have not been read yet.
#[derive(Debug)]
pub struct Fields {
    path: String,
    rest: Map<String, Value>,
    /// What was asked for, if that is to be known.
    settings: Option<Vec<Setting>>,
}

impl Fields {
    /// The fields of `value`, which must be an object. `path` names it in errors and may be empty.
    pub fn of(path: &str, value: &Value) -> Result<Self, FieldError> {
        let rest = value
            .as_object()
            .ok_or_else(|| FieldError::new(path, "must be a JSON object"))?
            .clone();
        Ok(Self {
            path: path.to_owned(),
            rest,
            settings: None,
        })
    }

    /// No fields, for whoever wants to know what is read: see [`Fields::settings`].
    pub fn described(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            rest: Map::new(),
            settings: Some(Vec::new()),
        }
    }

    /// What was asked of [`Fields::described`], in that order.
    pub fn settings(self) -> Vec<Setting> {
        self.settings.unwrap_or_default()
    }

    fn describe(&mut self, name: &str, kind: impl FnOnce() -> SettingKind) {
        let field = self.path_of(name);
        if let Some(settings) = &mut self.settings {
            settings.push(Setting {
                field,
                kind: kind(),
            });
        }
    }

    /// An optional whole number within bounds. `null` and `"auto"` count as absent.
    pub fn integer(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, FieldError> {
        self.describe(name, || SettingKind::Integer { min, max });
        self.take(name, |value| {
            whole_number(value)
                .filter(|n| (min..=max).contains(n))
                .ok_or_else(|| format!("must be a whole number between {min} and {max}"))
        })
    }

    /// An optional number within a range.
    pub fn number(&mut self, name: &str, range: Range) -> Result<Option<f64>, FieldError> {
        self.describe(name, || SettingKind::Number(range));
        self.take(name, |value| {
            value
                .as_f64()
                .filter(|n| n.is_finite() && range.contains(*n))
                .ok_or_else(|| format!("must be {range}"))
        })
    }

    /// An optional `true` or `false`.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        self.describe(name, || SettingKind::Boolean);
        self.take(name, |value| {
            value
                .as_bool()
                .ok_or_else(|| "must be true or false".to_owned())
        })
    }

    /// An optional word out of `words`.
    pub fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, FieldError> {
        self.describe(name, || {
            SettingKind::Word(words.iter().map(|(word, _)| (*word).to_owned()).collect())
        });
        self.take(name, |value| {
            words
                .iter()
                .find(|(word, _)| value.as_str() == Some(word))
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| {
                    format!(
                        "must be one of {}",
                        list(words.iter().map(|(word, _)| *word))
                    )
                })
        })
    }

    /// An optional value that is read by the caller. `null` counts as absent.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    /// Every field has been read: what is left is a mistake, most often a misspelling.
    pub fn finish(self, known: &[&str]) -> Result<(), FieldError> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => Err(FieldError::new(
                self.path_of(name),
                format!(
                    "is not a setting; the settings here are {}",
                    list(known.iter().copied())
                ),
            )),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<Option<T>, FieldError> {
        match self.rest.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) if word == "auto" => Ok(None),
            Some(value) => read(&value).map(Some).map_err(|wanted| {
                FieldError::new(
                    self.path_of(name),
                    format!("{wanted}, but is {}", shown(&value)),
                )
            }),
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

/// `3` and `3.0` are the same number in JSON, and some clients write the second.
fn whole_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let is_whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        is_whole.then_some(number as u64)
    })
}

/// A value as an error shows it: short, whatever was sent.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).collect::<String>() + "…"
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_names_the_whole_path_and_the_value() {
        let mut fields = Fields::of("lora", &json!({"rank": 0})).unwrap();
        let error = fields.integer("rank", 1, 256).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lora.rank: must be a whole number between 1 and 256, but is 0"
        );
    }

    #[test]
    fn auto_and_null_are_absent() {
        let mut fields = Fields::of("", &json!({"a": "auto", "b": null})).unwrap();
        assert_eq!(fields.integer("a", 1, 2), Ok(None));
        assert_eq!(fields.boolean("b"), Ok(None));
    }

    #[test]
    fn a_misspelled_setting_is_refused() {
        let fields = Fields::of("", &json!({"n_epoch": 3})).unwrap();
        let message = fields.finish(&["n_epochs"]).unwrap_err().to_string();
        assert_eq!(
            message,
            "n_epoch: is not a setting; the settings here are `n_epochs`"
        );
    }

    #[test]
    fn a_huge_value_is_shown_short() {
        let mut fields = Fields::of("", &json!({"a": "x".repeat(100_000)})).unwrap();
        assert!(fields.integer("a", 1, 2).unwrap_err().to_string().len() < 200);
    }
}
