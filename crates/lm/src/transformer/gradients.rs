//! One forward and one backward pass, with what lies between them kept or computed again.

use burn::tensor::{Gradients, Tensor};

use super::{CausalLm, Plans};
use crate::adapter::Adapter;
use crate::batch::Ragged;
use crate::device::is_cpu;
use crate::learned::{Activations, Learned};
use crate::lora::Dropout;
use crate::memory;

impl CausalLm {
    /// The gradients of what `objective` makes of a batch's hidden states, in the order of
    /// [`Learned::named_tensors`], and whatever else it returns.
    ///
    /// `objective` is called once, with the model that computes with `learned` and the states as [`Self::hidden`] gives
    /// them, both recording a graph. The loss it returns must be on that graph.
    ///
    /// # Panics
    /// As [`Self::hidden`].
    pub fn gradients<T>(
        &self,
        learned: &Learned,
        input: &Ragged,
        dropout: Option<&Dropout>,
        activations: Activations,
        objective: impl FnOnce(&Self, Tensor<2>) -> (Tensor<1>, T),
    ) -> (T, Vec<Tensor<2>>) {
        if is_cpu(self.device.as_burn()) {
            memory::keep_freed();
        }
        let leaves = learned.clone().require_grad();
        let base = self.autodiff();
        let (model, adapter) = leaves.on(&base);
        let mut sums = Sums::new(&leaves);
        let other = match activations {
            Activations::Kept => {
                let (loss, other) = objective(&model, model.hidden(input, adapter, dropout));
                sums.add(&loss.backward());
                other
            }
            Activations::Recomputed => {
                let mut layers = Layers {
                    plans: Plans::new(&base, input),
                    dropout,
                };
                let inputs = layers.inputs(&base, learned, &input.ids);
                layers.gradients(&model, adapter, inputs, &input.ids, &mut sums, objective)
            }
        };
        (other, sums.gradients())
    }
}

/// Runs single layers on one batch.
///
/// A layer's gradients for a gradient d of its result are those of the sum of `result · d`, d being a constant: one
/// product with 1, and so the same to the bit as those that the whole graph would have brought.
struct Layers<'a> {
    plans: Plans,
    dropout: Option<&'a Dropout>,
}

impl Layers<'_> {
    /// What each layer reads, and last what the final norm reads.
    fn inputs(&mut self, base: &CausalLm, learned: &Learned, ids: &[u32]) -> Vec<Tensor<2>> {
        // On the device that records a graph, which may compute in another order than the one that does not; as nothing is
        // a leaf, none is recorded.
        let still = learned.clone().map(|_, tensor| tensor.inner().autodiff());
        let (model, adapter) = still.on(base);
        let mut inputs = vec![model.embed(ids)];
        for layer in 0..model.layers.len() {
            let x = inputs[layer].clone();
            inputs.push(self.run(&model, adapter, layer, x));
        }
        inputs
    }

    /// Adds all gradients to `sums`, from the loss down.
    fn gradients<T>(
        &mut self,
        model: &CausalLm,
        adapter: Option<&Adapter>,
        mut inputs: Vec<Tensor<2>>,
        ids: &[u32],
        sums: &mut Sums<'_>,
        objective: impl FnOnce(&CausalLm, Tensor<2>) -> (Tensor<1>, T),
    ) -> T {
        let has_embedding = sums.leaves.has_embedding();
        let mut next = || inputs.pop().expect("each layer has an input");
        let last = next().require_grad();
        let (loss, other) = objective(model, model.norm.forward(last.clone()));
        let mut d_x = sums.add_through(&loss, Some(&last));
        drop((loss, last));
        for layer in (0..model.layers.len()).rev() {
            let (x, wanted) = (next(), layer > 0 || has_embedding);
            let Some(d_y) = d_x.take() else { break };
            let x = if wanted { x.require_grad() } else { x };
            let y = self.run(model, adapter, layer, x.clone());
            d_x = sums.add_through(&weighed(y, d_y), wanted.then_some(&x));
        }
        if let Some(d_x) = d_x.filter(|_| has_embedding) {
            sums.add_through(&weighed(model.embed(ids), d_x), None);
        }
        other
    }

    fn run(
        &mut self,
        model: &CausalLm,
        adapter: Option<&Adapter>,
        layer: usize,
        x: Tensor<2>,
    ) -> Tensor<2> {
        let plans = &mut self.plans;
        model.run_layer(layer, x, adapter, self.dropout, |attention, qkv| {
            plans.attend(attention, qkv)
        })
    }
}

/// A number whose gradient with respect to `y` is `d_y`.
fn weighed(y: Tensor<2>, d_y: Tensor<2>) -> Tensor<1> {
    (y * d_y.autodiff()).sum()
}

/// The gradients so far, in the order of [`Learned::named_tensors`].
struct Sums<'a> {
    leaves: &'a Learned,
    gradients: Vec<Option<Tensor<2>>>,
}

impl<'a> Sums<'a> {
    fn new(leaves: &'a Learned) -> Self {
        Self {
            leaves,
            gradients: leaves.named_tensors().map(|_| None).collect(),
        }
    }

    fn add(&mut self, graph: &Gradients) {
        let leaves = self.leaves.named_tensors();
        for ((_, leaf), sum) in leaves.zip(&mut self.gradients) {
            if let Some(gradient) = leaf.grad(graph) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
    }

    /// Differentiates `loss` and returns the gradient of `input`.
    fn add_through(&mut self, loss: &Tensor<1>, input: Option<&Tensor<2>>) -> Option<Tensor<2>> {
        let graph = loss.backward();
        self.add(&graph);
        input?.grad(&graph)
    }

    /// Zeros where the loss does not depend on a tensor.
    fn gradients(self) -> Vec<Tensor<2>> {
        let leaves = self.leaves.named_tensors();
        let gradients = leaves.zip(self.gradients).map(|((_, leaf), gradient)| {
            gradient.unwrap_or_else(|| leaf.clone().inner().zeros_like())
        });
        gradients.collect()
    }
}
