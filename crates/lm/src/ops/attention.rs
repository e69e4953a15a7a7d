//! Rotary position embedding and causal attention of grouped heads, inside each segment of a ragged batch.
//!
//! Scores exist for a block of queries at a time and are made again in the backward pass, as in FlashAttention
//! (Dao et al. 2022), so memory grows with the tokens and not with their square.
//!
//! Legend: n tokens of all segments, s of one, e = head_dim, g key/value heads, h query heads.

mod kernel;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, Flex};
use burn::tensor::Tensor;

use super::FusedOps;
use super::composed::{Composed, is_plain};
use super::graph::{OnGraph, unary};
use crate::attention::RaggedAttention;

pub(super) use kernel::{backward, forward};

/// Attention of tokens whose queries, keys and values stand side by side, before rotation.
///
/// # Shapes
/// `qkv`: `[n, (h + 2g)·e]`; returns `[n, h·e]`.
pub(crate) fn attention(qkv: Tensor<2>, plan: &Arc<RaggedAttention>) -> Tensor<2> {
    if is_plain(&qkv) {
        return plan.plain(&qkv);
    }
    let plan = plan.clone();
    Tensor::from_dispatch(Dispatch::attention(qkv.into_dispatch(), plan))
}

pub(super) fn composed<B: Composed>(qkv: FloatTensor<B>, plan: &RaggedAttention) -> FloatTensor<B> {
    B::primitive(plan.plain(&B::tensor(qkv)))
}

pub(super) fn differentiated<C: CheckpointStrategy>(
    qkv: OnGraph,
    plan: Arc<RaggedAttention>,
) -> OnGraph {
    unary::<Flex, C, _>(
        qkv,
        |qkv, tracked| {
            let out = forward(&qkv, &plan);
            (out, tracked.keep(|| (qkv, plan)))
        },
        |(qkv, plan), gradient| backward(&qkv, &plan, &gradient),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{agree, random};
    use super::*;
    use crate::attention::Heads;
    use crate::device::Device;

    #[test]
    fn the_fused_operation_is_the_plain_one() {
        let frequencies: Arc<[f32]> = Arc::from([1.0, 0.3, 0.01, 0.002]);
        for (n_kv, group, segments, window) in [
            (1, 1, vec![1], None),
            (2, 3, vec![5, 5, 1, 70], None),
            (1, 2, vec![150, 0, 3], None),
            (2, 1, vec![131, 20], Some(7)),
            (1, 4, vec![200], Some(64)),
        ] {
            let heads = Heads {
                n_kv,
                group,
                head_dim: 8,
            };
            let segments: Arc<[usize]> = segments.into();
            let n = segments.iter().sum();
            let plan = |device: &Device| {
                Arc::new(RaggedAttention::new(
                    heads,
                    window,
                    &segments,
                    &frequencies,
                    device,
                ))
            };
            let plan = plan(&Device::cpu().autodiff());
            let width = (n_kv * group + 2 * n_kv) * 8;
            agree(
                [random::<2>("qkv", [n, width]).mul_scalar(2.0)],
                |[x]| attention(x, &plan),
                |[x]| plan.plain(&x),
            );
        }
    }
}
