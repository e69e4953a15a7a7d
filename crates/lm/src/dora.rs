//! Weight-decomposed adaptation (Liu et al. 2024, "DoRA"): every row of `W + s·(A·B)ᵀ` is given a length of its own,
//! which is learned beside A and B.
//!
//! The rows' lengths as they are divide the ones that are learned; as in section 4.3 of the paper, and in PEFT, they
//! are constants to the backward pass. They come from the factors, so the sum is never composed:
//! `‖w + s·Ab‖² = ‖w‖² + 2s·(w·A)·b + s²·bᵀ(AᵀA)b` for a row w of W and its column b of B.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};

use crate::linear::{Linear, Part, project};
use crate::lora::{LoraPair, LoraSlot, Target};
use crate::transformer::CausalLm;
use crate::weight::Weight;

/// The squared length of every row of a weight, computed when it is first asked for. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowSquares(Arc<OnceLock<Tensor<2>>>);

impl RowSquares {
    /// # Shapes
    /// `weight`: `[out, in]`; returns `[1, out]`, on no graph, on `device`.
    fn of(&self, weight: &Weight, device: &Device) -> Tensor<2> {
        if let Some(squares) = self.0.get() {
            return squares.clone();
        }
        // Not under a lock: the work is spread over threads, any of which may be the next to ask.
        let norms = weight.row_norms();
        let data = TensorData::new(norms, [1, weight.dims()[0]]);
        let squares = Tensor::<2>::from_data(data, device).square();
        self.0.get_or_init(|| squares).clone()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The rows' lengths under one adapter, kept with it: a model that answers needs them for every token. An adapter that
/// learns is a new value in every step, and so begins without.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownNorms(Arc<Mutex<Option<(RowSquares, Tensor<2>)>>>);

impl KnownNorms {
    /// What is known of the weight that `squares` are of, or what `compute` says.
    fn get(&self, squares: &RowSquares, compute: impl FnOnce() -> Tensor<2>) -> Tensor<2> {
        if let Some((of, norms)) = self.lock().as_ref()
            && of.is(squares)
        {
            return norms.clone();
        }
        // None yet, or of a model that was loaded before this one.
        let norms = compute();
        *self.lock() = Some((squares.clone(), norms.clone()));
        norms
    }

    fn lock(&self) -> MutexGuard<'_, Option<(RowSquares, Tensor<2>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CausalLm {
    /// The length of each row of the matrix `target` of a layer.
    ///
    /// # Shapes
    /// `[1, out]`
    pub(crate) fn row_norms(&self, layer: usize, target: Target) -> Tensor<2> {
        let (linear, part) = self.linear(layer, target);
        root(linear.row_squares_of(part, self.device().inner().as_burn()))
    }
}

impl Linear {
    /// What the adapter multiplies the outputs of one part with; `None` when it learns no magnitudes.
    ///
    /// # Shapes
    /// `[1, columns of the part]`
    pub(crate) fn gain(&self, part: &Part, slot: &LoraSlot<'_>) -> Option<Tensor<2>> {
        let magnitude = slot.pair.magnitude.clone()?;
        let norms = slot.pair.norms.get(&self.row_squares, || {
            let squares = self.row_squares_of(part, &slot.pair.b.clone().inner().device());
            let added = added_squares(&self.rows(part), slot.pair, slot.scale);
            root(squares + added)
        });
        Some(magnitude / norms)
    }

    fn row_squares_of(&self, part: &Part, device: &Device) -> Tensor<2> {
        let squares = self.row_squares.of(&self.weight, device);
        squares.narrow(1, part.columns.start, part.columns.len())
    }
}

/// What the factors add to the squared length of each row of `weight`: exactly 0 while B is.
fn added_squares(weight: &Weight, pair: &LoraPair, scale: f64) -> Tensor<2> {
    let (a, b) = (pair.a.clone().inner(), pair.b.clone().inner());
    let a_t = a.clone().transpose();
    let weight_a = project(a_t.clone(), &weight.inner()); // [rank, out]
    let a_t_a_b = a_t.matmul(a).matmul(b.clone());
    let sum = weight_a.mul_scalar(2.0 * scale) + a_t_a_b.mul_scalar(scale * scale);
    (sum * b).sum_dim(0)
}

/// Rounding can bring the square of a row that nearly vanishes below 0, and a row of zeros is divided by its length.
fn root(squares: Tensor<2>) -> Tensor<2> {
    squares.clamp_min(f32::MIN_POSITIVE).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Adapter;
    use crate::base::BaseFiles;
    use crate::device::Device;
    use crate::lora::{Dropout, LayerLora, LoraConfig};
    use crate::ops::Input;
    use crate::ops::testing::{close, numbers, random};
    use crate::precision::Precision;
    use crate::testing::write_tiny_base;

    fn model() -> CausalLm {
        let dir = tempfile::tempdir().unwrap();
        write_tiny_base(dir.path(), 1);
        let base = BaseFiles::open(dir.path()).unwrap();
        base.load(&Device::cpu(), Precision::F32).unwrap()
    }

    /// With A, B and magnitudes that are far from where they begin.
    fn adapter(model: &CausalLm, target_modules: &[Target]) -> Adapter {
        let config = LoraConfig {
            rank: 3,
            alpha: 6.0,
            use_rslora: false,
            use_dora: true,
            dropout: 0.0,
            target_modules: target_modules.to_vec(),
        };
        Adapter::init(&config, model, 1).map(|name, tensor| {
            let moved = random(name, tensor.dims()).mul_scalar(0.3);
            tensor + moved
        })
    }

    /// The definition, part by part, with the matrix composed.
    fn plain(linear: &Linear, x: &Tensor<2>, lora: LayerLora<'_>) -> Tensor<2> {
        let parts = linear.parts.iter().map(|part| {
            let Weight::Dense(weight) = linear.rows(part) else {
                panic!("the model is not in blocks")
            };
            let y = x.clone().matmul(weight.clone().transpose());
            let Some(slot) = lora.slot(part.target) else {
                return y;
            };
            let LoraPair {
                a, b, magnitude, ..
            } = slot.pair.clone();
            let delta = a.matmul(b).mul_scalar(slot.scale);
            let composed = weight.clone() + delta.clone().transpose();
            let norms = composed.square().sum_dim(1).sqrt().transpose().detach();
            let gain = magnitude.unwrap() / norms;
            let thinned = slot.thinned(x.clone());
            let base = thinned.clone().matmul(weight.transpose());
            y + base * gain.clone().sub_scalar(1.0) + thinned.matmul(delta) * gain
        });
        Tensor::cat(parts.collect(), 1)
    }

    #[test]
    fn a_layer_and_its_gradients_are_those_of_the_composed_matrix() {
        use Target::{Down, Gate, K, Q, Up, V};
        let model = model();
        let device = model.device().autodiff();
        for (targets, rate) in [
            (&[Q, K, V, Down][..], 0.0),
            // The first part is not adapted, nor is the last.
            (&[K][..], 0.0),
            (&[Gate, Up, Down, Q][..], 0.25),
        ] {
            let adapter = adapter(&model, targets).require_grad();
            let dropout = Some(Dropout { rate, key: 5 });
            let lora = LayerLora {
                adapter: Some(&adapter),
                dropout,
                layer: 1,
                device: &device,
            };
            let (linear, _) = model.linear(1, targets[0]);
            let linear = linear.autodiff();
            let [n_out, n_in] = linear.weight.dims();
            let run = |y: &dyn Fn(Tensor<2>) -> Tensor<2>| {
                let x = random("x", [7, n_in]).autodiff().require_grad();
                let y = y(x.clone());
                let upstream = random("upstream", [7, n_out]).autodiff();
                let graph = (y.clone() * upstream).sum().backward();
                let learned = adapter.named_tensors().map(|(_, tensor)| tensor.clone());
                let gradients = std::iter::once(x).chain(learned);
                let gradients: Vec<_> = gradients
                    .filter_map(|tensor| tensor.grad(&graph).map(numbers))
                    .collect();
                (numbers(y.inner()), gradients)
            };
            let found = run(&|x| linear.forward(Input::given(x), lora));
            let expected = run(&|x| plain(&linear, &x, lora));
            close("the result", 2e-5, &found.0, &expected.0);
            let n_adapted = linear
                .parts
                .iter()
                .filter(|part| targets.contains(&part.target))
                .count();
            assert_eq!(found.1.len(), 1 + 3 * n_adapted);
            for (index, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
                close(&format!("gradient {index}"), 2e-5, found, expected);
            }
        }
    }

    #[test]
    fn norms_are_not_taken_from_another_model() {
        let (first, second) = (model(), model());
        let adapter = adapter(&first, &[Target::Q]);
        let norms = |model: &CausalLm, adapter: &Adapter| {
            let lora = LayerLora {
                adapter: Some(adapter),
                dropout: None,
                layer: 0,
                device: model.device(),
            };
            let (linear, part) = model.linear(0, Target::Q);
            let slot = lora.slot(Target::Q).unwrap();
            let _ = linear.gain(part, &slot);
            let known = slot.pair.norms.lock();
            known.as_ref().unwrap().0.is(&linear.row_squares)
        };
        assert!(norms(&first, &adapter));
        assert!(norms(&second, &adapter));
        assert!(norms(&first.autodiff(), &adapter.clone().require_grad()));
    }

    #[test]
    fn a_row_of_zeros_stays_one() {
        let squares = Tensor::<2>::zeros([1, 2], model().device().as_burn());
        let gain = root(squares.clone()) / root(squares);
        assert_eq!(numbers(gain), [1.0, 1.0]);
    }
}
