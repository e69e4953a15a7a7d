//! A base model's weights with an adapter folded into them, one tensor at a time.
//!
//! The base stays as it is on disk; what reads from here, an export for instance, sees one plain model.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::adapter::Adapter;
use crate::blocks::norm;
use crate::error::LoadError;
use crate::lora::{LoraPair, Target};
use crate::weights::WeightSource;

/// The weights of `base` with `adapter` in them.
pub struct Merged<'a> {
    base: &'a mut dyn WeightSource,
    adapter: &'a Adapter,
}

impl<'a> Merged<'a> {
    /// # Errors
    /// [`LoadError::MissingTensor`] when the base lacks a matrix that is adapted.
    pub fn new(base: &'a mut dyn WeightSource, adapter: &'a Adapter) -> Result<Self, LoadError> {
        for (layer, target, _) in adapter.pairs() {
            let name = target.weight_name(layer);
            if !base.contains(&name) {
                return Err(LoadError::MissingTensor(name));
            }
        }
        Ok(Self { base, adapter })
    }
}

impl WeightSource for Merged<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut weight = self.base.tensor(name, shape)?;
        if let Some((layer, target)) = Target::of_weight(name)
            && let Some(pair) = self.adapter.pair(layer, target)
        {
            check_shape(name, shape, pair)?;
            merge(&mut weight, pair, self.adapter.config().scale());
        }
        Ok(weight)
    }

    fn contains(&self, name: &str) -> bool {
        self.base.contains(name)
    }
}

fn check_shape(name: &str, shape: &[usize], pair: &LoraPair) -> Result<(), LoadError> {
    let ([n_in, _], [_, n_out]) = (pair.a.dims(), pair.b.dims());
    if shape == [n_out, n_in] {
        return Ok(());
    }
    Err(LoadError::WrongShape {
        name: name.to_owned(),
        expected: vec![n_out, n_in],
        found: shape.to_vec(),
    })
}

/// What the adapter makes of one matrix: `W + scale · (A·B)ᵀ`, each row with the length that the adapter has learned for it,
/// if it has.
///
/// # Shapes
/// `weight`: `[out, in]`, in place.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the forward pass scales in f32 too"
)]
fn merge(weight: &mut [f32], pair: &LoraPair, scale: f64) {
    let [n_in, _] = pair.a.dims();
    let [rank, n_out] = pair.b.dims();
    // A by columns: each is added to a row of W as it lies.
    let (a, b) = (values(&pair.a.clone().transpose()), values(&pair.b));
    let lengths = pair.magnitude.as_ref().map(values);
    weight
        .par_chunks_exact_mut(n_in)
        .enumerate()
        .for_each(|(row, weight)| {
            // Summed before it meets W, beside which each term is small.
            let mut update = vec![0.0; n_in];
            for (rank, a) in a.chunks_exact(n_in).enumerate().take(rank) {
                add_scaled(&mut update, a, b[rank * n_out + row]);
            }
            add_scaled(weight, &update, scale as f32);
            if let Some(lengths) = &lengths {
                let gain = lengths[row] / norm(weight);
                for value in weight.iter_mut() {
                    *value *= gain;
                }
            }
        });
}

fn add_scaled(sum: &mut [f32], terms: &[f32], factor: f32) {
    for (sum, term) in sum.iter_mut().zip(terms) {
        *sum += factor * term;
    }
}

/// The values row by row, of a tensor of any device, in a graph or not.
pub(crate) fn values(tensor: &Tensor<2>) -> Vec<f32> {
    let data = tensor.clone().inner().into_data();
    data.try_to_vec::<f32>().expect("adapters are f32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_matrices_are_read_back_and_no_others() {
        for target in Target::ALL {
            assert_eq!(
                Target::of_weight(&target.weight_name(12)),
                Some((12, target))
            );
        }
        for name in [
            "model.embed_tokens.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.mlp.q_proj.weight",
            "model.layers.x.mlp.up_proj.weight",
            "model.layers.0.input_layernorm.weight",
        ] {
            assert_eq!(Target::of_weight(name), None, "{name}");
        }
    }
}
