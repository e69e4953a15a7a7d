//! Low-rank adaptation: which matrices are adapted, with what rank, scale and dropout.

use burn::tensor::Tensor;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::dora::KnownNorms;
use crate::precision::cast;
use crate::rng::splitmix64;

/// A weight matrix of each layer that an adapter may adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    #[serde(rename = "q_proj")]
    Q,
    #[serde(rename = "k_proj")]
    K,
    #[serde(rename = "v_proj")]
    V,
    #[serde(rename = "o_proj")]
    O,
    #[serde(rename = "gate_proj")]
    Gate,
    #[serde(rename = "up_proj")]
    Up,
    #[serde(rename = "down_proj")]
    Down,
}

impl Target {
    /// All of them, in the order that numbers them.
    pub const ALL: [Self; 7] = [
        Self::Q,
        Self::K,
        Self::V,
        Self::O,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The module's name in Hugging Face's models.
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The block that holds the module.
    pub(crate) fn block_name(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// The name of the matrix in Hugging Face's models.
    pub(crate) fn weight_name(self, layer: usize) -> String {
        let (block, module) = (self.block_name(), self.module_name());
        format!("model.layers.{layer}.{block}.{module}.weight")
    }

    /// The layer and the module whose matrix has this name, if it is one that can be adapted.
    pub(crate) fn of_weight(name: &str) -> Option<(usize, Self)> {
        let (layer, _) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let layer = layer.parse().ok()?;
        let targets = Self::ALL.into_iter();
        let mut named = targets.filter(|target| target.weight_name(layer) == name);
        Some((layer, named.next()?))
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Columns in and out of the matrix.
    pub fn dims(self, model: &ModelConfig) -> (usize, usize) {
        let (d_model, ffn) = (model.hidden_size, model.intermediate_size);
        match self {
            Self::Q => (d_model, model.q_width()),
            Self::K | Self::V => (d_model, model.kv_width()),
            Self::O => (model.q_width(), d_model),
            Self::Gate | Self::Up => (d_model, ffn),
            Self::Down => (ffn, d_model),
        }
    }
}

/// What an adapter consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f64,
    /// Whether the factor is `alpha / √rank` (Kalajdzievski 2023) instead of `alpha / rank`.
    pub use_rslora: bool,
    /// Whether the length of each row of an adapted matrix is learned apart from its direction (Liu et al. 2024).
    pub use_dora: bool,
    /// The probability with which an input of the adapter is dropped in training.
    pub dropout: f64,
    pub target_modules: Vec<Target>,
}

impl LoraConfig {
    /// The factor on the adapter's output.
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// The two factors for one weight matrix, in burn's orientation: `y += scale · (x·A)·B`. With a magnitude, each column of
/// the sum is then scaled to it (see [`crate::dora`]).
#[derive(Debug, Clone)]
pub(crate) struct LoraPair {
    /// `[in, rank]`
    pub(crate) a: Tensor<2>,
    /// `[rank, out]`
    pub(crate) b: Tensor<2>,
    /// `[1, out]`
    pub(crate) magnitude: Option<Tensor<2>>,
    /// What the magnitude is divided by.
    pub(crate) norms: KnownNorms,
}

/// Dropout of one training step.
///
/// The mask is a function of `key`, the module and the element. Mix the run's seed, the step and
/// the micro-batch into `key`, and a resumed run drops what the uninterrupted one drops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    pub rate: f64,
    pub key: u64,
}

impl Dropout {
    /// The mask for one module's input: 0 where dropped, `1 / (1 - rate)` where kept.
    ///
    /// # Shapes
    /// `[rows, columns]`
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a probability in 64 bits; f32 values"
    )]
    #[expect(clippy::cast_sign_loss, reason = "the rate is not negative")]
    #[expect(
        clippy::cast_precision_loss,
        reason = "the last bits of a threshold do not matter"
    )]
    fn mask(self, module: u64, [rows, columns]: [usize; 2], device: &Device) -> Tensor<2> {
        let key = splitmix64(self.key ^ splitmix64(module));
        let threshold = (self.rate * u64::MAX as f64) as u64;
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let values = (0..(rows * columns) as u64)
            .map(|element| {
                if splitmix64(key ^ element) < threshold {
                    0.0
                } else {
                    kept
                }
            })
            .collect::<Vec<f32>>();
        Tensor::from_data(TensorData::new(values, [rows, columns]), device.as_burn())
    }
}

/// What one layer needs of the adapter in one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct LayerLora<'a> {
    pub(crate) adapter: Option<&'a Adapter>,
    pub(crate) dropout: Option<Dropout>,
    pub(crate) layer: usize,
    pub(crate) device: &'a Device,
}

impl<'a> LayerLora<'a> {
    /// The adapter of one matrix, when there is one.
    pub(crate) fn slot(self, target: Target) -> Option<LoraSlot<'a>> {
        let adapter = self.adapter?;
        Some(LoraSlot {
            pair: adapter.pair(self.layer, target)?,
            scale: adapter.config().scale(),
            dropout: self.dropout,
            module: (self.layer * Target::ALL.len() + target.index()) as u64,
            device: self.device,
        })
    }
}

/// What one linear layer needs of the adapter in one forward pass.
#[derive(Clone, Copy)]
pub(crate) struct LoraSlot<'a> {
    pub(crate) pair: &'a LoraPair,
    pub(crate) scale: f64,
    pub(crate) dropout: Option<Dropout>,
    /// Numbers the module among all of the model, for the dropout mask.
    pub(crate) module: u64,
    pub(crate) device: &'a Device,
}

impl LoraSlot<'_> {
    /// Whether the adapter's input is thinned out.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.is_some_and(|dropout| dropout.rate > 0.0)
    }

    /// `x` with some of its elements dropped and the others made up for it.
    pub(crate) fn thinned(&self, x: Tensor<2>) -> Tensor<2> {
        match self.dropout.filter(|dropout| dropout.rate > 0.0) {
            Some(dropout) => {
                let mask = dropout.mask(self.module, x.dims(), self.device);
                let mask = cast(mask, x.dtype());
                x * mask
            }
            None => x,
        }
    }

    /// `scale · (x·A)·B`. The small product is scaled, not the wide one.
    pub(crate) fn update(&self, x: Tensor<2>) -> Tensor<2> {
        let a = cast(self.pair.a.clone(), x.dtype());
        let b = cast(self.pair.b.clone(), x.dtype());
        x.matmul(a).mul_scalar(self.scale).matmul(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropout_mask_is_a_function_of_key_and_module() {
        let dropout = Dropout { rate: 0.25, key: 7 };
        let mask = |dropout: Dropout, module| {
            let mask = dropout.mask(module, [50, 40], &Device::cpu());
            mask.into_data().try_to_vec::<f32>().unwrap()
        };
        let values = mask(dropout, 3);
        assert_eq!(values, mask(dropout, 3));
        assert_ne!(values, mask(dropout, 4));
        assert_ne!(values, mask(Dropout { key: 8, ..dropout }, 3));
        let dropped = values.iter().filter(|value| **value == 0.0).count();
        assert!((400..600).contains(&dropped), "{dropped} of 2000");
        assert!(
            values
                .iter()
                .all(|value| *value == 0.0 || (*value - 4.0 / 3.0).abs() < 1e-6)
        );
    }
}
