//! Every weight of a model, one after the other, under the names that Hugging Face gives them.

use burn::tensor::{DType, Tensor};

use super::load::{EMBEDDING, FINAL_NORM, HEAD};
use super::{CausalLm, Layer, Mlp};
use crate::attention::Attention;
use crate::dora::RowSquares;
use crate::full::{FullWeights, NamedWeight, Stored};
use crate::linear::Linear;
use crate::norm::RmsNorm;
use crate::precision::{Precision, cast};
use crate::weight::Weight;

impl CausalLm {
    /// This model's own weights as what learns: its matrices, norms and biases, in f32 and on no graph. The embedding is
    /// among them, and with it a tied head, if `train_embeddings`; a head of its own always is.
    pub fn trainable(&self, train_embeddings: bool) -> FullWeights {
        let mut weights = Vec::new();
        self.map_weights(train_embeddings, &mut |stored, tensor| {
            let tensor = cast(tensor.inner(), DType::F32);
            weights.push(NamedWeight::new(stored, tensor.clone()));
            tensor
        });
        FullWeights::new(weights, train_embeddings)
    }

    /// This model with `weights`, which it shares, in the place of its own.
    ///
    /// # Panics
    /// When they are not those of [`Self::trainable`], moved.
    #[must_use]
    pub fn with_weights(&self, weights: &FullWeights) -> Self {
        let mut given = weights.weights().iter();
        let mut model = self.map_weights(weights.train_embeddings(), &mut |stored, own| {
            let weight = given.next().expect("the weights are this model's");
            assert_eq!(*weight.stored(), stored, "the weights are this model's");
            let tensor = weight.tensor().clone();
            if own.is_autodiff() {
                tensor.autodiff()
            } else {
                tensor
            }
        });
        assert!(given.next().is_none(), "the weights are this model's");
        // A head that stays may still be narrow.
        if matches!(&model.head, Weight::Dense(head) if head.dtype() == DType::F32) {
            model.precision = Precision::F32;
        }
        model
    }

    /// The model with what `replace` makes of each weight, in a fixed order.
    fn map_weights(&self, embeddings: bool, replace: Replace<'_>) -> Self {
        let mut map = Map {
            replace,
            device: self.device.as_burn().clone(),
        };
        let embedding = if embeddings {
            map.table(EMBEDDING, &self.embedding)
        } else {
            self.embedding.clone()
        };
        let layers = self.layers.iter().enumerate();
        let layers = layers
            .map(|(index, layer)| map.layer(&format!("model.layers.{index}"), layer))
            .collect();
        let norm = map.norm(FINAL_NORM, &self.norm);
        let head = if self.config.tie_word_embeddings {
            embedding.clone()
        } else {
            map.table(HEAD, &self.head)
        };
        Self {
            embedding,
            layers,
            norm,
            head,
            ..self.clone()
        }
    }
}

/// From a weight, and what files call it, to the one that takes its place.
type Replace<'a> = &'a mut dyn FnMut(Stored, Tensor<2>) -> Tensor<2>;

struct Map<'a> {
    replace: Replace<'a>,
    device: burn::tensor::Device,
}

impl Map<'_> {
    fn table(&mut self, name: &str, table: &Weight) -> Weight {
        let stored = vec![(name.to_owned(), table.dims().into())];
        self.matrix(stored, table)
    }

    /// Blocks are decoded: what learns is dense.
    fn matrix(&mut self, stored: Stored, matrix: &Weight) -> Weight {
        let device = match matrix {
            Weight::Dense(matrix) => matrix.device(),
            Weight::Blocks(_) => self.device.clone(),
        };
        Weight::Dense((self.replace)(stored, matrix.tensor(&device, DType::F32)))
    }

    fn layer(&mut self, prefix: &str, layer: &Layer) -> Layer {
        let Layer {
            attention_norm,
            attention,
            mlp_norm,
            mlp,
        } = layer;
        let heads_norm = |map: &mut Self, name: &str, norm: &Option<RmsNorm>| {
            let name = format!("{prefix}.self_attn.{name}.weight");
            norm.as_ref().map(|norm| map.norm(&name, norm))
        };
        Layer {
            attention_norm: self.norm(&format!("{prefix}.input_layernorm.weight"), attention_norm),
            attention: Attention {
                qkv: self.linear(prefix, &attention.qkv),
                q_norm: heads_norm(self, "q_norm", &attention.q_norm),
                k_norm: heads_norm(self, "k_norm", &attention.k_norm),
                o: self.linear(prefix, &attention.o),
                heads: attention.heads,
                sliding_window: attention.sliding_window,
            },
            mlp_norm: self.norm(
                &format!("{prefix}.post_attention_layernorm.weight"),
                mlp_norm,
            ),
            mlp: Mlp {
                gate_up: self.linear(prefix, &mlp.gate_up),
                down: self.linear(prefix, &mlp.down),
            },
        }
    }

    fn linear(&mut self, prefix: &str, linear: &Linear) -> Linear {
        let [_, n_in] = linear.weight.dims();
        let stored = |what: &str, shape: &dyn Fn(usize) -> Vec<usize>| {
            let parts = linear.parts.iter().map(|part| {
                let (block, module) = (part.target.block_name(), part.target.module_name());
                let name = format!("{prefix}.{block}.{module}.{what}");
                (name, shape(part.columns.len()))
            });
            parts.collect()
        };
        let weight = stored("weight", &|n_out| vec![n_out, n_in]);
        let weight = self.matrix(weight, &linear.weight);
        let bias = linear.bias.as_ref();
        Linear {
            weight,
            bias: bias.map(|bias| self.line(stored("bias", &|n_out| vec![n_out]), bias)),
            parts: linear.parts.clone(),
            row_squares: RowSquares::default(),
        }
    }

    fn norm(&mut self, name: &str, norm: &RmsNorm) -> RmsNorm {
        let stored = vec![(name.to_owned(), norm.weight.dims().into())];
        RmsNorm {
            weight: self.line(stored, &norm.weight),
            epsilon: norm.epsilon,
        }
    }

    /// Lines are matrices of one row among what learns.
    fn line(&mut self, stored: Stored, line: &Tensor<1>) -> Tensor<1> {
        (self.replace)(stored, line.clone().unsqueeze()).flatten(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::batch::Ragged;
    use crate::config::ModelConfig;
    use crate::device::Device;
    use crate::error::LoadError;
    use crate::ops::testing::{close, numbers, plainly, random_values};
    use crate::weights::WeightSource;

    struct Random;

    impl WeightSource for Random {
        fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
            Ok(random_values(name, shape.iter().product()))
        }

        fn contains(&self, _name: &str) -> bool {
            true
        }
    }

    /// With biases, or with norms of queries and keys; with a head of its own, or with the embedding's.
    fn models() -> [CausalLm; 2] {
        let changes = [
            json!({"model_type": "llama", "attention_bias": true, "mlp_bias": true,
                "tie_word_embeddings": true}),
            json!({"model_type": "qwen3", "tie_word_embeddings": false}),
        ];
        changes.map(|changes| {
            let mut document = json!({
                "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                "rms_norm_eps": 1e-5, "rope_theta": 100.0, "max_position_embeddings": 2000,
            });
            for (key, value) in changes.as_object().unwrap() {
                document[key] = value.clone();
            }
            let config = ModelConfig::from_json(document.to_string().as_bytes()).unwrap();
            CausalLm::from_source(&config, &mut Random, &Device::cpu(), Precision::F32).unwrap()
        })
    }

    /// Loss and gradients of every weight.
    fn gradients(model: &CausalLm, train_embeddings: bool) -> (f32, Vec<(String, Vec<f32>)>) {
        let weights = model.trainable(train_embeddings).require_grad();
        let model = model.autodiff().with_weights(&weights);
        let hidden = model.hidden(
            &Ragged::from_rows([&[1, 2, 3, 4][..], &[5, 6, 7]]),
            None,
            None,
        );
        let targets = Arc::from([3, 1, 4, 1, 5, 9, 2]);
        let loss = model.cross_entropy(hidden, &targets).narrow(1, 0, 1).sum();
        let graph = loss.backward();
        let tensors = weights.named_tensors();
        let gradients = tensors.map(|(name, tensor)| {
            let gradient = tensor.grad(&graph);
            (name, numbers(gradient.expect("every weight learns")))
        });
        (loss.into_scalar(), gradients.collect())
    }

    #[test]
    fn every_weights_gradient_is_that_of_the_plain_operations() {
        for (model, train_embeddings) in models().iter().zip([true, false]) {
            let (loss, found) = gradients(model, train_embeddings);
            let (expected_loss, expected) = plainly(|| gradients(model, train_embeddings));
            assert!((loss / expected_loss - 1.0).abs() < 1e-5);
            assert_eq!(found.len(), expected.len());
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                close(name, 5e-5, found, expected);
                assert!(found.iter().any(|value| *value != 0.0), "{name}");
            }
        }
    }

    #[test]
    fn weights_are_named_as_files_name_them_in_one_order() {
        let [biased, normed] = models();
        let names = |model: &CausalLm, train_embeddings| {
            let weights = model.trainable(train_embeddings);
            let names: Vec<_> = weights.named_tensors().map(|(name, _)| name).collect();
            let mut stored: Vec<_> = weights
                .weights()
                .iter()
                .flat_map(|weight| weight.stored().clone())
                .collect();
            let mut expected = model.config().tensor_shapes();
            if !train_embeddings {
                expected.retain(|(name, _)| name != EMBEDDING);
            }
            stored.sort_unstable();
            expected.sort_unstable();
            assert_eq!(stored, expected);
            names
        };
        let names_of_biased = names(&biased, true);
        assert_eq!(
            names_of_biased[..4],
            [
                "model.embed_tokens.weight",
                "model.layers.0.input_layernorm.weight",
                "model.layers.0.self_attn.qkv_proj.weight",
                "model.layers.0.self_attn.qkv_proj.bias",
            ]
        );
        let names_of_normed = names(&normed, false);
        let gate_up = "model.layers.1.mlp.gate_up_proj.weight";
        assert!(names_of_normed.iter().any(|name| name == gate_up));
        assert_eq!(names_of_normed.last().unwrap(), HEAD);
    }
}
