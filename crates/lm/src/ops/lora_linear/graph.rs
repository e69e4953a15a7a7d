//! The backward pass's place in the graph.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};

use super::kernel::{backward, forward};
use super::{LoraPlan, LoraState, Source};
use crate::ops::WeightOn;
use crate::ops::graph::OnGraph;

#[derive(Debug)]
struct Differentiated;

impl Backward<Flex, 3> for Differentiated {
    type State = LoraState;

    fn backward(
        self,
        ops: Ops<LoraState, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [source, a, b] = ops.parents;
        let gradient = gradients.consume::<Flex>(&ops.node);
        // Nothing below the first adapter learns, so nothing there is asked for.
        let (d_source, d_a, d_b) = backward(&ops.state, &gradient, source.is_some());
        for (parent, gradient) in [(source, d_source), (a, Some(d_a)), (b, Some(d_b))] {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Over a matrix that does not learn.
pub(in crate::ops) fn differentiated<C: CheckpointStrategy>(
    source: Source<Autodiff<Flex, C>>,
    weight: WeightOn<Autodiff<Flex, C>>,
    [a, b]: [OnGraph; 2],
    plan: Arc<LoraPlan>,
) -> OnGraph {
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
    let (y, u) = forward(&source, &weight, &a, &b, &plan);
    match Differentiated
        .prepare::<C>([source_node, a_node, b_node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(op) => {
            let state = LoraState {
                source: source.kept(&weight),
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
