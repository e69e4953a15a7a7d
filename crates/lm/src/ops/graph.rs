//! How an operation with a hand-written backward pass takes its place in the graph.

use std::fmt;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// From what the forward pass kept and the gradient of its result to the gradient of its input.
type BackwardPass<B, S> = fn(S, FloatTensor<B>) -> FloatTensor<B>;

/// An operation with one input that has a gradient.
struct Unary<B: Backend, S>(BackwardPass<B, S>);

impl<B: Backend, S> fmt::Debug for Unary<B, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unary")
    }
}

impl<B: Backend, S: Clone + Send + fmt::Debug + 'static> Backward<B, 1> for Unary<B, S> {
    type State = S;

    fn backward(self, ops: Ops<S, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            gradients.register::<B>(parent.id, self.0(ops.state, gradient));
        }
    }
}

/// Records an operation with one input. `forward` is told whether the input has a gradient, and gives the result and, if
/// so, what `backward` needs.
pub(super) fn unary<B: Backend, C: CheckpointStrategy, S: Clone + Send + fmt::Debug + 'static>(
    input: FloatTensor<Autodiff<B, C>>,
    forward: impl FnOnce(FloatTensor<B>, Tracked) -> (FloatTensor<B>, Option<S>),
    backward: BackwardPass<B, S>,
) -> FloatTensor<Autodiff<B, C>> {
    let (input, node) = input.into_parts();
    let prepared = Unary(backward).prepare::<C>([node]).compute_bound();
    match prepared.stateful() {
        OpsKind::Tracked(op) => {
            let (out, state) = forward(input, Tracked(true));
            op.finish(state.expect("a tracked operation keeps its state"), out)
        }
        OpsKind::UnTracked(op) => op.finish(forward(input, Tracked(false)).0),
    }
}

/// Whether anybody will ask for the gradient.
#[derive(Clone, Copy)]
pub(super) struct Tracked(bool);

impl Tracked {
    /// What the backward pass needs, if there will be one.
    pub(super) fn keep<S>(self, state: impl FnOnce() -> S) -> Option<S> {
        self.0.then(state)
    }
}
