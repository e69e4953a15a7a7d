//! Graders read, shown and run.

#![expect(clippy::float_cmp, reason = "rewards of these are exact")]

use serde_json::{Value, json};

use super::*;
use crate::{AskError, Flags, Grading, Reply, Sample};

fn string_check() -> Value {
    json!({"type": "string_check", "name": "same", "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
           "operation": "eq"})
}

fn similar() -> Value {
    json!({"type": "text_similarity", "name": "near", "input": "{{sample.output_json.text}}", "reference": "a b",
           "evaluation_metric": "rouge_1"})
}

fn judge() -> Value {
    json!({"type": "score_model", "name": "judge", "model": "m", "input": [{"role": "user", "content": "Rate {{item.q}}"}]})
}

fn multi(graders: &Value, formula: &str) -> Value {
    json!({"type": "multi", "name": "all", "graders": graders, "calculate_output": formula})
}

type Case = (Value, Option<crate::Answer>, fn(&Flags) -> bool);

fn read(value: &Value) -> Result<Grader, GraderError> {
    Grader::read("grader", value)
}

fn graded(value: &Value, output: &str, answers: Vec<Option<crate::Answer>>) -> Grading {
    let item = json!({"answer": "yes", "q": "it"});
    read(value)
        .unwrap()
        .grade(&Sample::new(&item, output), answers)
}

fn reply(text: &str) -> Reply {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7});
    let completion =
        json!({"model": "m-1", "choices": [{"message": {"content": text}}], "usage": usage});
    Reply::read(&completion).unwrap()
}

#[test]
fn a_grader_is_shown_with_its_defaults() {
    let shown = read(&judge()).unwrap().to_json();
    assert_eq!(shown["range"], json!([0.0, 1.0]));
    assert_eq!(read(&shown).unwrap(), read(&judge()).unwrap());
    for value in [
        string_check(),
        similar(),
        multi(&json!({"a": string_check(), "b": similar()}), "a + b"),
    ] {
        assert_eq!(read(&value).unwrap().to_json(), value);
    }
}

#[test]
fn the_graders_of_a_multi_come_as_a_map_a_list_or_alone() {
    let named = |value: &Value| {
        read(value)
            .unwrap()
            .leaves()
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        named(&multi(&json!({"a": string_check(), "b": similar()}), "a")),
        ["a", "b"]
    );
    assert_eq!(
        named(&multi(&json!([string_check(), similar()]), "same")),
        ["same", "near"]
    );
    assert_eq!(named(&multi(&string_check(), "same")), ["same"]);
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

/// One whose passing label it does not have.
fn label() -> Value {
    json!({"type": "label_model", "name": "l", "model": "m", "input": [{"role": "user", "content": "x"}],
           "labels": ["a"], "passing_labels": ["b"]})
}

#[test]
fn what_cannot_be_used_is_named_by_its_path() {
    for (value, field) in [
        (json!(3), "grader"),
        (json!({}), "grader.type"),
        (json!({"type": "regex"}), "grader.type"),
        (
            json!({"type": "python", "name": "p", "source": "x"}),
            "grader.type",
        ),
        (label(), "grader.type"),
        (
            with(string_check(), "operation", json!("gt")),
            "grader.operation",
        ),
        (with(string_check(), "input", json!(3)), "grader.input"),
        (with(string_check(), "name", json!("")), "grader.name"),
        (
            with(similar(), "evaluation_metric", json!("rouge_6")),
            "grader.evaluation_metric",
        ),
        (with(judge(), "range", json!([1, 0])), "grader.range"),
        (with(judge(), "range", json!([0])), "grader.range"),
        (with(judge(), "input", json!([])), "grader.input"),
        (
            with(judge(), "input", json!([{"role": "cat", "content": "x"}])),
            "grader.input[0].role",
        ),
        (
            with(
                judge(),
                "input",
                json!([{"role": "user", "content": [{"type": "input_image"}]}]),
            ),
            "grader.input[0].content",
        ),
        (
            with(judge(), "sampling_params", json!({"top_p": 2})),
            "grader.sampling_params.top_p",
        ),
    ] {
        assert_eq!(read(&value).unwrap_err().field, field, "{value}");
    }
    assert!(read(&json!({"type": "python"})).unwrap_err().is_unsupported);
}

#[test]
fn graders_that_make_no_multi_are_named_by_their_path() {
    for (value, field) in [
        (multi(&json!({}), "1"), "grader.graders"),
        (multi(&json!("x"), "1"), "grader.graders"),
        (
            multi(&json!({"a b": string_check()}), "1"),
            "grader.graders",
        ),
        (
            multi(&json!({"min": string_check()}), "1"),
            "grader.graders",
        ),
        (
            multi(&json!([string_check(), string_check()]), "same"),
            "grader.graders",
        ),
        (
            multi(&json!({"a": multi(&string_check(), "same")}), "a"),
            "grader.graders.a.type",
        ),
        (
            multi(&json!({"a": label()}), "a"),
            "grader.graders.a.passing_labels",
        ),
        (
            multi(&Value::Array(vec![string_check(); MAX_GRADERS + 1]), "same"),
            "grader.graders",
        ),
    ] {
        assert_eq!(read(&value).unwrap_err().field, field, "{value}");
    }
}

#[test]
fn templates_and_the_formula_are_checked_on_demand() {
    let mut wrong = string_check();
    wrong["reference"] = json!("{{row.answer}}");
    let nested = multi(&json!({"a": wrong}), "a");
    for (value, field) in [
        (wrong.clone(), "grader.reference"),
        (nested, "grader.graders.a.reference"),
        (multi(&string_check(), "same +"), "grader.calculate_output"),
        (multi(&string_check(), "other"), "grader.calculate_output"),
    ] {
        let error = read(&value).unwrap().check("grader").unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
    assert!(
        read(&multi(&string_check(), "1 - same"))
            .unwrap()
            .check("grader")
            .is_ok()
    );
}

#[test]
fn single_graders_give_their_reward() {
    let grading = graded(&string_check(), "yes", vec![None]);
    assert_eq!((grading.reward, &grading.flags), (1.0, &Flags::default()));
    assert_eq!(graded(&string_check(), "no", vec![None]).reward, 0.0);
    assert_eq!(
        graded(&similar(), r#"{"text": "A, b!"}"#, vec![None]).reward,
        1.0
    );
    let grading = graded(&judge(), "x", vec![Some(Ok(reply("0.25")))]);
    assert_eq!((grading.reward, grading.total_tokens()), (0.25, Some(7)));
    assert_eq!(grading.sampled_model_name.as_deref(), Some("m-1"));
}

#[test]
fn a_formula_goes_over_all_of_them() {
    let graders = json!({"a": string_check(), "b": judge(), "c": judge()});
    let grading = graded(
        &multi(&graders, "0.5 * a + max(b, c)"),
        "yes",
        vec![None, Some(Ok(reply("0.25"))), Some(Ok(reply("0.5")))],
    );
    assert_eq!((grading.reward, grading.total_tokens()), (1.0, Some(14)));
    let rewards: Vec<f64> = grading.scored.iter().map(|scored| scored.reward).collect();
    assert_eq!(rewards, [1.0, 0.25, 0.5]);
}

#[test]
fn a_failure_is_a_flag_and_no_reward() {
    let asked = |reason: &str| {
        Some(Err(AskError {
            model: "m".to_owned(),
            reason: reason.to_owned(),
        }))
    };
    let refusal = json!({"choices": [{"message": {"content": null, "refusal": "no"}}]});
    let mut missing = string_check();
    missing["input"] = json!("{{item.nothing}}");
    let cases: [Case; 8] = [
        (similar(), None, |flags| flags.sample_parse_error),
        (missing, None, |flags| flags.invalid_variable_error),
        (judge(), asked("it is away"), |flags| {
            flags.model_grader_server_error
        }),
        (judge(), Some(Ok(reply("very good"))), |flags| {
            flags.model_grader_parse_error
        }),
        (judge(), Some(Ok(Reply::read(&refusal).unwrap())), |flags| {
            flags.model_grader_refusal_error
        }),
        (judge(), None, |flags| flags.other_error),
        (multi(&string_check(), "same +"), None, |flags| {
            flags.formula_parse_error
        }),
        (multi(&string_check(), "1 / (same - 1)"), None, |flags| {
            flags.other_error
        }),
    ];
    for (value, answer, is_raised) in cases {
        let grading = graded(&value, "yes", vec![answer]);
        assert_eq!(grading.reward, 0.0, "{value}");
        assert!(is_raised(&grading.flags), "{value} {:?}", grading.flags);
        assert_eq!(grading.messages.len(), 1, "{:?}", grading.messages);
    }
}

#[test]
fn one_that_fails_takes_the_reward_of_all() {
    let graders = json!({"a": string_check(), "b": similar()});
    let grading = graded(&multi(&graders, "a + b"), "yes", vec![None, None]);
    assert_eq!(grading.reward, 0.0);
    assert!(grading.flags.sample_parse_error);
    assert_eq!(grading.scored[0].reward, 1.0);
}
