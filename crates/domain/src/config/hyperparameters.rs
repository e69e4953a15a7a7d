//! What a client asks for, before `auto` is decided.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    EarlyStopping, Keep, LrSchedule, MethodKind, Precision, Quantization, Replay, TargetModule,
    TuningKind,
};
use crate::DeviceKind;
use crate::field::{FieldError, Fields, Range, Setting};
use crate::limits::MAX_SEED;

mod combinations;

/// What a client asks for: `job.json`, or the `attune` object of a job. Absent means `auto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is documented at the field of the same name of TrainingConfig"
)]
pub struct Hyperparameters {
    pub n_epochs: Option<u64>,
    pub max_steps: Option<u64>,
    pub device: Option<DeviceKind>,
    pub batch_size: Option<u64>,
    pub precision: Option<Precision>,
    pub checkpoint_every: Option<u64>,
    pub learning_rate: Option<f64>,
    /// Scales the learning rate that `auto` would choose, as OpenAI's field of this name does.
    pub learning_rate_multiplier: Option<f64>,
    pub lr_schedule: Option<LrSchedule>,
    pub warmup_steps: Option<u64>,
    pub weight_decay: Option<f64>,
    pub adam_beta1: Option<f64>,
    pub adam_beta2: Option<f64>,
    pub adam_eps: Option<f64>,
    pub max_grad_norm: Option<f64>,
    pub grad_accum: Option<u64>,
    pub max_seq_len: Option<u64>,
    pub packing: Option<bool>,
    pub shuffle: Option<bool>,
    pub seed: Option<u64>,
    pub method: Option<MethodKind>,
    pub beta: Option<f64>,
    pub gamma: Option<f64>,
    pub desirable_weight: Option<f64>,
    pub undesirable_weight: Option<f64>,
    pub tuning: Option<TuningKind>,
    pub train_embeddings: Option<bool>,
    pub quantization: Option<Quantization>,
    pub recompute: Option<bool>,
    pub kl_weight: Option<f64>,
    pub replay: Option<Replay>,
    pub keep: Option<Keep>,
    pub early_stopping: Option<EarlyStopping>,
    pub max_perplexity_increase: Option<f64>,
    pub lora_rank: Option<u64>,
    pub lora_alpha: Option<f64>,
    pub lora_use_rslora: Option<bool>,
    pub lora_use_dora: Option<bool>,
    pub lora_dropout: Option<f64>,
    pub lora_target_modules: Option<Vec<TargetModule>>,
}

const SETTINGS: [&str; 35] = [
    "n_epochs",
    "max_steps",
    "device",
    "batch_size",
    "precision",
    "checkpoint_every",
    "learning_rate",
    "learning_rate_multiplier",
    "lr_schedule",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "max_grad_norm",
    "grad_accum",
    "max_seq_len",
    "packing",
    "shuffle",
    "seed",
    "method",
    "beta",
    "gamma",
    "desirable_weight",
    "undesirable_weight",
    "tuning",
    "train_embeddings",
    "quantization",
    "recompute",
    "kl_weight",
    "replay",
    "keep",
    "early_stopping",
    "max_perplexity_increase",
    "lora",
];

const LORA_SETTINGS: [&str; 6] = [
    "rank",
    "alpha",
    "use_rslora",
    "use_dora",
    "dropout",
    "target_modules",
];

const PRECISIONS: [(&str, Precision); 2] = [("f32", Precision::F32), ("bf16", Precision::Bf16)];

const DEVICES: [(&str, DeviceKind); 2] = [("cpu", DeviceKind::Cpu), ("cuda", DeviceKind::Cuda)];

const TUNINGS: [(&str, TuningKind); 2] = [("lora", TuningKind::Lora), ("full", TuningKind::Full)];

const QUANTIZATIONS: [(&str, Quantization); 3] = [
    ("none", Quantization::None),
    ("nf4", Quantization::Nf4),
    ("gguf", Quantization::Gguf),
];

const KEEPS: [(&str, Keep); 2] = [("last", Keep::Last), ("best", Keep::Best)];

const SCHEDULES: [(&str, LrSchedule); 3] = [
    ("constant", LrSchedule::Constant),
    ("linear", LrSchedule::Linear),
    ("cosine", LrSchedule::Cosine),
];

/// A tenth of what is seen, which the literature finds to be enough for most of the effect.
const DEFAULT_REPLAY_RATIO: f64 = 0.1;
const REPLAY_RATIO: Range = Range::above(0.0).below(1.0);
const DEFAULT_PATIENCE: u64 = 3;

impl Hyperparameters {
    /// Reads `job.json`. `path` stands before every field in errors, for instance `attune`; it may be empty.
    ///
    /// # Errors
    /// The first field that is unknown or out of range, by name.
    pub fn parse(path: &str, value: &Value) -> Result<Self, FieldError> {
        let mut fields = Fields::of(path, value)?;
        let mut read = Self::parse_plain(&mut fields)?;
        read.parse_method(&mut fields)?;
        read.parse_care(path, &mut fields)?;
        let lora = fields.value("lora");
        if let Some(lora) = &lora {
            read.parse_lora(&join(path, "lora"), lora)?;
        }
        fields.finish(&SETTINGS)?;
        combinations::check(&read, path, lora.is_some())?;
        Ok(read)
    }

    /// Every setting with what it takes, as [`Hyperparameters::parse`] reads it.
    pub fn settings() -> Vec<Setting> {
        let never = "nothing is read, so nothing is refused";
        let mut fields = Fields::described("");
        let mut read = Self::parse_plain(&mut fields).expect(never);
        read.parse_method(&mut fields).expect(never);
        read.parse_care("", &mut fields).expect(never);
        let mut lora = Fields::described("lora");
        read.parse_lora_numbers(&mut lora).expect(never);
        let mut replay = Fields::described("replay");
        replay.number("ratio", REPLAY_RATIO).expect(never);
        let mut early_stopping = Fields::described("early_stopping");
        early_stopping_numbers(&mut early_stopping).expect(never);
        [fields, lora, replay, early_stopping]
            .into_iter()
            .flat_map(Fields::settings)
            .collect()
    }

    fn parse_plain(fields: &mut Fields) -> Result<Self, FieldError> {
        Ok(Self {
            n_epochs: fields.integer("n_epochs", 1, 50)?,
            max_steps: fields.integer("max_steps", 1, 10_000_000)?,
            device: fields.word("device", &DEVICES)?,
            batch_size: fields.integer("batch_size", 1, 256)?,
            precision: fields.word("precision", &PRECISIONS)?,
            checkpoint_every: fields.integer("checkpoint_every", 1, 10_000_000)?,
            learning_rate: fields.number("learning_rate", Range::above(0.0).at_most(1.0))?,
            learning_rate_multiplier: fields.number(
                "learning_rate_multiplier",
                // OpenAI says above 0. What a rate far below this would come to is no number any more.
                Range::at_least(1e-6).at_most(1000.0),
            )?,
            lr_schedule: fields.word("lr_schedule", &SCHEDULES)?,
            warmup_steps: fields.integer("warmup_steps", 0, 10_000_000)?,
            weight_decay: fields.number("weight_decay", Range::at_least(0.0).at_most(1.0))?,
            adam_beta1: fields.number("adam_beta1", Range::at_least(0.0).below(1.0))?,
            adam_beta2: fields.number("adam_beta2", Range::at_least(0.0).below(1.0))?,
            adam_eps: fields.number("adam_eps", Range::above(0.0).at_most(1.0))?,
            max_grad_norm: fields.number(
                "max_grad_norm",
                Range::at_least(0.0).note("0 turns clipping off"),
            )?,
            grad_accum: fields.integer("grad_accum", 1, 1024)?,
            max_seq_len: fields.integer("max_seq_len", 16, 1_048_576)?,
            packing: fields.boolean("packing")?,
            shuffle: fields.boolean("shuffle")?,
            seed: fields.integer("seed", 0, MAX_SEED)?,
            recompute: fields.boolean("recompute")?,
            quantization: fields.word("quantization", &QUANTIZATIONS)?,
            tuning: fields.word("tuning", &TUNINGS)?,
            train_embeddings: fields.boolean("train_embeddings")?,
            ..Self::default()
        })
    }

    fn parse_method(&mut self, fields: &mut Fields) -> Result<(), FieldError> {
        let positive = Range::above(0.0).at_most(100.0);
        self.method = fields.word("method", &MethodKind::ALL)?;
        self.beta = fields.number("beta", positive)?;
        self.gamma = fields.number("gamma", Range::at_least(0.0).at_most(100.0))?;
        self.desirable_weight = fields.number("desirable_weight", positive)?;
        self.undesirable_weight = fields.number("undesirable_weight", positive)?;
        Ok(())
    }

    fn parse_care(&mut self, path: &str, fields: &mut Fields) -> Result<(), FieldError> {
        self.kl_weight = fields.number("kl_weight", Range::at_least(0.0).at_most(100.0))?;
        self.keep = fields.word("keep", &KEEPS)?;
        self.max_perplexity_increase = fields.number(
            "max_perplexity_increase",
            Range::at_least(0.0).note("0.1 allows a tenth more"),
        )?;
        self.replay = fields
            .value("replay")
            .map(|value| replay(&join(path, "replay"), &value))
            .transpose()?;
        self.early_stopping = fields
            .value("early_stopping")
            .map(|value| early_stopping(&join(path, "early_stopping"), &value))
            .transpose()?;
        Ok(())
    }

    fn parse_lora(&mut self, path: &str, value: &Value) -> Result<(), FieldError> {
        let mut fields = Fields::of(path, value)?;
        self.parse_lora_numbers(&mut fields)?;
        if fields
            .value("modules_to_save")
            .is_some_and(|value| value != json!([]))
        {
            return Err(FieldError::new(
                join(path, "modules_to_save"),
                "is not supported: it would store whole copies of base matrices with every adapter; \
                 leave it out and raise `rank`, or add to `target_modules`",
            ));
        }
        self.lora_target_modules = fields
            .value("target_modules")
            .filter(|value| value != "auto")
            .map(|value| target_modules(&join(path, "target_modules"), &value))
            .transpose()?;
        fields.finish(&LORA_SETTINGS)
    }

    fn parse_lora_numbers(&mut self, fields: &mut Fields) -> Result<(), FieldError> {
        self.lora_rank = fields.integer("rank", 1, 256)?;
        self.lora_alpha = fields.number("alpha", Range::above(0.0).at_most(4096.0))?;
        self.lora_use_rslora = fields.boolean("use_rslora")?;
        self.lora_use_dora = fields.boolean("use_dora")?;
        self.lora_dropout = fields.number("dropout", Range::at_least(0.0).below(1.0))?;
        Ok(())
    }
}

fn replay(path: &str, value: &Value) -> Result<Replay, FieldError> {
    let mut fields = Fields::of(path, value)?;
    let ratio = fields.number("ratio", REPLAY_RATIO)?;
    let file = match fields.value("file") {
        None => None,
        Some(Value::String(file)) if !file.is_empty() => Some(file),
        Some(_) => {
            let message = "must be a string that is not empty";
            return Err(FieldError::new(join(path, "file"), message));
        }
    };
    fields.finish(&["ratio", "file"])?;
    let ratio = ratio.unwrap_or(DEFAULT_REPLAY_RATIO);
    Ok(Replay { ratio, file })
}

fn early_stopping(path: &str, value: &Value) -> Result<EarlyStopping, FieldError> {
    let mut fields = Fields::of(path, value)?;
    let (patience, min_delta) = early_stopping_numbers(&mut fields)?;
    fields.finish(&["patience", "min_delta"])?;
    Ok(EarlyStopping {
        patience: patience.unwrap_or(DEFAULT_PATIENCE),
        min_delta: min_delta.unwrap_or(0.0),
    })
}

fn early_stopping_numbers(fields: &mut Fields) -> Result<(Option<u64>, Option<f64>), FieldError> {
    let patience = fields.integer("patience", 1, 1000)?;
    let min_delta = fields.number("min_delta", Range::at_least(0.0))?;
    Ok((patience, min_delta))
}

fn target_modules(path: &str, value: &Value) -> Result<Vec<TargetModule>, FieldError> {
    let names = value
        .as_array()
        .filter(|names| !names.is_empty())
        .ok_or_else(|| FieldError::new(path, "must be a list of at least one layer name"))?;
    let mut chosen = Vec::with_capacity(TargetModule::ALL.len());
    for name in names.iter().take(64) {
        let module = TargetModule::ALL
            .into_iter()
            .find(|module| name == module.as_str())
            .ok_or_else(|| unknown_module(path, name))?;
        if !chosen.contains(&module) {
            chosen.push(module);
        }
    }
    chosen.sort_unstable();
    Ok(chosen)
}

fn unknown_module(path: &str, name: &Value) -> FieldError {
    let known = TargetModule::ALL.map(TargetModule::as_str).join(", ");
    let name = name.to_string().chars().take(40).collect::<String>();
    FieldError::new(
        path,
        format!("{name} is not a layer that can carry an adapter; those are {known}"),
    )
}

/// A field's path.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::SettingKind;

    fn refusal(value: &Value) -> String {
        Hyperparameters::parse("attune", value)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_range_names_its_field() {
        for (value, field) in [
            (json!({"n_epochs": 0}), "attune.n_epochs"),
            (json!({"batch_size": 257}), "attune.batch_size"),
            (json!({"learning_rate": 0.0}), "attune.learning_rate"),
            (json!({"adam_beta1": 1.0}), "attune.adam_beta1"),
            (json!({"lora": {"rank": 0}}), "attune.lora.rank"),
            (json!({"lora": {"dropout": 1.0}}), "attune.lora.dropout"),
            (
                json!({"lora": {"target_modules": ["embed"]}}),
                "attune.lora.target_modules",
            ),
            (
                json!({"lora": {"target_modules": []}}),
                "attune.lora.target_modules",
            ),
            (
                json!({"lora": {"modules_to_save": ["lm_head"]}}),
                "attune.lora.modules_to_save",
            ),
            (json!({"lora": 3}), "attune.lora"),
            (json!({"lr_schedule": "step"}), "attune.lr_schedule"),
            (json!({"precision": "f16"}), "attune.precision"),
            (json!({"device": "tpu"}), "attune.device"),
            (json!({"seed": -1}), "attune.seed"),
            (json!({"method": "ppo"}), "attune.method"),
            (json!({"method": "dpo", "beta": 0}), "attune.beta"),
            (json!({"beta": 0.1}), "attune.beta"),
            (json!({"method": "dpo", "gamma": 1}), "attune.gamma"),
            (json!({"method": "kto", "kl_weight": 1}), "attune.kl_weight"),
            (json!({"tuning": "prefix"}), "attune.tuning"),
            (json!({"train_embeddings": true}), "attune.train_embeddings"),
            (
                json!({"tuning": "full", "lora": {"rank": 2}}),
                "attune.lora",
            ),
            (
                json!({"tuning": "full", "quantization": "nf4"}),
                "attune.quantization",
            ),
            (
                json!({"tuning": "full", "precision": "bf16"}),
                "attune.precision",
            ),
            (
                json!({"precision": "f32", "quantization": "nf4"}),
                "attune.precision",
            ),
            (json!({"replay": {"ratio": 1}}), "attune.replay.ratio"),
            (json!({"replay": {"rows": 1}}), "attune.replay.rows"),
            (json!({"replay": {"file": 1}}), "attune.replay.file"),
            (
                json!({"early_stopping": {"patience": 0}}),
                "attune.early_stopping.patience",
            ),
            (json!({"keep": "first"}), "attune.keep"),
            (json!({"packing": "yes"}), "attune.packing"),
            (json!({"epochs": 3}), "attune.epochs"),
            (json!([]), "attune"),
        ] {
            let message = refusal(&value);
            assert!(
                message.starts_with(&format!("{field}: ")),
                "{value}: {message}"
            );
        }
    }

    #[test]
    fn every_setting_is_described_as_it_is_read() {
        let settings = Hyperparameters::settings();
        let described = |path: &str| settings.iter().any(|setting| setting.field == path);
        let objects = ["lora", "replay", "early_stopping"];
        for name in SETTINGS.iter().filter(|name| !objects.contains(name)) {
            assert!(described(name), "{name}");
        }
        for name in LORA_SETTINGS
            .iter()
            .filter(|name| **name != "target_modules")
        {
            assert!(described(&format!("lora.{name}")), "{name}");
        }
        for Setting { field, kind } in &settings {
            let (inside, outside) = edges(kind);
            for value in inside {
                assert!(!is_out_of_range(field, &value), "{field}: {value}");
            }
            for value in outside {
                assert!(is_out_of_range(field, &value), "{field}: {value}");
            }
        }
    }

    /// Whether the field itself is refused; that it does not go with another one is not the question here.
    fn is_out_of_range(field: &str, value: &Value) -> bool {
        let asked = match field.split_once('.') {
            Some((outer, inner)) => json!({outer: {inner: value}}),
            None => json!({field: value}),
        };
        match Hyperparameters::parse("", &asked) {
            Err(error) => error.field == field && error.message.starts_with("must be"),
            Ok(_) => false,
        }
    }

    /// Values at the edges of what is described, and values next to them that are not.
    fn edges(kind: &SettingKind) -> (Vec<Value>, Vec<Value>) {
        match kind {
            SettingKind::Integer { min, max } => {
                let below = min.checked_sub(1).map_or(json!(-1), Value::from);
                (
                    vec![json!(min), json!(max)],
                    vec![below, json!(max + 1), json!("1")],
                )
            }
            SettingKind::Number(range) => {
                let step = |bound: f64| 1e-9 * bound.max(1.0);
                let (at, out) = (range.min, range.min - step(range.min));
                let (mut inside, mut outside) = if range.includes_min {
                    (vec![json!(at)], vec![json!(out)])
                } else {
                    (vec![json!(at + step(at))], vec![json!(at)])
                };
                match range.max {
                    None => inside.push(json!(1e300)),
                    Some(max) if range.includes_max => {
                        inside.push(json!(max));
                        outside.push(json!(max + step(max)));
                    }
                    Some(max) => {
                        inside.push(json!(max - step(max)));
                        outside.push(json!(max));
                    }
                }
                outside.extend([json!("1"), json!(true)]);
                (inside, outside)
            }
            SettingKind::Boolean => (
                vec![json!(true), json!(false)],
                vec![json!(1), json!("true")],
            ),
            SettingKind::Word(words) => (
                words.iter().map(|word| json!(word)).collect(),
                vec![json!("no"), json!(1)],
            ),
        }
    }

    #[test]
    fn a_learning_rate_is_given_once() {
        let message = refusal(&json!({"learning_rate": 1e-4, "learning_rate_multiplier": 2}));
        assert!(message.contains("leave one of them out"), "{message}");
    }

    #[test]
    fn target_modules_keep_the_blocks_order_and_lose_doubles() {
        let read = Hyperparameters::parse(
            "",
            &json!({"lora": {"target_modules": ["up_proj", "q_proj", "up_proj"]}}),
        );
        let modules = read.unwrap().lora_target_modules.unwrap();
        assert_eq!(modules, [TargetModule::QProj, TargetModule::UpProj]);
    }
}
