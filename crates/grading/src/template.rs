//! `{{item.…}}` and `{{sample.…}}` in a grader's texts.
//!
//! A path goes through objects by name and through lists by number, from 0. A text is put in as it is, everything else as
//! JSON. What is put in is never read as a template again: a sample cannot name a variable.

use std::cell::Cell;

use serde_json::Value;

/// The longest text a template may become.
pub const MAX_RENDERED_BYTES: usize = 1 << 20;
/// The longest that all texts for one sample may become together: a prompt has many messages, and a `multi` many prompts.
pub const MAX_RENDERED_BYTES_OF_SAMPLE: usize = 8 << 20;

/// What is graded: a row of the dataset and what the model said.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    item: &'a Value,
    output_text: &'a str,
    output_json: Option<Value>,
    /// How much longer the texts may become.
    left_bytes: Cell<usize>,
}

impl<'a> Sample<'a> {
    /// The row `item` and the model's text.
    pub fn new(item: &'a Value, output_text: &'a str) -> Self {
        Self {
            item,
            output_text,
            output_json: serde_json::from_str(output_text).ok(),
            left_bytes: Cell::new(MAX_RENDERED_BYTES_OF_SAMPLE),
        }
    }

    fn spend(&self, n_bytes: usize) -> Result<(), RenderError> {
        let left = self.left_bytes.get().checked_sub(n_bytes);
        self.left_bytes.set(left.ok_or(RenderError::TooMuch)?);
        Ok(())
    }
}

/// A text with a `{{` that is no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without its end.
    #[error("`{{{{` is never closed by `}}}}`")]
    Unclosed,
    /// A variable of neither kind.
    #[error(
        "`{{{{{0}}}}}` is no variable; there are `{{{{item.…}}}}`, `{{{{sample.output_text}}}}` and `{{{{sample.output_json}}}}`"
    )]
    Unknown(String),
}

/// Why a template gave no text for this sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template itself.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The row or the sample has no such value.
    #[error("`{{{{{0}}}}}` is not there")]
    Missing(String),
    /// The sample is no JSON and was asked for as such.
    #[error("`{{{{{0}}}}}` needs a sample that is JSON, which this one is not")]
    NotJson(String),
    /// The text becomes too long.
    #[error("the text becomes longer than {MAX_RENDERED_BYTES} bytes")]
    TooLong,
    /// It and those before it.
    #[error("the grader's texts together become longer than {MAX_RENDERED_BYTES_OF_SAMPLE} bytes")]
    TooMuch,
}

enum Part<'a> {
    Text(&'a str),
    Variable(Variable<'a>),
}

struct Variable<'a> {
    name: &'a str,
    root: Root,
    path: Vec<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Item,
    OutputText,
    OutputJson,
}

/// Whether a text is a template.
///
/// # Errors
/// Names the variable that does not exist.
pub fn check(template: &str) -> Result<(), TemplateError> {
    parts(template).map(drop)
}

/// The text for one sample.
///
/// # Errors
/// Names the variable without a value.
pub fn render(template: &str, sample: &Sample<'_>) -> Result<String, RenderError> {
    let mut text = String::new();
    for part in parts(template)? {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Variable(variable) => variable.put(sample, &mut text)?,
        }
        if text.len() > MAX_RENDERED_BYTES {
            return Err(RenderError::TooLong);
        }
    }
    sample.spend(text.len())?;
    Ok(text)
}

fn parts(template: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    let (mut parts, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        parts.push(Part::Text(before));
        parts.push(Part::Variable(Variable::parse(name.trim())?));
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

impl<'a> Variable<'a> {
    fn parse(name: &'a str) -> Result<Self, TemplateError> {
        let unknown = || TemplateError::Unknown(name.chars().take(64).collect());
        let mut segments = name.split('.').map(str::trim);
        let root = match segments.next() {
            Some("item") => Root::Item,
            Some("sample") => match segments.next() {
                Some("output_text") => Root::OutputText,
                Some("output_json") => Root::OutputJson,
                _ => return Err(unknown()),
            },
            _ => return Err(unknown()),
        };
        let path: Vec<&str> = segments.collect();
        if path.iter().any(|key| key.is_empty()) || (root == Root::OutputText && !path.is_empty()) {
            return Err(unknown());
        }
        Ok(Self { name, root, path })
    }

    fn put(&self, sample: &Sample<'_>, text: &mut String) -> Result<(), RenderError> {
        let value = match self.root {
            Root::OutputText => {
                text.push_str(sample.output_text);
                return Ok(());
            }
            Root::Item => sample.item,
            Root::OutputJson => sample
                .output_json
                .as_ref()
                .ok_or_else(|| RenderError::NotJson(self.name.to_owned()))?,
        };
        let found = self.path.iter().try_fold(value, |value, key| match value {
            Value::Object(fields) => fields.get(*key),
            Value::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            _ => None,
        });
        match found.ok_or_else(|| RenderError::Missing(self.name.to_owned()))? {
            Value::String(plain) => text.push_str(plain),
            other => text.push_str(&other.to_string()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(template: &str, output: &str) -> Result<String, RenderError> {
        let item = json!({
            "answer": "42", "n": 7, "none": null, "deep": {"list": [{"x": "y"}, 2.5]}, "trap": "{{item.answer}}"
        });
        render(template, &Sample::new(&item, output))
    }

    #[test]
    fn a_variable_is_found_at_any_depth() {
        for (template, text) in [
            ("{{item.answer}}", "42"),
            ("a {{ item.n }} b {{item.none}}", "a 7 b null"),
            ("{{item.deep.list.0.x}}{{item.deep.list.1}}", "y2.5"),
            ("{{item.deep.list.0}}", r#"{"x":"y"}"#),
            (
                "{{sample.output_text}}!",
                r#"{"verdict": {"ok": true}, "s": "t"}!"#,
            ),
            (
                "{{sample.output_json.verdict.ok}} {{sample.output_json.s}}",
                "true t",
            ),
            ("no variable } here {", "no variable } here {"),
        ] {
            assert_eq!(
                rendered(template, r#"{"verdict": {"ok": true}, "s": "t"}"#).unwrap(),
                text
            );
        }
    }

    #[test]
    fn what_is_put_in_is_not_read_again() {
        assert_eq!(rendered("{{item.trap}}", "").unwrap(), "{{item.answer}}");
        assert_eq!(
            rendered("{{sample.output_text}}", "{{item.answer}}").unwrap(),
            "{{item.answer}}"
        );
    }

    #[test]
    fn a_value_that_is_not_there_is_named() {
        let missing = RenderError::Missing("item.deep.list.9".to_owned());
        assert_eq!(rendered("{{item.deep.list.9}}", ""), Err(missing));
        let not_json = RenderError::NotJson("sample.output_json.a".to_owned());
        assert_eq!(rendered("{{sample.output_json.a}}", "plain"), Err(not_json));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for template in [
            "{{",
            "{{item.a",
            "{{}}",
            "{{row.a}}",
            "{{sample}}",
            "{{sample.output_text.x}}",
            "{{item..a}}",
        ] {
            assert!(check(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_text_has_an_end() {
        let item = json!({"a": "x".repeat(1000)});
        let template = "{{item.a}}".repeat(2000);
        assert_eq!(
            render(&template, &Sample::new(&item, "")),
            Err(RenderError::TooLong)
        );
    }

    #[test]
    fn the_texts_for_one_sample_have_an_end_together() {
        let item = json!({"a": "x".repeat(MAX_RENDERED_BYTES)});
        let sample = Sample::new(&item, "");
        for _ in 0..MAX_RENDERED_BYTES_OF_SAMPLE / MAX_RENDERED_BYTES {
            assert!(render("{{item.a}}", &sample).is_ok());
        }
        assert_eq!(render("{{item.a}}", &sample), Err(RenderError::TooMuch));
    }
}
