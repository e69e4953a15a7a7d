//! The backward pass's place in the graph.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{LoraPlan, LoraState, Source};
use crate::ops::{Frozen, FusedGradients, FusedOps};

#[derive(Debug)]
struct Differentiated;

impl<B: FusedGradients> Backward<B, 3> for Differentiated {
    type State = LoraState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [source, a, b] = ops.parents;
        let gradient = gradients.consume::<B>(&ops.node);
        // Nothing below the first adapter learns, so nothing there is asked for.
        let (d_source, d_a, d_b) = B::lora_linear_backward(ops.state, gradient, source.is_some());
        for (parent, gradient) in [(source, d_source), (a, Some(d_a)), (b, Some(d_b))] {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

pub(in crate::ops) fn differentiated<B: FusedOps + FusedGradients, C: CheckpointStrategy>(
    source: Source<FloatTensor<Autodiff<B, C>>>,
    weight: Frozen<Autodiff<B, C>>,
    a: FloatTensor<Autodiff<B, C>>,
    b: FloatTensor<Autodiff<B, C>>,
    plan: Arc<LoraPlan>,
) -> FloatTensor<Autodiff<B, C>> {
    let weight = weight.inner();
    let (source, source_node) = match source {
        Source::Given(x) => {
            let (x, node) = x.into_parts();
            (Source::Given(x), node)
        }
        Source::Normed { x, weight, epsilon } => {
            let (x, node) = x.into_parts();
            let weight = weight.into_primitive();
            (Source::Normed { x, weight, epsilon }, node)
        }
        Source::Gated(gate_up) => {
            let (gate_up, node) = gate_up.into_parts();
            (Source::Gated(gate_up), node)
        }
    };
    let (a, a_node) = a.into_parts();
    let (b, b_node) = b.into_parts();
    let (y, u) = B::lora_linear_forward(&source, &weight, &a, &b, &plan);
    match Differentiated
        .prepare::<C>([source_node, a_node, b_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(op) => {
            let state = LoraState {
                source: B::lora_linear_kept(source, &weight),
                weight,
                a,
                b,
                u,
                plan,
            };
            op.finish(state, y)
        }
        OpsKind::UnTracked(op) => op.finish(y),
    }
}
