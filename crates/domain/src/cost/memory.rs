//! Bytes of memory at a run's fullest moment, by what takes them.

use serde::{Deserialize, Serialize};

use super::{BatchShape, CostModel};
use crate::config::{Keep, Precision, Quantization, TargetModule, Tuning};

/// Rows whose scores exist at once, and under a head that learns.
const SCORED_AT_ONCE: u64 = 64;
const SCORED_AT_ONCE_LEARNING: u64 = 256;
/// What a process holds before it loads anything, its threads and their scratch included.
const PROCESS_BYTES: u64 = 64 << 20;

/// The most memory that a run takes at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The process, its tokenizer and its files.
    pub process_bytes: u64,
    /// The base model.
    pub base_bytes: u64,
    /// What learns, with its optimizer and its gradients.
    pub learned_bytes: u64,
    /// What the forward pass leaves for the backward pass.
    pub activation_bytes: u64,
    /// What is at work on top of that: the head's scores or a layer's gradients.
    pub work_bytes: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.process_bytes + self.base_bytes + self.to_come()
    }

    /// What is not taken yet when process and base are there.
    pub fn to_come(&self) -> u64 {
        self.learned_bytes + self.activation_bytes + self.work_bytes
    }
}

impl CostModel<'_> {
    /// The fullest moment of a run whose fullest micro-batch is `batch` and that measures on `measured` at once.
    pub fn memory(&self, batch: &BatchShape, measured: &BatchShape) -> Memory {
        let learned_bytes = 4 * self.n_learned();
        // The best state so far, beside the last.
        let kept = if self.config.care.keep == Keep::Best && measured.n_tokens() > 0 {
            learned_bytes
        } else {
            0
        };
        // The weights, two moments; gradients beside them, and those of the micro-batches before.
        let accumulated = if self.config.grad_accum > 1 { 2 } else { 1 };
        let at_rest = 3 * learned_bytes + kept;
        let (activation_bytes, work_bytes) = self.at_work(batch);
        let stepping = accumulated * learned_bytes + activation_bytes + work_bytes;
        let measuring = self.forward_work(measured);
        // What a pass without gradients needs is rarely more, but a validation file's rows may be longer.
        let more = measuring.saturating_sub(stepping);
        Memory {
            process_bytes: PROCESS_BYTES,
            base_bytes: self.base_bytes(),
            learned_bytes: at_rest + accumulated * learned_bytes,
            activation_bytes,
            work_bytes: work_bytes + more,
        }
    }

    /// The base model in the numbers or blocks it is kept in.
    pub fn base_bytes(&self) -> u64 {
        let layers = self.shape.n_layers() * self.shape.layer_weights();
        let tables = self.shape.table_weights();
        match (self.config.quantization, self.config.precision) {
            // 4.13 bits, as blocks of 64 with quantised scales take; tables in bf16.
            (Quantization::Nf4, _) => layers * 413 / 800 + 2 * tables,
            // 5 bits, as blocks of 32 with a scale and a minimum take.
            (Quantization::Gguf, _) => (layers + tables) * 5 / 8,
            (Quantization::None, Precision::F32) => 4 * (layers + tables),
            (Quantization::None, Precision::Bf16) => 2 * (layers + tables),
        }
    }

    /// What lies between the passes, and what the backward pass needs on top while it is there.
    fn at_work(&self, batch: &BatchShape) -> (u64, u64) {
        let (shape, n) = (self.shape, batch.n_tokens());
        let layer = self.kept_by_layer();
        let head = self.head_work(batch);
        let gradients = 4 * n * (4 * shape.mlp_width + 4 * shape.width);
        if self.config.recompute {
            let inputs = 4 * n * shape.width * (shape.n_layers() + 1);
            (inputs, head.max(4 * n * layer + gradients))
        } else {
            (4 * n * layer * shape.n_layers(), head.max(gradients))
        }
    }

    /// Numbers that a layer keeps of each token for the backward pass.
    ///
    /// Each norm, the attention and the activation between the MLP's halves keep what they read, and make what the next
    /// product reads again from that. An adapted product keeps what nobody else keeps, and its small product with A.
    fn kept_by_layer(&self) -> u64 {
        let shape = self.shape;
        let (d, f) = (shape.width, shape.mlp_width);
        let sources = 2 * d + (shape.query_width + 2 * shape.key_width) + 2 * f;
        let Some(lora) = self.config.lora() else {
            // A matrix that learns keeps what it reads: both norms' results, the attention's and the activation's.
            return sources + 2 * d + shape.query_width + f;
        };
        let attended = match self.config.precision {
            _ if self.drops() || !self.adapts(TargetModule::OProj) => 0,
            Precision::F32 => shape.query_width,
            // As the products read it, of half the bytes.
            Precision::Bf16 => shape.query_width / 2,
        };
        let adapters = lora.target_modules.iter().map(|target| {
            let [columns_in, columns_out] = shape.matrix(*target);
            let thinned = if self.drops() { 2 * columns_in } else { 0 };
            // Scaled columns are divided back from the result, which only the outputs of a block keep for that alone.
            let is_output = matches!(target, TargetModule::OProj | TargetModule::DownProj);
            let scaled = match (lora.use_dora, self.drops()) {
                (true, true) => 2 * columns_out,
                (true, false) if is_output => columns_out,
                _ => 0,
            };
            lora.rank as u64 + thinned + scaled
        });
        sources + attended + adapters.sum::<u64>()
    }

    /// The scores of some rows, and the states of all supervised tokens with their gradients.
    fn head_work(&self, batch: &BatchShape) -> u64 {
        let at_once = match self.config.tuning {
            Tuning::Full { train_embeddings } if train_embeddings || !self.shape.tied_head => {
                SCORED_AT_ONCE_LEARNING
            }
            _ => SCORED_AT_ONCE,
        };
        let scores = batch.n_supervised.min(at_once) * self.shape.vocabulary;
        let compared = if self.config.care.kl_weight > 0.0 {
            2
        } else {
            1
        };
        let states = 3 * batch.n_supervised * self.shape.width;
        let narrowed = match self.config.precision {
            Precision::F32 => 0,
            Precision::Bf16 => 2 * scores,
        };
        4 * (compared * scores + states) + narrowed
    }

    /// A pass that keeps nothing: the widest moment of a layer, or the head's.
    fn forward_work(&self, batch: &BatchShape) -> u64 {
        let shape = self.shape;
        let layer = 4 * batch.n_tokens() * (3 * shape.mlp_width + 3 * shape.width);
        layer.max(self.head_work(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, shape};
    use super::*;
    use serde_json::{Value, json};

    fn memory(asked: &Value) -> Memory {
        let batch = BatchShape {
            rows: vec![3, 2],
            n_supervised: 2,
        };
        CostModel::new(&shape(), &config(asked)).memory(&batch, &BatchShape::default())
    }

    #[test]
    fn a_base_takes_what_its_numbers_take() {
        // 240 numbers in layers, 40 in the table.
        let base = |asked| memory(&asked).base_bytes;
        assert_eq!(base(json!({"precision": "f32"})), 1120);
        assert_eq!(base(json!({"precision": "bf16"})), 560);
        assert_eq!(base(json!({"quantization": "nf4"})), 123 + 80);
        assert_eq!(base(json!({"quantization": "gguf"})), 175);
    }

    #[test]
    fn an_adapters_run_by_hand() {
        let found = memory(&json!({"lora": {"rank": 3}}));
        // Weights, two moments and gradients of 348 numbers.
        assert_eq!(found.learned_bytes, 4 * 4 * 348);
        // Two norms 8, attention 8, activation 12, the attention's result 4, seven adapters of 3.
        assert_eq!(found.activation_bytes, 4 * 5 * 2 * (8 + 8 + 12 + 4 + 21));
        // A layer's gradients, which are more than the head's 2·10 scores and states here.
        assert_eq!(found.work_bytes, 4 * 5 * 40);
        assert_eq!(found.total() - found.to_come(), PROCESS_BYTES + 1120);
        let accumulated = memory(&json!({"lora": {"rank": 3}, "grad_accum": 2}));
        assert_eq!(accumulated.learned_bytes, 5 * 4 * 348);
    }

    #[test]
    fn what_attention_gives_is_kept_as_narrow_as_products_read_it() {
        let wide = memory(&json!({"lora": {"rank": 3}, "precision": "f32"}));
        let narrow = memory(&json!({"lora": {"rank": 3}, "precision": "bf16"}));
        // Four numbers of each token and layer.
        assert_eq!(
            wide.activation_bytes - narrow.activation_bytes,
            5 * 2 * 4 * 2
        );
    }

    #[test]
    fn a_full_run_keeps_what_its_matrices_read() {
        let found = memory(&json!({"tuning": "full"}));
        assert_eq!(found.learned_bytes, 4 * 4 * 260);
        assert_eq!(found.activation_bytes, 4 * 5 * 2 * (8 + 8 + 12 + 8 + 4 + 6));
    }

    #[test]
    fn what_is_computed_again_is_not_kept() {
        let found = memory(&json!({"lora": {"rank": 3}, "recompute": true}));
        assert_eq!(found.activation_bytes, 4 * 5 * 4 * 3);
        assert_eq!(found.work_bytes, 4 * 5 * (53 + 40));
    }

    #[test]
    fn thinned_inputs_are_kept_with_their_masks() {
        let plain = memory(&json!({"lora": {"rank": 3}}));
        let dropped = memory(&json!({"lora": {"rank": 3, "dropout": 0.1}}));
        // Columns in: 4, 4, 4, 4, 4, 4, 6, twice; the attention's result as it was is nobody's any more.
        assert_eq!(
            dropped.activation_bytes - plain.activation_bytes,
            4 * 5 * 2 * (60 - 4)
        );
    }

    #[test]
    fn a_long_validation_row_may_be_the_fullest_moment() {
        let (shape, config) = (shape(), config(&json!({})));
        let cost = CostModel::new(&shape, &config);
        let batch = BatchShape {
            rows: vec![1],
            n_supervised: 1,
        };
        let long = BatchShape {
            rows: vec![1000],
            n_supervised: 1,
        };
        let found = cost.memory(&batch, &long);
        let stepping = 4 * cost.n_learned() + found.activation_bytes + found.work_bytes;
        assert_eq!(stepping, 4 * 1000 * 30);
    }
}
