//! The settings of a job as the OpenAPI document shows them. `domain` decides what is taken; a test holds every range
//! that stands here to what it decides.

use std::borrow::Cow;

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type,
};
use utoipa::openapi::{Object, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::openapi::build::{nullable, or_auto, word, word_or_null};

/// One setting: its name, what it takes and what it does.
struct Setting(&'static str, Takes, &'static str);

#[derive(Clone, Copy)]
enum Takes {
    Whole(u64, u64),
    Number(Bound, Bound),
    Switch,
    Word(&'static [&'static str]),
    Modules,
    /// An object of settings, or null.
    Object(&'static [Setting]),
    /// A file's id.
    File,
}

/// Where a range ends.
#[derive(Clone, Copy)]
enum Bound {
    /// The number belongs to it.
    At(f64),
    /// The number does not.
    Beyond(f64),
    Open,
}

use Bound::{At, Beyond, Open};
use Takes::{File, Modules, Number, Switch, Whole, Word};

const N_EPOCHS: Setting = Setting("n_epochs", Whole(1, 50), "How often every row is seen.");
const BATCH_SIZE: Setting = Setting("batch_size", Whole(1, 256), "Rows of one micro-batch.");
const MULTIPLIER: Setting = Setting(
    "learning_rate_multiplier",
    Number(At(1e-6), At(1000.0)),
    "Scales the learning rate that `auto` would choose.",
);
const BETA: Setting = Setting(
    "beta",
    Number(Beyond(0.0), At(100.0)),
    "How close to the reference a preference method stays: the larger, the closer.",
);

const REPLAY: &[Setting] = &[
    Setting(
        "ratio",
        Number(Beyond(0.0), Beyond(1.0)),
        "The share of replayed rows in an epoch.",
    ),
    Setting(
        "file",
        File,
        "The uploaded file whose rows are mixed in. Required.",
    ),
];

const EARLY_STOPPING: &[Setting] = &[
    Setting(
        "patience",
        Whole(1, 1000),
        "Measurements without a gain, after which the run ends.",
    ),
    Setting(
        "min_delta",
        Number(At(0.0), Open),
        "What counts as a gain, in nats.",
    ),
];

const LORA: &[Setting] = &[
    Setting("rank", Whole(1, 256), "Columns of A, rows of B."),
    Setting(
        "alpha",
        Number(Beyond(0.0), At(4096.0)),
        "The output is scaled by `alpha / rank`.",
    ),
    Setting("use_rslora", Switch, "Scales by `alpha / √rank` instead."),
    Setting(
        "use_dora",
        Switch,
        "Learns each output's magnitude apart from its direction (DoRA).",
    ),
    Setting(
        "dropout",
        Number(At(0.0), Beyond(1.0)),
        "The share of inputs that is zeroed in training.",
    ),
    Setting(
        "target_modules",
        Modules,
        "The layers that carry an adapter.",
    ),
];

const SETTINGS: &[Setting] = &[
    N_EPOCHS,
    Setting(
        "max_steps",
        Whole(1, 10_000_000),
        "Ends the run early; never lengthens it.",
    ),
    Setting(
        "device",
        Word(&["cpu", "cuda"]),
        "The kind of worker that may take the job.",
    ),
    BATCH_SIZE,
    Setting(
        "precision",
        Word(&["f32", "bf16"]),
        "Numbers that training is computed in.",
    ),
    Setting(
        "checkpoint_every",
        Whole(1, 10_000_000),
        "Steps between two checkpoints.",
    ),
    Setting(
        "learning_rate",
        Number(Beyond(0.0), At(1.0)),
        "The learning rate after warmup.",
    ),
    MULTIPLIER,
    Setting(
        "lr_schedule",
        Word(&["constant", "linear", "cosine"]),
        "How the rate moves after warmup.",
    ),
    Setting(
        "warmup_steps",
        Whole(0, 10_000_000),
        "Steps in which the learning rate climbs.",
    ),
    Setting(
        "weight_decay",
        Number(At(0.0), At(1.0)),
        "`AdamW`'s decoupled weight decay.",
    ),
    Setting(
        "adam_beta1",
        Number(At(0.0), Beyond(1.0)),
        "The decay of the gradient's mean.",
    ),
    Setting(
        "adam_beta2",
        Number(At(0.0), Beyond(1.0)),
        "The decay of the gradient's square.",
    ),
    Setting(
        "adam_eps",
        Number(Beyond(0.0), At(1.0)),
        "Added to `AdamW`'s denominator.",
    ),
    Setting(
        "max_grad_norm",
        Number(At(0.0), Open),
        "What the gradient is cut to; 0 turns it off.",
    ),
    Setting("grad_accum", Whole(1, 1024), "Micro-batches per step."),
    Setting(
        "max_seq_len",
        Whole(16, 1_048_576),
        "Rows are cut after this many tokens.",
    ),
    Setting(
        "packing",
        Switch,
        "Whether rows of a micro-batch share one line of tokens.",
    ),
    Setting(
        "shuffle",
        Switch,
        "Whether the rows' order is drawn anew each epoch.",
    ),
    Setting(
        "seed",
        Whole(0, 2_147_483_647),
        "Everything drawn at random follows from it.",
    ),
    Setting(
        "method",
        Word(&["supervised", "dpo", "ipo", "orpo", "simpo", "kto"]),
        "The loss. It may make `method.type` precise: `ipo`, `orpo` and `simpo` read the rows of `dpo`.",
    ),
    BETA,
    Setting("gamma", Number(At(0.0), At(100.0)), "SimPO's margin."),
    Setting(
        "desirable_weight",
        Number(Beyond(0.0), At(100.0)),
        "KTO's weight of good rows.",
    ),
    Setting(
        "undesirable_weight",
        Number(Beyond(0.0), At(100.0)),
        "KTO's weight of bad rows.",
    ),
    Setting(
        "tuning",
        Word(&["lora", "full"]),
        "What learns: an adapter, or every weight.",
    ),
    Setting("train_embeddings", Switch, "Belongs to `full` tuning."),
    Setting(
        "quantization",
        Word(&["none", "nf4", "gguf"]),
        "How the base model is kept in memory while an adapter learns.",
    ),
    Setting(
        "recompute",
        Switch,
        "Trades about a third more time for memory.",
    ),
    Setting(
        "kl_weight",
        Number(At(0.0), At(100.0)),
        "Holds the model to its base, per supervised token.",
    ),
    Setting(
        "replay",
        Takes::Object(REPLAY),
        "Rows of another file among those of the training file.",
    ),
    Setting(
        "keep",
        Word(&["last", "best"]),
        "Which state becomes the model.",
    ),
    Setting(
        "early_stopping",
        Takes::Object(EARLY_STOPPING),
        "Ends a run that only gets worse.",
    ),
    Setting(
        "max_perplexity_increase",
        Number(At(0.0), Open),
        "Warns when the perplexity of a general text grows by more than this share.",
    ),
    Setting("lora", Takes::Object(LORA), "The adapter."),
];

const MODULES: &[&str] = &[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
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
                RefOr::T(object($settings).into())
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
    SupervisedHyperparameters = &[N_EPOCHS, BATCH_SIZE, MULTIPLIER];
    DpoHyperparameters = &[N_EPOCHS, BATCH_SIZE, MULTIPLIER, BETA];
}

/// A request's `seed`, which is also a setting.
pub(crate) fn seed() -> Schema {
    or_auto(whole(0, 2_147_483_647)).build().into()
}

/// A misspelled setting is refused.
fn object(settings: &[Setting]) -> Object {
    settings
        .iter()
        .fold(ObjectBuilder::new(), |object, setting| {
            object.property(setting.0, setting.schema())
        })
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

impl Setting {
    fn schema(&self) -> Schema {
        let Self(_, takes, about) = self;
        let described = |any: AnyOfBuilder| any.description(Some(*about)).build().into();
        match *takes {
            Whole(min, max) => described(or_auto(whole(min, max))),
            Number(from, to) => described(or_auto(number(from, to))),
            Switch => described(or_auto(Object::with_type(Type::Boolean))),
            Word(words) => {
                let words = words.iter().copied().chain(["auto"]).collect::<Vec<_>>();
                let mut schema = word_or_null(&words);
                schema.description = Some((*about).to_owned());
                schema.into()
            }
            Modules => described(or_auto(
                ArrayBuilder::new()
                    .items(word(MODULES))
                    .min_items(Some(1))
                    .build(),
            )),
            Takes::Object(settings) => described(nullable(object(settings))),
            File => ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .description(Some(*about))
                .build()
                .into(),
        }
    }
}

fn whole(min: u64, max: u64) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(min))
        .maximum(Some(max))
        .build()
}

fn number(from: Bound, to: Bound) -> Object {
    let object = ObjectBuilder::new().schema_type(Type::Number);
    let object = match from {
        At(least) => object.minimum(Some(least)),
        Beyond(bound) => object.exclusive_minimum(Some(bound)),
        Open => object,
    };
    match to {
        At(most) => object.maximum(Some(most)),
        Beyond(bound) => object.exclusive_maximum(Some(bound)),
        Open => object,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use domain::Hyperparameters;
    use domain::config::MethodKind;
    use serde_json::{Map, Value, json};

    use super::*;

    /// Whether the field itself is refused; that it does not go with another one is not the question here.
    fn is_out_of_range(path: &[&str], value: &Value) -> bool {
        let asked = path.iter().rev().fold(value.clone(), |value, name| {
            Value::Object(Map::from_iter([((*name).to_owned(), value)]))
        });
        match Hyperparameters::parse("", &asked) {
            Err(error) => error.field == path.join(".") && error.message.starts_with("must be"),
            Ok(_) => false,
        }
    }

    /// Values that the schema allows at the edges of the range, and values next to them that it does not.
    fn edges(takes: Takes) -> (Vec<Value>, Vec<Value>) {
        let step = 1e-9;
        match takes {
            Whole(min, max) => (
                vec![json!(min), json!(max)],
                vec![
                    json!(min.checked_sub(1).map_or(json!(-1), Value::from)),
                    json!(max + 1),
                    json!("1"),
                ],
            ),
            Number(from, to) => {
                let (mut inside, mut outside) = (Vec::new(), vec![json!("1"), json!(true)]);
                for (bound, inward) in [(from, 1.0), (to, -1.0)] {
                    match bound {
                        At(bound) => {
                            inside.push(json!(bound));
                            outside.push(json!(bound - inward * step * bound.max(1.0)));
                        }
                        Beyond(bound) => {
                            inside.push(json!(bound + inward * step));
                            outside.push(json!(bound));
                        }
                        Open => inside.push(json!(1e300)),
                    }
                }
                (inside, outside)
            }
            Switch => (
                vec![json!(true), json!(false)],
                vec![json!(1), json!("true")],
            ),
            Word(words) => (
                words.iter().map(|word| json!(word)).collect(),
                vec![json!("no"), json!(1)],
            ),
            Modules => (vec![json!(MODULES)], vec![json!([]), json!("q_proj")]),
            File => (vec![json!("file-1")], vec![json!(1), json!("")]),
            Takes::Object(_) => (vec![], vec![]),
        }
    }

    fn check(outer: &[&str], settings: &[Setting]) {
        for Setting(name, takes, _) in settings {
            let path = [outer, &[*name]].concat();
            if let Takes::Object(inner) = takes {
                check(&path, inner);
            }
            let (inside, outside) = edges(*takes);
            for value in inside {
                assert!(
                    !is_out_of_range(&path, &value),
                    "{path:?}: {value} should be allowed"
                );
            }
            for value in outside {
                assert!(
                    is_out_of_range(&path, &value),
                    "{path:?}: {value} should be refused"
                );
            }
        }
    }

    #[test]
    fn every_range_is_the_one_that_is_checked() {
        check(&[], SETTINGS);
    }

    #[test]
    fn every_setting_is_there_and_every_method() {
        let unknown = Hyperparameters::parse("", &json!({"": 1}))
            .unwrap_err()
            .message;
        let known = unknown.split('`').skip(1).step_by(2);
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.0).collect();
        names.sort_unstable();
        let mut expected: Vec<&str> = known.collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "{unknown}");
        let methods = SETTINGS.iter().find_map(|setting| match *setting {
            Setting("method", Word(words), _) => Some(words),
            _ => None,
        });
        assert_eq!(methods.unwrap(), MethodKind::ALL.map(|(name, _)| name));
    }
}
