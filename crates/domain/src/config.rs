//! The settings of a training run: what a client may ask for and what a run is made of.
//!
//! [`Hyperparameters`] is `job.json`: every field optional, `"auto"` allowed. [`TrainingConfig`] has every field
//! decided; it is stored with the job, so that the same job can be run again years later.

mod care;
mod hyperparameters;
mod method;
mod start;

use serde::{Deserialize, Serialize};

use crate::DeviceKind;

pub use care::{Care, EarlyStopping, Keep, Replay};
pub use hyperparameters::Hyperparameters;
pub use method::{Method, MethodKind, Numbers, RowKind};
pub use start::{IncompatibleModel, TunedModel};

/// Numbers that training is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// 16-bit brain floats for the base model's multiplications, 32-bit for everything that adds up.
    Bf16,
}

/// How the base model is kept in memory while an adapter learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// In the numbers of `precision`.
    #[default]
    None,
    /// Quantised at load to 4-bit normal floats with double quantisation (Dettmers et al. 2023, "QLoRA").
    Nf4,
    /// In the 4-bit blocks of its GGUF file.
    Gguf,
}

/// What learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TuningFields", into = "TuningFields")]
pub enum Tuning {
    /// An adapter; the base model stays as it is.
    Lora(LoraConfig),
    /// Every weight of the model.
    Full {
        /// Whether the table of token embeddings learns too.
        train_embeddings: bool,
    },
}

/// What learns, without its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented at Tuning")]
pub enum TuningKind {
    #[default]
    Lora,
    Full,
}

impl Tuning {
    /// Which one it is.
    pub fn kind(&self) -> TuningKind {
        match self {
            Self::Lora(_) => TuningKind::Lora,
            Self::Full { .. } => TuningKind::Full,
        }
    }
}

/// [`Tuning`] as settings say it.
#[derive(Serialize, Deserialize)]
struct TuningFields {
    #[serde(default)]
    tuning: TuningKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_embeddings: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraConfig>,
}

impl TryFrom<TuningFields> for Tuning {
    type Error = &'static str;

    fn try_from(fields: TuningFields) -> Result<Self, Self::Error> {
        match (fields.tuning, fields.lora) {
            (TuningKind::Lora, Some(lora)) => Ok(Self::Lora(lora)),
            (TuningKind::Lora, None) => Err("missing field `lora`"),
            (TuningKind::Full, _) => Ok(Self::Full {
                train_embeddings: fields.train_embeddings.unwrap_or(false),
            }),
        }
    }
}

impl From<Tuning> for TuningFields {
    fn from(tuning: Tuning) -> Self {
        match tuning {
            Tuning::Lora(lora) => Self {
                tuning: TuningKind::Lora,
                train_embeddings: None,
                lora: Some(lora),
            },
            Tuning::Full { train_embeddings } => Self {
                tuning: TuningKind::Full,
                train_embeddings: Some(train_embeddings),
                lora: None,
            },
        }
    }
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
    /// Learns each output's magnitude apart from its direction (Liu et al. 2024, "DoRA").
    #[serde(default)]
    pub use_dora: bool,
    /// The share of the adapter's inputs that is zeroed while training.
    pub dropout: f64,
    /// The layers that carry an adapter, in the order of [`TargetModule::ALL`].
    pub target_modules: Vec<TargetModule>,
}

/// Every setting of a run, decided. As JSON it is a [`Hyperparameters`] with nothing left open: what one job was can be
/// asked of the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// How often every row is seen.
    pub n_epochs: u64,
    /// Ends the run early; never lengthens it.
    pub max_steps: Option<u64>,
    /// The kind of device that it runs on; `None` is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceKind>,
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
    /// What is minimised.
    #[serde(flatten)]
    pub method: Method,
    /// What learns.
    #[serde(flatten)]
    pub tuning: Tuning,
    /// How the base model is kept in memory.
    #[serde(default)]
    pub quantization: Quantization,
    /// Whether each block's activations are computed again in the backward pass instead of being kept: memory that does
    /// not grow with the depth, for about a third more time.
    #[serde(default)]
    pub recompute: bool,
    /// What keeps the model from forgetting.
    #[serde(flatten)]
    pub care: Care,
}

impl TrainingConfig {
    /// The adapter, if it is one that learns.
    pub fn lora(&self) -> Option<&LoraConfig> {
        match &self.tuning {
            Tuning::Lora(lora) => Some(lora),
            Tuning::Full { .. } => None,
        }
    }

    /// Steps of a run over `n_rows` rows of the training file: the last step of an epoch may hold fewer.
    pub fn total_steps(&self, n_rows: u64) -> u64 {
        let steps = self.steps_per_epoch(n_rows) * self.n_epochs;
        self.max_steps.map_or(steps, |max| steps.min(max))
    }

    /// Steps of one epoch over `n_rows` rows of the training file.
    pub fn steps_per_epoch(&self, n_rows: u64) -> u64 {
        self.rows_per_epoch(n_rows)
            .div_ceil(self.batch_size * self.grad_accum)
    }

    /// Rows of one epoch over `n_rows` rows of the training file, replayed ones included.
    pub fn rows_per_epoch(&self, n_rows: u64) -> u64 {
        let replay = self.care.replay.as_ref();
        n_rows + replay.map_or(0, |replay| replay.rows_per_epoch(n_rows))
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Hyperparameters::default().resolve(&crate::auto::Facts::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auto::Facts;
    use serde_json::json;

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

    #[test]
    fn what_one_job_was_can_be_asked_of_the_next() {
        for asked in [
            json!({}),
            json!({"method": "dpo", "beta": 0.3}),
            json!({"method": "simpo", "gamma": 2.0, "lora": {"use_dora": true}}),
            json!({"method": "kto", "undesirable_weight": 0.5}),
            json!({"tuning": "full", "train_embeddings": true}),
            json!({"quantization": "nf4", "recompute": true, "device": "cuda"}),
            json!({
                "kl_weight": 0.1, "replay": {"ratio": 0.2, "file": "file-1"}, "keep": "last",
                "early_stopping": {"patience": 4}, "max_perplexity_increase": 0.3,
            }),
        ] {
            let config = Hyperparameters::parse("", &asked)
                .unwrap()
                .resolve(&Facts::default());
            let shown = serde_json::to_value(&config).unwrap();
            for (name, value) in asked.as_object().unwrap() {
                // Objects come back with more in them.
                assert!(
                    value.is_object() || shown[name] == *value,
                    "{name}: {shown}"
                );
            }
            let again = Hyperparameters::parse("", &shown).unwrap();
            assert_eq!(again.resolve(&Facts::default()), config, "{shown}");
            assert_eq!(
                serde_json::from_value::<TrainingConfig>(shown).unwrap(),
                config
            );
        }
    }

    #[test]
    fn a_config_that_was_stored_before_methods_were_is_supervised() {
        let mut stored = serde_json::to_value(TrainingConfig::default()).unwrap();
        let fields = stored.as_object_mut().unwrap();
        for name in [
            "method",
            "tuning",
            "quantization",
            "recompute",
            "replay",
            "kl_weight",
            "keep",
            "early_stopping",
            "max_perplexity_increase",
        ] {
            fields.remove(name);
        }
        fields["lora"].as_object_mut().unwrap().remove("use_dora");
        let read: TrainingConfig = serde_json::from_value(stored).unwrap();
        assert_eq!(read.method, Method::Supervised);
        assert_eq!(read.tuning.kind(), TuningKind::Lora);
        assert_eq!(read.care, Care::default());
    }
}
