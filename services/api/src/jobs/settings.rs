//! The settings of a job as the OpenAPI document shows them: here is what each does, and what it takes is what `domain`
//! takes.

use std::borrow::Cow;

use domain::Hyperparameters;
use domain::config::TargetModule;
use domain::field::{Range, SettingKind};
use domain::limits::MAX_SEED;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type,
};
use utoipa::openapi::{Object, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::openapi::build::{nullable, or_auto, word, word_or_null};

/// One setting: its name and what it does.
#[derive(Clone, Copy)]
struct Setting(&'static str, &'static str);

const REPLAY: &[Setting] = &[
    Setting("ratio", "The share of replayed rows in an epoch."),
    Setting(
        "file",
        "The uploaded file whose rows are mixed in. Required.",
    ),
];

const EARLY_STOPPING: &[Setting] = &[
    Setting(
        "patience",
        "Measurements without a gain, after which the run ends.",
    ),
    Setting("min_delta", "What counts as a gain, in nats."),
];

const LORA: &[Setting] = &[
    Setting("rank", "Columns of A, rows of B."),
    Setting("alpha", "The output is scaled by `alpha / rank`."),
    Setting("use_rslora", "Scales by `alpha / √rank` instead."),
    Setting(
        "use_dora",
        "Learns each output's magnitude apart from its direction (DoRA).",
    ),
    Setting("dropout", "The share of inputs that is zeroed in training."),
    Setting("target_modules", "The layers that carry an adapter."),
];

const SETTINGS: &[Setting] = &[
    Setting("n_epochs", "How often every row is seen."),
    Setting("max_steps", "Ends the run early; never lengthens it."),
    Setting("device", "The kind of worker that may take the job."),
    Setting("batch_size", "Rows of one micro-batch."),
    Setting("precision", "Numbers that training is computed in."),
    Setting("checkpoint_every", "Steps between two checkpoints."),
    Setting("learning_rate", "The learning rate after warmup."),
    Setting(
        "learning_rate_multiplier",
        "Scales the learning rate that `auto` would choose.",
    ),
    Setting("lr_schedule", "How the rate moves after warmup."),
    Setting("warmup_steps", "Steps in which the learning rate climbs."),
    Setting("weight_decay", "`AdamW`'s decoupled weight decay."),
    Setting("adam_beta1", "The decay of the gradient's mean."),
    Setting("adam_beta2", "The decay of the gradient's square."),
    Setting("adam_eps", "Added to `AdamW`'s denominator."),
    Setting(
        "max_grad_norm",
        "What the gradient is cut to; 0 turns it off.",
    ),
    Setting("grad_accum", "Micro-batches per step."),
    Setting("max_seq_len", "Rows are cut after this many tokens."),
    Setting(
        "packing",
        "Whether rows of a micro-batch share one line of tokens.",
    ),
    Setting(
        "shuffle",
        "Whether the rows' order is drawn anew each epoch.",
    ),
    Setting("seed", "Everything drawn at random follows from it."),
    Setting(
        "method",
        "The loss. It may make `method.type` precise: `ipo`, `orpo` and `simpo` read the rows of `dpo`.",
    ),
    Setting(
        "beta",
        "How close to the reference a preference method stays: the larger, the closer.",
    ),
    Setting("gamma", "SimPO's margin."),
    Setting("desirable_weight", "KTO's weight of good rows."),
    Setting("undesirable_weight", "KTO's weight of bad rows."),
    Setting("tuning", "What learns: an adapter, or every weight."),
    Setting("train_embeddings", "Belongs to `full` tuning."),
    Setting(
        "quantization",
        "How the base model is kept in memory while an adapter learns.",
    ),
    Setting("recompute", "Trades about a third more time for memory."),
    Setting(
        "kl_weight",
        "Holds the model to its base, per supervised token.",
    ),
    Setting(
        "replay",
        "Rows of another file among those of the training file.",
    ),
    Setting("keep", "Which state becomes the model."),
    Setting("early_stopping", "Ends a run that only gets worse."),
    Setting(
        "max_perplexity_increase",
        "Warns when the perplexity of a general text grows by more than this share.",
    ),
    Setting("lora", "The adapter."),
];

/// Every setting of a run, with its range. What is absent, null or `"auto"` is chosen by the service.
#[derive(Debug)]
pub(crate) struct TrainingSettings;

/// The settings of OpenAI's supervised method.
#[derive(Debug)]
pub(crate) struct SupervisedHyperparameters;

/// The settings of OpenAI's DPO method.
#[derive(Debug)]
pub(crate) struct DpoHyperparameters;

macro_rules! described {
    ($($name:ident = $settings:expr;)+) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(object("", $settings).into())
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )+};
}

described! {
    TrainingSettings = SETTINGS;
    SupervisedHyperparameters = &of_openai(&["n_epochs", "batch_size", "learning_rate_multiplier"]);
    DpoHyperparameters = &of_openai(&["n_epochs", "batch_size", "learning_rate_multiplier", "beta"]);
}

/// A request's `seed`, which is also a setting.
pub(crate) fn seed() -> Schema {
    or_auto(whole(0, MAX_SEED)).build().into()
}

/// Those of [`SETTINGS`] that OpenAI knows, too.
fn of_openai(names: &[&str]) -> Vec<Setting> {
    let known = SETTINGS.iter().filter(|setting| names.contains(&setting.0));
    known.copied().collect()
}

/// The object at `path`, which is empty or ends with a dot. A misspelled setting is refused.
fn object(path: &str, settings: &[Setting]) -> Object {
    let taken = Hyperparameters::settings();
    let object = settings
        .iter()
        .fold(ObjectBuilder::new(), |object, Setting(name, about)| {
            let path = format!("{path}{name}");
            let known = taken.iter().find(|setting| setting.field == path);
            let schema = match known {
                Some(setting) => simple(&setting.kind, about),
                None => compound(&path, about),
            };
            object.property(*name, schema)
        });
    object
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

fn described(any: AnyOfBuilder, about: &str) -> Schema {
    any.description(Some(about)).build().into()
}

fn simple(kind: &SettingKind, about: &str) -> Schema {
    match kind {
        SettingKind::Integer { min, max } => described(or_auto(whole(*min, *max)), about),
        SettingKind::Number(range) => described(or_auto(number(range)), about),
        SettingKind::Boolean => described(or_auto(Object::with_type(Type::Boolean)), about),
        SettingKind::Word(words) => {
            let words: Vec<&str> = words.iter().map(String::as_str).chain(["auto"]).collect();
            let mut schema = word_or_null(&words);
            schema.description = Some(about.to_owned());
            schema.into()
        }
    }
}

/// What holds other settings, or is neither number nor word.
fn compound(path: &str, about: &str) -> Schema {
    let inner = match path {
        "replay" => REPLAY,
        "early_stopping" => EARLY_STOPPING,
        "lora" => LORA,
        "lora.target_modules" => {
            let modules = TargetModule::ALL.map(TargetModule::as_str);
            let list = ArrayBuilder::new().items(word(&modules)).min_items(Some(1));
            return described(or_auto(list.build()), about);
        }
        "replay.file" => {
            let file = ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1));
            return file.description(Some(about)).build().into();
        }
        path => unreachable!("`domain` takes no `{path}`: a test holds the two together"),
    };
    described(nullable(object(&format!("{path}."), inner)), about)
}

fn whole(min: u64, max: u64) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(min))
        .maximum(Some(max))
        .build()
}

fn number(range: &Range) -> Object {
    let object = ObjectBuilder::new().schema_type(Type::Number);
    let object = if range.includes_min {
        object.minimum(Some(range.min))
    } else {
        object.exclusive_minimum(Some(range.min))
    };
    match range.max {
        Some(max) if range.includes_max => object.maximum(Some(max)),
        Some(max) => object.exclusive_maximum(Some(max)),
        None => object,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_setting_is_there_and_every_inner_one() {
        let unknown = Hyperparameters::parse("", &json!({"": 1}))
            .unwrap_err()
            .message;
        let known = unknown.split('`').skip(1).step_by(2);
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.0).collect();
        names.sort_unstable();
        let mut expected: Vec<&str> = known.collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "{unknown}");
        for setting in Hyperparameters::settings() {
            let Some((outer, name)) = setting.field.split_once('.') else {
                continue;
            };
            let inner = match outer {
                "lora" => LORA,
                "replay" => REPLAY,
                _ => EARLY_STOPPING,
            };
            let is_there = inner.iter().any(|each| each.0 == name);
            assert!(is_there, "{}", setting.field);
        }
    }
}
