//! Floating-point operations, a multiplication and an addition counted as two.

use std::ops::{Add, AddAssign, Mul};

use serde::{Deserialize, Serialize};

use super::{BatchShape, CostModel};
use crate::config::{Method, TargetModule, Tuning};

/// Floating-point operations by the kind of work, as `lm::profile` names the kinds. Norms, activations and the optimizer
/// are bound by memory and not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Flops {
    /// Products with the layers' matrices.
    pub matmul: f64,
    /// The adapter's products.
    pub lora: f64,
    /// Scores and what they weigh.
    pub attention: f64,
    /// Products with the head.
    pub head: f64,
}

impl Flops {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.matmul + self.lora + self.attention + self.head
    }

    /// Each kind's under its name.
    pub fn parts(&self) -> [(&'static str, f64); 4] {
        [
            ("matmul", self.matmul),
            ("lora", self.lora),
            ("attention", self.attention),
            ("head", self.head),
        ]
    }
}

impl Add for Flops {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            matmul: self.matmul + other.matmul,
            lora: self.lora + other.lora,
            attention: self.attention + other.attention,
            head: self.head + other.head,
        }
    }
}

impl AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Flops {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            matmul: self.matmul * factor,
            lora: self.lora * factor,
            attention: self.attention * factor,
            head: self.head * factor,
        }
    }
}

impl CostModel<'_> {
    /// One forward pass, the head on the supervised tokens included.
    pub fn forward(&self, batch: &BatchShape) -> Flops {
        let (shape, n) = (self.shape, float(batch.n_tokens()));
        Flops {
            matmul: 2.0 * n * float(shape.n_layers() * shape.layer_weights()),
            lora: 2.0 * n * float(self.adapter_weights()),
            attention: self.attention(batch),
            head: self.head(batch),
        }
    }

    /// A micro-batch of a step: forward and backward, and whatever the method and the settings add.
    pub fn micro_batch(&self, batch: &BatchShape) -> Flops {
        let forward = self.forward(batch);
        let mut work = forward + self.backward(batch, forward);
        if self.config.recompute {
            work += Flops {
                head: 0.0,
                ..forward
            };
        }
        work + self.reference(batch, forward)
    }

    /// Measuring rows: the loss without its gradients.
    pub fn measurement(&self, batch: &BatchShape) -> Flops {
        let forward = self.forward(batch);
        forward + self.reference(batch, forward)
    }

    /// The gradient of each product's input costs as much as the product, and that of its weight, where that learns, as much
    /// again.
    fn backward(&self, batch: &BatchShape, forward: Flops) -> Flops {
        let shape = self.shape;
        // Nothing below the first layer learns, so nobody asks for the gradient of what it reads.
        let first = [
            TargetModule::QProj,
            TargetModule::KProj,
            TargetModule::VProj,
        ];
        let unasked = first.map(|target| shape.matrix(target));
        let unasked: u64 = unasked.iter().map(|[rows, columns]| rows * columns).sum();
        let unasked = 2.0 * float(batch.n_tokens() * unasked);
        let (matmul, head) = match self.config.tuning {
            Tuning::Lora(_) => (forward.matmul - unasked, forward.head),
            Tuning::Full { train_embeddings } => {
                let both = 2.0 * forward.matmul;
                let head = if train_embeddings || !shape.tied_head {
                    3.0
                } else {
                    1.0
                };
                if train_embeddings {
                    (both, head * forward.head)
                } else {
                    (both - unasked, head * forward.head)
                }
            }
        };
        Flops {
            matmul,
            lora: 2.0 * forward.lora,
            // Scores again, and the gradients of scores, weights, queries, keys and values: five products for two.
            attention: 2.5 * forward.attention,
            head,
        }
    }

    /// The passes of what the model is compared with.
    fn reference(&self, batch: &BatchShape, forward: Flops) -> Flops {
        let passes = match self.config.method {
            Method::Supervised if self.config.care.kl_weight > 0.0 => {
                // Both models' scores, and the gradient of one.
                let head = 3.0 * self.head(batch);
                return Flops { head, ..forward };
            }
            // The mismatched rows of the baseline, with and without what was learned.
            Method::Kto { .. } => 3.0,
            _ if self.config.method.has_reference() => 1.0,
            _ => 0.0,
        };
        forward * passes
    }

    /// Each query with the keys it sees: a score, and a share of what is read.
    fn attention(&self, batch: &BatchShape) -> f64 {
        let pairs = self.shape.windows.iter().map(|window| {
            let rows = batch.rows.iter();
            float(rows.map(|row| pairs(*row, *window)).sum())
        });
        4.0 * float(self.shape.query_width) * pairs.sum::<f64>()
    }

    fn head(&self, batch: &BatchShape) -> f64 {
        2.0 * float(batch.n_supervised * self.shape.width * self.shape.vocabulary)
    }

    /// Numbers of all factors of all layers.
    fn adapter_weights(&self) -> u64 {
        let Some(lora) = self.config.lora() else {
            return 0;
        };
        let pairs = lora.target_modules.iter().map(|target| {
            let [columns_in, columns_out] = self.shape.matrix(*target);
            lora.rank as u64 * (columns_in + columns_out)
        });
        self.shape.n_layers() * pairs.sum::<u64>()
    }
}

/// How many keys the queries of a row of `n` tokens see together.
fn pairs(n: u64, window: Option<u64>) -> u64 {
    let window = window.unwrap_or(n).min(n);
    let growing = window * (window + 1) / 2;
    growing + (n - window) * window
}

#[expect(clippy::cast_precision_loss, reason = "a count of operations")]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, shape};
    use super::*;
    use serde_json::json;

    fn batch() -> BatchShape {
        BatchShape {
            rows: vec![3, 2],
            n_supervised: 2,
        }
    }

    fn micro_batch(asked: &serde_json::Value) -> Flops {
        CostModel::new(&shape(), &config(asked)).micro_batch(&batch())
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn a_forward_pass_by_hand() {
        let (shape, config) = (shape(), config(&json!({"lora": {"rank": 3}})));
        let forward = CostModel::new(&shape, &config).forward(&batch());
        assert_eq!(forward.matmul, 2.0 * 5.0 * 240.0);
        assert_eq!(forward.lora, 2.0 * 5.0 * 2.0 * 3.0 * 58.0);
        // 6 pairs and 3, in two layers, of 4 columns, twice two operations.
        assert_eq!(forward.attention, 9.0 * 2.0 * 4.0 * 4.0);
        assert_eq!(forward.head, 2.0 * 2.0 * 40.0);
        assert_eq!(
            forward.total(),
            forward.parts().iter().map(|part| part.1).sum::<f64>()
        );
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn a_step_by_hand() {
        let lora = micro_batch(&json!({"lora": {"rank": 3}}));
        // Twice the forward pass but for the first layer's queries, keys and values.
        assert_eq!(lora.matmul, 2.0 * 2400.0 - 2.0 * 5.0 * 32.0);
        assert_eq!(lora.lora, 3.0 * 3480.0);
        assert_eq!(lora.attention, 3.5 * 288.0);
        assert_eq!(lora.head, 2.0 * 160.0);

        let full = micro_batch(&json!({"tuning": "full"}));
        assert_eq!(full.matmul, 3.0 * 2400.0 - 2.0 * 5.0 * 32.0);
        assert_eq!((full.lora, full.head), (0.0, 2.0 * 160.0));
        let embeddings = micro_batch(&json!({"tuning": "full", "train_embeddings": true}));
        assert_eq!(embeddings.matmul, 3.0 * 2400.0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    fn what_is_done_again_and_what_is_compared_with_are_counted() {
        let plain = micro_batch(&json!({}));
        let forward = CostModel::new(&shape(), &config(&json!({}))).forward(&batch());
        let recomputed = micro_batch(&json!({"recompute": true}));
        assert_eq!(recomputed.matmul - plain.matmul, forward.matmul);
        assert_eq!(recomputed.head, plain.head);
        let dpo = micro_batch(&json!({"method": "dpo"}));
        assert_eq!(dpo.total() - plain.total(), forward.total());
        let orpo = micro_batch(&json!({"method": "orpo"}));
        assert_eq!(orpo, plain);
    }

    #[test]
    fn attention_grows_with_the_square_until_its_window_ends_that() {
        assert_eq!([pairs(4, None), pairs(8, None)], [10, 36]);
        assert_eq!(pairs(8, Some(2)), 1 + 2 * 7);
        assert_eq!(pairs(2, Some(5)), 3);
        assert_eq!(pairs(0, Some(5)), 0);
    }
}
