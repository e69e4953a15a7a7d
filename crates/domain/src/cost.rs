//! What a run costs, from sizes alone: floating-point operations and bytes of memory.
//!
//! Nothing here is measured. Whoever wants seconds times a piece of the work on the device and divides (`training::estimate`).
//!
//! Legend: n tokens, s of one row, d model width, f width of the MLP, q columns of all query heads, k of all key (or value)
//! heads, r rank, v vocabulary.

mod memory;
mod work;

use serde::{Deserialize, Serialize};

use crate::config::{TargetModule, TrainingConfig, Tuning};

pub use memory::Memory;
pub use work::Flops;

/// The sizes of a decoder that its cost follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelShape {
    /// v
    pub vocabulary: u64,
    /// d
    pub width: u64,
    /// f
    pub mlp_width: u64,
    /// q
    pub query_width: u64,
    /// k
    pub key_width: u64,
    /// Whether the head is the table of embeddings.
    pub tied_head: bool,
    /// For each layer how many positions back it looks, itself included; `None` is all.
    pub windows: Vec<Option<u64>>,
}

/// The rows that are computed together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchShape {
    /// Tokens of each row. No row sees another.
    pub rows: Vec<u64>,
    /// Supervised tokens of all of them: those that the head runs on.
    pub n_supervised: u64,
}

/// The cost of one model under one run's settings.
#[derive(Debug, Clone)]
pub struct CostModel<'a> {
    shape: &'a ModelShape,
    config: &'a TrainingConfig,
}

impl ModelShape {
    /// Decoder layers.
    pub fn n_layers(&self) -> u64 {
        self.windows.len() as u64
    }

    /// Columns in and out of one of a layer's matrices.
    pub fn matrix(&self, target: TargetModule) -> [u64; 2] {
        let (d, f, q, k) = (self.width, self.mlp_width, self.query_width, self.key_width);
        match target {
            TargetModule::QProj => [d, q],
            TargetModule::KProj | TargetModule::VProj => [d, k],
            TargetModule::OProj => [q, d],
            TargetModule::GateProj | TargetModule::UpProj => [d, f],
            TargetModule::DownProj => [f, d],
        }
    }

    /// Numbers of all matrices of a layer.
    pub fn layer_weights(&self) -> u64 {
        let matrices = TargetModule::ALL.map(|target| self.matrix(target));
        matrices.iter().map(|[rows, columns]| rows * columns).sum()
    }

    /// Numbers of the embedding and, where it is another matrix, of the head.
    pub fn table_weights(&self) -> u64 {
        let tables = if self.tied_head { 1 } else { 2 };
        tables * self.vocabulary * self.width
    }
}

impl BatchShape {
    /// All tokens.
    pub fn n_tokens(&self) -> u64 {
        self.rows.iter().sum()
    }
}

impl<'a> CostModel<'a> {
    /// Of `shape`, trained as `config` says.
    pub fn new(shape: &'a ModelShape, config: &'a TrainingConfig) -> Self {
        Self { shape, config }
    }

    /// Numbers that learn.
    pub fn n_learned(&self) -> u64 {
        let shape = self.shape;
        let norms = (2 * shape.n_layers() + 1) * shape.width;
        match &self.config.tuning {
            Tuning::Full { train_embeddings } => {
                let layers = shape.n_layers() * shape.layer_weights();
                let tables = match (train_embeddings, shape.tied_head) {
                    (true, _) => shape.table_weights(),
                    // The head learns by itself where it is a matrix of its own.
                    (false, false) => shape.vocabulary * shape.width,
                    (false, true) => 0,
                };
                layers + tables + norms
            }
            Tuning::Lora(lora) => {
                let pairs = lora.target_modules.iter().map(|target| {
                    let [columns_in, columns_out] = shape.matrix(*target);
                    let magnitudes = if lora.use_dora { columns_out } else { 0 };
                    lora.rank as u64 * (columns_in + columns_out) + magnitudes
                });
                shape.n_layers() * pairs.sum::<u64>()
            }
        }
    }

    fn adapts(&self, target: TargetModule) -> bool {
        let lora = self.config.lora();
        lora.is_some_and(|lora| lora.target_modules.contains(&target))
    }

    fn drops(&self) -> bool {
        self.config.lora().is_some_and(|lora| lora.dropout > 0.0)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::Hyperparameters;
    use crate::auto::Facts;

    /// d 4, f 6, q 4, k 2, v 10, two layers. A layer's matrices: q 16, k 8, v 8, o 16, gate 24, up 24, down 24; 120 in all.
    pub(crate) fn shape() -> ModelShape {
        ModelShape {
            vocabulary: 10,
            width: 4,
            mlp_width: 6,
            query_width: 4,
            key_width: 2,
            tied_head: true,
            windows: vec![None, None],
        }
    }

    /// What `asked` says, with one micro-batch a step unless it says otherwise.
    pub(crate) fn config(asked: &serde_json::Value) -> TrainingConfig {
        let mut asked = asked.clone();
        if asked.get("grad_accum").is_none() {
            asked["grad_accum"] = 1.into();
        }
        Hyperparameters::parse("", &asked)
            .unwrap()
            .resolve(&Facts::default())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{config, shape};
    use super::*;
    use serde_json::json;

    #[test]
    fn what_learns_is_counted_as_it_is_laid_out() {
        let shape = shape();
        assert_eq!(shape.layer_weights(), 120);
        let learned = |asked| CostModel::new(&shape, &config(&asked)).n_learned();
        // Columns in and out of the seven: 8, 6, 6, 8, 10, 10, 10.
        assert_eq!(learned(json!({"lora": {"rank": 3}})), 2 * 3 * 58);
        let some = json!({"lora": {"rank": 3, "target_modules": ["q_proj", "v_proj"]}});
        assert_eq!(learned(some), 2 * 3 * 14);
        // Magnitudes: 4 + 2 + 2 + 4 + 6 + 6 + 4.
        let dora = json!({"lora": {"rank": 3, "use_dora": true}});
        assert_eq!(learned(dora), 2 * (3 * 58 + 28));
        // Matrices, and the five norms of 4.
        assert_eq!(learned(json!({"tuning": "full"})), 2 * 120 + 20);
        let all = json!({"tuning": "full", "train_embeddings": true});
        assert_eq!(learned(all), 2 * 120 + 20 + 40);
    }
}
