//! The settings of a training run: what a client may ask for and what a run is made of.
//!
//! [`Hyperparameters`] is `job.json`: every field optional, `"auto"` allowed. [`TrainingConfig`] has every field
//! decided; it is stored with the job, so that the same job can be run again years later.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::field::{FieldError, Fields};
use crate::limits::MAX_SEED;

/// Numbers that training is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// 16-bit brain floats for the base model's multiplications, 32-bit for everything that adds up.
    Bf16,
}

/// How the learning rate moves after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// It stays.
    Constant,
    /// It falls to zero in a line.
    Linear,
    /// It falls to zero along half a cosine.
    Cosine,
}

/// A linear layer of a decoder block that can carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum TargetModule {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl TargetModule {
    /// Every linear layer of a block, in the order in which the block runs them.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// The name in Hugging Face checkpoints and in PEFT.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// A low-rank adapter (Hu et al. 2021): `y = x·W + scale · (x·A)·B`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Columns of A, rows of B.
    pub rank: usize,
    /// The adapter's output is scaled by `alpha / rank`, or by `alpha / √rank` with `use_rslora`.
    pub alpha: f64,
    /// Rank-stabilised scaling (Kalajdzievski 2023), under which high ranks learn as fast as low ones.
    #[serde(default)]
    pub use_rslora: bool,
    /// The share of the adapter's inputs that is zeroed while training.
    pub dropout: f64,
    /// The layers that carry an adapter, in the order of [`TargetModule::ALL`].
    pub target_modules: Vec<TargetModule>,
}

/// What a client asks for: `job.json`, or the `attune` object of a job. Absent means `auto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is documented at the field of the same name of TrainingConfig"
)]
pub struct Hyperparameters {
    pub n_epochs: Option<u64>,
    pub max_steps: Option<u64>,
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
    pub lora_rank: Option<u64>,
    pub lora_alpha: Option<f64>,
    pub lora_use_rslora: Option<bool>,
    pub lora_dropout: Option<f64>,
    pub lora_target_modules: Option<Vec<TargetModule>>,
}

const SETTINGS: [&str; 20] = [
    "n_epochs",
    "max_steps",
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
    "lora",
];

const LORA_SETTINGS: [&str; 5] = ["rank", "alpha", "use_rslora", "dropout", "target_modules"];

const PRECISIONS: [(&str, Precision); 2] = [("f32", Precision::F32), ("bf16", Precision::Bf16)];

const SCHEDULES: [(&str, LrSchedule); 3] = [
    ("constant", LrSchedule::Constant),
    ("linear", LrSchedule::Linear),
    ("cosine", LrSchedule::Cosine),
];

impl Hyperparameters {
    /// Reads `job.json`. `path` stands before every field in errors, for instance `attune`; it may be empty.
    ///
    /// # Errors
    /// The first field that is unknown or out of range, by name.
    pub fn parse(path: &str, value: &Value) -> Result<Self, FieldError> {
        let mut fields = Fields::of(path, value)?;
        let mut read = Self {
            n_epochs: fields.integer("n_epochs", 1, 50)?,
            max_steps: fields.integer("max_steps", 1, 10_000_000)?,
            batch_size: fields.integer("batch_size", 1, 256)?,
            precision: fields.word("precision", &PRECISIONS)?,
            checkpoint_every: fields.integer("checkpoint_every", 1, 10_000_000)?,
            learning_rate: fields.number("learning_rate", "above 0 and at most 1", |n| {
                n > 0.0 && n <= 1.0
            })?,
            learning_rate_multiplier: fields.number(
                "learning_rate_multiplier",
                "above 0 and at most 1000",
                |n| n > 0.0 && n <= 1000.0,
            )?,
            lr_schedule: fields.word("lr_schedule", &SCHEDULES)?,
            warmup_steps: fields.integer("warmup_steps", 0, 10_000_000)?,
            weight_decay: fields.number("weight_decay", "between 0 and 1", |n| {
                (0.0..=1.0).contains(&n)
            })?,
            adam_beta1: fields.number("adam_beta1", "at least 0 and below 1", |n| {
                (0.0..1.0).contains(&n)
            })?,
            adam_beta2: fields.number("adam_beta2", "at least 0 and below 1", |n| {
                (0.0..1.0).contains(&n)
            })?,
            adam_eps: fields
                .number("adam_eps", "above 0 and at most 1", |n| n > 0.0 && n <= 1.0)?,
            max_grad_norm: fields.number(
                "max_grad_norm",
                "at least 0 (0 turns clipping off)",
                |n| n >= 0.0,
            )?,
            grad_accum: fields.integer("grad_accum", 1, 1024)?,
            max_seq_len: fields.integer("max_seq_len", 16, 1_048_576)?,
            packing: fields.boolean("packing")?,
            shuffle: fields.boolean("shuffle")?,
            seed: fields.integer("seed", 0, MAX_SEED)?,
            ..Self::default()
        };
        if let Some(lora) = fields.value("lora") {
            read.parse_lora(&join(path, "lora"), &lora)?;
        }
        fields.finish(&SETTINGS)?;
        read.check_learning_rate(path)?;
        Ok(read)
    }

    fn parse_lora(&mut self, path: &str, value: &Value) -> Result<(), FieldError> {
        let mut fields = Fields::of(path, value)?;
        self.lora_rank = fields.integer("rank", 1, 256)?;
        self.lora_alpha = fields.number("alpha", "above 0 and at most 4096", |n| {
            n > 0.0 && n <= 4096.0
        })?;
        self.lora_use_rslora = fields.boolean("use_rslora")?;
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
        self.lora_dropout = fields.number("dropout", "at least 0 and below 1", |n| {
            (0.0..1.0).contains(&n)
        })?;
        self.lora_target_modules = fields
            .value("target_modules")
            .filter(|value| value != "auto")
            .map(|value| target_modules(&join(path, "target_modules"), &value))
            .transpose()?;
        fields.finish(&LORA_SETTINGS)
    }

    /// Both say how fast to learn; together they would say two things.
    fn check_learning_rate(&self, path: &str) -> Result<(), FieldError> {
        if self.learning_rate.is_some() && self.learning_rate_multiplier.is_some() {
            return Err(FieldError::new(
                join(path, "learning_rate_multiplier"),
                "cannot be given together with `learning_rate`; leave one of them out",
            ));
        }
        Ok(())
    }
}

/// Every setting of a run, decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// How often every row is seen.
    pub n_epochs: u64,
    /// Ends the run early; never lengthens it.
    pub max_steps: Option<u64>,
    /// Dataset rows of one micro-batch, packed or not.
    pub batch_size: u64,
    /// Numbers that training is computed in.
    pub precision: Precision,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// The learning rate after warmup, before the schedule bends it.
    pub learning_rate: f64,
    /// How the learning rate moves after warmup.
    pub lr_schedule: LrSchedule,
    /// Steps in which the learning rate climbs in a line.
    pub warmup_steps: u64,
    /// `AdamW`'s decoupled weight decay (Loshchilov & Hutter 2019).
    pub weight_decay: f64,
    /// `AdamW`'s decay of the gradient's mean.
    pub adam_beta1: f64,
    /// `AdamW`'s decay of the gradient's square.
    pub adam_beta2: f64,
    /// Added to `AdamW`'s denominator.
    pub adam_eps: f64,
    /// The gradient's global L2 norm is cut to this. 0 turns clipping off.
    pub max_grad_norm: f64,
    /// Micro-batches per step. The loss is the mean over the supervised tokens of all of them together.
    pub grad_accum: u64,
    /// Rows are cut after this many tokens; cut rows are counted.
    pub max_seq_len: u64,
    /// Whether the rows of a micro-batch share one line of tokens. Rows never see each other either way.
    pub packing: bool,
    /// Whether the rows' order is drawn anew each epoch. Otherwise it is the file's.
    pub shuffle: bool,
    /// Everything drawn at random follows from it.
    pub seed: u64,
    /// The adapter.
    pub lora: LoraConfig,
}

impl TrainingConfig {
    /// Steps of a run over `n_rows` rows: the last step of an epoch may hold fewer.
    pub fn total_steps(&self, n_rows: u64) -> u64 {
        let steps = n_rows.div_ceil(self.batch_size * self.grad_accum) * self.n_epochs;
        self.max_steps.map_or(steps, |max| steps.min(max))
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Hyperparameters::default().resolve(&crate::auto::Facts::default())
    }
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
    use crate::auto::Facts;

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
            (json!({"seed": -1}), "attune.seed"),
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

    #[test]
    fn max_steps_only_shortens() {
        let parse = |value| {
            Hyperparameters::parse("", &value)
                .unwrap()
                .resolve(&Facts::default())
        };
        let config =
            parse(json!({"n_epochs": 2, "batch_size": 4, "grad_accum": 2, "max_steps": 1000}));
        assert_eq!(config.total_steps(10), 4);
        let config = parse(json!({"n_epochs": 2, "batch_size": 4, "max_steps": 3}));
        assert_eq!(config.total_steps(10), 3);
    }

    #[test]
    fn a_resolved_config_survives_json() {
        let config = TrainingConfig::default();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<TrainingConfig>(&text).unwrap(),
            config
        );
    }
}
