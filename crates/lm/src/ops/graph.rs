//! How an operation with a hand-written backward pass takes its place in the graph.

use std::fmt;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex};

/// A tensor of the CPU whose operations are recorded.
pub(super) type OnGraph = FloatTensor<Autodiff<Flex>>;

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

/// From what the forward pass kept, the gradient of its result and whose gradient is wanted to the gradients that are.
type BinaryBackwardPass<B, S> = fn(S, FloatTensor<B>, [bool; 2]) -> [Option<FloatTensor<B>>; 2];

/// An operation with two inputs that may have a gradient.
struct Binary<B: Backend, S>(BinaryBackwardPass<B, S>);

impl<B: Backend, S> fmt::Debug for Binary<B, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Binary")
    }
}

impl<B: Backend, S: Clone + Send + fmt::Debug + 'static> Backward<B, 2> for Binary<B, S> {
    type State = S;

    fn backward(self, ops: Ops<S, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.0(ops.state, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Records an operation with two inputs. `forward` gives the result and what `backward` needs.
pub(super) fn binary<B: Backend, C: CheckpointStrategy, S: Clone + Send + fmt::Debug + 'static>(
    [first, second]: [FloatTensor<Autodiff<B, C>>; 2],
    forward: impl FnOnce([FloatTensor<B>; 2]) -> (FloatTensor<B>, S),
    backward: BinaryBackwardPass<B, S>,
) -> FloatTensor<Autodiff<B, C>> {
    let ((first, first_node), (second, second_node)) = (first.into_parts(), second.into_parts());
    let prepared = Binary(backward)
        .prepare::<C>([first_node, second_node])
        .compute_bound();
    let (out, state) = forward([first, second]);
    match prepared.stateful() {
        OpsKind::Tracked(op) => op.finish(state, out),
        OpsKind::UnTracked(op) => op.finish(out),
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
