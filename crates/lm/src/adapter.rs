//! An adapter as a value: the LoRA factors, and DoRA magnitudes, of every adapted matrix, under PEFT's names.

pub(crate) mod files;
mod gguf_file;

use burn::tensor::Tensor;
use burn::tensor::TensorData;

use crate::config::ModelConfig;
use crate::device::Device;
use crate::dora::KnownNorms;
use crate::error::LoadError;
use crate::lora::{LoraConfig, LoraPair, Target};
use crate::rng::splitmix64;
use crate::transformer::CausalLm;

/// The trained part of a model. Cheap to clone: clones share the tensors.
#[derive(Debug, Clone)]
pub struct Adapter {
    config: LoraConfig,
    /// For each layer its factors, by [`Target::index`].
    layers: Vec<[Option<LoraPair>; Target::ALL.len()]>,
}

/// What is learned of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    A,
    B,
    Magnitude,
}

/// How the name of a magnitude ends, which files hold as a line.
const MAGNITUDE: &str = "lora_magnitude_vector";

/// Most ranks in use are 8 to 256.
const MAX_RANK: usize = 4096;

impl LoraConfig {
    /// # Errors
    /// Names the setting that makes no sense.
    pub fn check(&self) -> Result<(), LoadError> {
        let refuse = |what: String| Err(LoadError::AdapterMismatch(what));
        if self.rank == 0 || self.rank > MAX_RANK {
            return refuse(format!("rank is {}, expected 1 to {MAX_RANK}", self.rank));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse(format!(
                "alpha is {}, expected a positive number",
                self.alpha
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!(
                "dropout is {}, expected at least 0, below 1",
                self.dropout
            ));
        }
        if self.target_modules.is_empty() {
            return refuse("target_modules is empty".to_owned());
        }
        Ok(())
    }

    /// The adapted modules, each once, in the order that numbers them.
    fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        Target::ALL
            .into_iter()
            .filter(|target| self.target_modules.contains(target))
    }
}

impl Adapter {
    /// A fresh adapter, which changes nothing: B is zero, and magnitudes are the lengths of the rows they scale. A is
    /// uniform in ±1/√in, as PEFT initialises it, and a function of `seed` and the element alone.
    pub fn init(config: &LoraConfig, model: &CausalLm, seed: u64) -> Self {
        // Seed 0 leaves the counter as it is; any other seed moves all of its bits.
        let key = splitmix64(seed) ^ splitmix64(0);
        let device = model.device().inner();
        let new = |layer: usize, target: Target, factor, [rows, columns]: [usize; 2]| match factor {
            Factor::A => {
                let module = (layer * Target::ALL.len() + target.index()) as u64;
                let values = initial_a(key ^ (module << 32), rows, columns);
                matrix(values, [rows, columns], &device)
            }
            Factor::B => Tensor::zeros([rows, columns], device.as_burn()),
            Factor::Magnitude => model.row_norms(layer, target),
        };
        let built = Self::build(config, model.config(), |layer, target, factor, shape| {
            Ok::<_, std::convert::Infallible>(new(layer, target, factor, shape))
        });
        let Ok(adapter) = built;
        adapter
    }

    /// An adapter from tensors that `tensor` finds by PEFT name and shape, in burn's orientation:
    /// A `[in, rank]`, B `[rank, out]`, a magnitude `[1, out]`.
    ///
    /// # Errors
    /// Whatever `tensor` raises.
    pub fn from_tensors<E>(
        config: &LoraConfig,
        model: &ModelConfig,
        mut tensor: impl FnMut(&str, [usize; 2]) -> Result<Tensor<2>, E>,
    ) -> Result<Self, E> {
        Self::build(config, model, |layer, target, factor, shape| {
            tensor(&parameter_name(layer, target, factor), shape)
        })
    }

    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// All tensors with their PEFT names: by layer, then module, then A before B before the magnitude, if there is one.
    ///
    /// # Shapes
    /// A is `[in, rank]` and B is `[rank, out]`; files hold both transposed. A magnitude is `[1, out]`.
    pub fn named_tensors(&self) -> impl Iterator<Item = (String, &Tensor<2>)> {
        self.layers.iter().enumerate().flat_map(|(layer, pairs)| {
            let pairs = Target::ALL.into_iter().zip(pairs);
            pairs
                .filter_map(|(target, pair)| Some((target, pair.as_ref()?)))
                .flat_map(move |(target, pair)| {
                    let magnitude = pair.magnitude.as_ref().map(|m| (Factor::Magnitude, m));
                    [(Factor::A, &pair.a), (Factor::B, &pair.b)]
                        .into_iter()
                        .chain(magnitude)
                        .map(move |(factor, tensor)| {
                            (parameter_name(layer, target, factor), tensor)
                        })
                })
        })
    }

    /// Replaces every tensor, in the order of [`Self::named_tensors`].
    #[must_use]
    pub fn map(mut self, mut f: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        for (layer, pairs) in self.layers.iter_mut().enumerate() {
            for (target, pair) in Target::ALL.into_iter().zip(pairs) {
                let mut f = |factor, tensor| f(&parameter_name(layer, target, factor), tensor);
                *pair = pair.take().map(
                    |LoraPair {
                         a, b, magnitude, ..
                     }| LoraPair {
                        a: f(Factor::A, a),
                        b: f(Factor::B, b),
                        magnitude: magnitude.map(|m| f(Factor::Magnitude, m)),
                        norms: KnownNorms::default(),
                    },
                );
            }
        }
        self
    }

    /// The same values as leaves whose gradients the backward pass keeps.
    #[must_use]
    pub fn require_grad(self) -> Self {
        self.map(|_, tensor| tensor.autodiff().detach().require_grad())
    }

    /// The same values, no longer part of any graph.
    #[must_use]
    pub fn inner(self) -> Self {
        self.map(|_, tensor| tensor.inner())
    }

    pub(crate) fn pair(&self, layer: usize, target: Target) -> Option<&LoraPair> {
        self.layers.get(layer)?[target.index()].as_ref()
    }

    /// All adapted matrices with their factors, by layer, then module.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, Target, &LoraPair)> {
        self.layers.iter().enumerate().flat_map(|(layer, pairs)| {
            let pairs = Target::ALL.into_iter().zip(pairs);
            pairs.filter_map(move |(target, pair)| Some((layer, target, pair.as_ref()?)))
        })
    }

    fn build<E>(
        config: &LoraConfig,
        model: &ModelConfig,
        mut tensor: impl FnMut(usize, Target, Factor, [usize; 2]) -> Result<Tensor<2>, E>,
    ) -> Result<Self, E> {
        let mut layers = Vec::with_capacity(model.n_layers);
        for layer in 0..model.n_layers {
            let mut pairs = [const { None }; Target::ALL.len()];
            for target in config.targets() {
                let (n_in, n_out) = target.dims(model);
                pairs[target.index()] = Some(LoraPair {
                    a: tensor(layer, target, Factor::A, [n_in, config.rank])?,
                    b: tensor(layer, target, Factor::B, [config.rank, n_out])?,
                    magnitude: config
                        .use_dora
                        .then(|| tensor(layer, target, Factor::Magnitude, [1, n_out]))
                        .transpose()?,
                    norms: KnownNorms::default(),
                });
            }
            layers.push(pairs);
        }
        Ok(Self {
            config: config.clone(),
            layers,
        })
    }
}

/// The name that PEFT gives the parameter in `adapter_model.safetensors`.
fn parameter_name(layer: usize, target: Target, factor: Factor) -> String {
    let (block, module) = (target.block_name(), target.module_name());
    let factor = match factor {
        Factor::A => "lora_A.weight",
        Factor::B => "lora_B.weight",
        Factor::Magnitude => MAGNITUDE,
    };
    format!("base_model.model.model.layers.{layer}.{block}.{module}.{factor}")
}

/// Values of A `[in, rank]`. Elements are numbered as PEFT stores A, `[rank, in]`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded to f32 once, at the end"
)]
#[expect(
    clippy::cast_precision_loss,
    reason = "24 bits, and the root of a width"
)]
fn initial_a(key: u64, n_in: usize, rank: usize) -> Vec<f32> {
    let bound = 1.0 / (n_in as f64).sqrt();
    let value = |element: usize| {
        let unit = (splitmix64(key.wrapping_add(element as u64)) >> 40) as f64 / f64::from(1 << 24);
        ((unit * 2.0 - 1.0) * bound) as f32
    };
    (0..n_in)
        .flat_map(|column| (0..rank).map(move |row| value(row * n_in + column)))
        .collect()
}

fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device.as_burn())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_follow_the_counter_formula() {
        // Layer 2's k_proj of a model with 4 columns, element 5 = row 1, column 1.
        let module = (2 * 7 + 1) << 32;
        let values = initial_a(module, 4, 3);
        let bits = splitmix64(module + 5);
        #[expect(clippy::cast_precision_loss, reason = "24 bits")]
        let expected = ((bits >> 40) as f64 / 16_777_216.0 * 2.0 - 1.0) / 2.0;
        assert!((f64::from(values[3 + 1]) - expected).abs() < 1e-7);
        assert!(values.iter().all(|value| value.abs() <= 0.5));
    }
}
