//! Building a [`CausalLm`] from named weights.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::TensorData;

use super::matrix::Matrix;
use super::{CausalLm, Layer, Mlp};
use crate::attention::{Attention, Heads};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::dora::RowSquares;
use crate::error::LoadError;
use crate::linear::{Linear, Part};
use crate::lora::Target;
use crate::norm::RmsNorm;
use crate::precision::Precision;
use crate::weight::Weight;
use crate::weights::WeightSource;

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const FINAL_NORM: &str = "model.norm.weight";
pub(super) const HEAD: &str = "lm_head.weight";

impl CausalLm {
    /// Builds the model that `config` describes from the weights in `source`.
    ///
    /// # Errors
    /// When a weight is missing, has another shape, or holds a value that is not finite.
    pub fn from_source(
        config: &ModelConfig,
        source: &mut dyn WeightSource,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let mut loader = Loader {
            config,
            source,
            device,
            precision,
        };
        // The largest first: nothing else is there yet while they are being read.
        let embedding = loader.table(EMBEDDING)?;
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            loader.table(HEAD)?
        };
        let layers = (0..config.n_layers)
            .map(|i| loader.layer(i))
            .collect::<Result<_, _>>()?;
        let norm = loader.norm(FINAL_NORM, config.hidden_size)?;
        Ok(Self {
            config: Arc::new(config.clone()),
            device: device.clone(),
            precision,
            activations: device.activations(precision),
            embedding,
            layers,
            norm,
            head,
            inverse_frequencies: config.rope.inverse_frequencies(config.head_dim).into(),
        })
    }
}

/// Reads the tensors of one model, each checked on the way.
struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a mut dyn WeightSource,
    device: &'a Device,
    precision: Precision,
}

impl Loader<'_> {
    fn layer(&mut self, index: usize) -> Result<Layer, LoadError> {
        let config = self.config;
        let prefix = format!("model.layers.{index}");
        let qk_norm = |loader: &mut Self, name: &str| {
            let name = format!("{prefix}.self_attn.{name}.weight");
            config
                .qk_norm
                .then(|| loader.norm(&name, config.head_dim))
                .transpose()
        };
        Ok(Layer {
            attention_norm: self.norm(
                &format!("{prefix}.input_layernorm.weight"),
                config.hidden_size,
            )?,
            attention: Attention {
                qkv: self.linear(&prefix, &[Target::Q, Target::K, Target::V])?,
                o: self.linear(&prefix, &[Target::O])?,
                q_norm: qk_norm(self, "q_norm")?,
                k_norm: qk_norm(self, "k_norm")?,
                heads: Heads::new(config),
                sliding_window: config.sliding_windows[index],
            },
            mlp_norm: self.norm(
                &format!("{prefix}.post_attention_layernorm.weight"),
                config.hidden_size,
            )?,
            mlp: Mlp {
                gate_up: self.linear(&prefix, &[Target::Gate, Target::Up])?,
                down: self.linear(&prefix, &[Target::Down])?,
            },
        })
    }

    /// The matrices of `targets`, which read the same input, as one layer.
    fn linear(&mut self, prefix: &str, targets: &[Target]) -> Result<Linear, LoadError> {
        let (n_in, _) = targets[0].dims(self.config);
        let mut weight = Matrix::new(self.precision, n_in);
        let (mut bias, mut parts, mut n_out) = (Vec::new(), Vec::new(), 0);
        for target in targets {
            let (_, width) = target.dims(self.config);
            let name = format!("{prefix}.{}.{}", target.block_name(), target.module_name());
            weight.append(self.source, &format!("{name}.weight"), width)?;
            if has_bias(self.config, *target) {
                bias.extend(self.values(&format!("{name}.bias"), &[width])?);
            }
            parts.push(Part {
                target: *target,
                columns: n_out..n_out + width,
            });
            n_out += width;
        }
        // Those that share an input have all a bias or none.
        let bias = (!bias.is_empty()).then(|| self.line(bias));
        Ok(Linear {
            weight: weight.finish(self.device),
            bias,
            parts: parts.into(),
            row_squares: RowSquares::default(),
        })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<RmsNorm, LoadError> {
        let weight = self.values(name, &[width])?;
        #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
        let epsilon = self.config.rms_norm_eps as f32;
        Ok(RmsNorm {
            weight: self.line(weight),
            epsilon,
        })
    }

    /// A row for each token of the vocabulary.
    fn table(&mut self, name: &str) -> Result<Weight, LoadError> {
        let mut table = Matrix::table(self.precision, self.config.hidden_size);
        table.append(self.source, name, self.config.vocab_size)?;
        Ok(table.finish(self.device))
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.source.tensor(name, shape)?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(LoadError::NonFinite(name.to_owned()));
        }
        Ok(values)
    }

    fn line(&self, values: Vec<f32>) -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), self.device.as_burn())
    }
}

fn has_bias(config: &ModelConfig, target: Target) -> bool {
    match target {
        Target::Q | Target::K | Target::V => config.qkv_bias,
        Target::O => config.output_bias,
        Target::Gate | Target::Up | Target::Down => config.mlp_bias,
    }
}

impl ModelConfig {
    /// Every tensor of a model with this configuration, in Hugging Face names, with its shape.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let embedding = vec![self.vocab_size, self.hidden_size];
        let mut shapes = vec![(EMBEDDING.to_owned(), embedding.clone())];
        for layer in 0..self.n_layers {
            self.push_layer_shapes(&format!("model.layers.{layer}"), &mut shapes);
        }
        shapes.push((FINAL_NORM.to_owned(), vec![self.hidden_size]));
        if !self.tie_word_embeddings {
            shapes.push((HEAD.to_owned(), embedding));
        }
        shapes
    }

    fn push_layer_shapes(&self, prefix: &str, shapes: &mut Vec<(String, Vec<usize>)>) {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("{prefix}.{norm}.weight"), vec![self.hidden_size]));
        }
        for norm in ["q_norm", "k_norm"].into_iter().filter(|_| self.qk_norm) {
            shapes.push((
                format!("{prefix}.self_attn.{norm}.weight"),
                vec![self.head_dim],
            ));
        }
        for target in Target::ALL {
            let (n_in, n_out) = target.dims(self);
            let name = format!("{prefix}.{}.{}", target.block_name(), target.module_name());
            shapes.push((format!("{name}.weight"), vec![n_out, n_in]));
            if has_bias(self, target) {
                shapes.push((format!("{name}.bias"), vec![n_out]));
            }
        }
    }
}
