//! Causal self-attention with grouped key/value heads, inside each segment of a ragged batch.
//!
//! Legend: c segments of one length in a run, s their length, g key/value heads, r query heads per
//! key/value head, e = head_dim, t key positions.

use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::{TensorData, activation};

use crate::batch::Run;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::linear::Linear;
use crate::lora::{LayerLora, Target};
use crate::norm::RmsNorm;
use crate::rope::RopeTables;

/// The attention block of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) q_norm: Option<RmsNorm>,
    pub(crate) k_norm: Option<RmsNorm>,
    pub(crate) heads: Heads,
    pub(crate) sliding_window: Option<usize>,
}

/// How the columns of q, k and v divide into heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Key/value heads.
    pub(crate) n_kv: usize,
    /// Query heads that share one key/value head.
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
}

impl Heads {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            n_kv: config.n_kv_heads,
            group: config.n_heads / config.n_kv_heads,
            head_dim: config.head_dim,
        }
    }

    fn n_heads(self) -> usize {
        self.n_kv * self.group
    }
}

/// Queries, keys and values of the tokens of one forward pass, heads apart, turned by position.
pub(crate) struct Projected {
    /// `[n_tokens, heads, head_dim]`, already divided by the root of `head_dim`.
    pub(crate) q_nhe: Tensor<3>,
    pub(crate) k_nge: Tensor<3>,
    pub(crate) v_nge: Tensor<3>,
}

impl Attention {
    /// `attend` computes the attention itself: inside a ragged batch, or over a cache.
    ///
    /// # Shapes
    /// `x`: `[n_tokens, d_model]`; returns the same, before the residual is added.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        rope: &RopeTables,
        lora: LayerLora<'_>,
        attend: impl FnOnce(&Self, Projected) -> Tensor<2>,
    ) -> Tensor<2> {
        let attended = attend(self, self.project(x, rope, lora));
        self.o.forward(attended, lora.slot(Target::O))
    }

    /// Attention inside each segment of a ragged batch.
    ///
    /// # Shapes
    /// Returns `[n_tokens, heads · head_dim]`.
    pub(crate) fn attend_runs(
        &self,
        projected: Projected,
        runs: &[Run],
        masks: &mut MaskCache,
    ) -> Tensor<2> {
        let Projected {
            q_nhe,
            k_nge,
            v_nge,
        } = projected;
        let attended = runs
            .iter()
            .map(|run| {
                let n_tokens = run.count * run.len;
                let mask = masks.get(run.len, run.len, self.sliding_window, self.heads.group);
                let cut = |tensor: &Tensor<3>| tensor.clone().narrow(0, run.start, n_tokens);
                self.heads
                    .attend(cut(&q_nhe), cut(&k_nge), cut(&v_nge), run.count, mask)
            })
            .collect();
        join(attended)
    }

    fn project(&self, x: Tensor<2>, rope: &RopeTables, lora: LayerLora<'_>) -> Projected {
        let Heads { n_kv, head_dim, .. } = self.heads;
        let [n_tokens, _] = x.dims();
        let heads = |x: Tensor<2>, n_heads| x.reshape([n_tokens, n_heads, head_dim]);
        let q = heads(
            self.q.forward(x.clone(), lora.slot(Target::Q)),
            self.heads.n_heads(),
        );
        let k = heads(self.k.forward(x.clone(), lora.slot(Target::K)), n_kv);
        let v_nge = heads(self.v.forward(x, lora.slot(Target::V)), n_kv);
        let normed = |norm: &Option<RmsNorm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        // Scaling the queries touches far fewer numbers than scaling the scores.
        #[expect(clippy::cast_precision_loss, reason = "head_dim is at most 1024")]
        let scale = 1.0 / (head_dim as f64).sqrt();
        Projected {
            q_nhe: rope.apply(normed(&self.q_norm, q).mul_scalar(scale)),
            k_nge: rope.apply(normed(&self.k_norm, k)),
            v_nge,
        }
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            q: self.q.autodiff(),
            k: self.k.autodiff(),
            v: self.v.autodiff(),
            o: self.o.autodiff(),
            q_norm: self.q_norm.as_ref().map(RmsNorm::autodiff),
            k_norm: self.k_norm.as_ref().map(RmsNorm::autodiff),
            heads: self.heads,
            sliding_window: self.sliding_window,
        }
    }
}

impl Heads {
    /// Attention of `count` segments of one length.
    ///
    /// # Shapes
    /// `q_nhe`, `k_nge`, `v_nge`: the segments' tokens; returns `[n_tokens, heads · head_dim]`.
    fn attend(
        self,
        q_nhe: Tensor<3>,
        k_nge: Tensor<3>,
        v_nge: Tensor<3>,
        count: usize,
        mask: Option<Tensor<4>>,
    ) -> Tensor<2> {
        let len = q_nhe.dims()[0] / count;
        let q_cgre = self.grouped_queries(q_nhe, count);
        let by_head = |tensor: Tensor<3>| {
            tensor
                .reshape([count, len, self.n_kv, self.head_dim])
                .swap_dims(1, 2)
        };
        let out = attend_heads(q_cgre, by_head(k_nge), by_head(v_nge), mask);
        self.ungroup(out, count, len)
    }

    /// The queries that share a key/value head, one below the other: grouped-query attention is
    /// then an ordinary batched product, and no key or value is repeated.
    ///
    /// # Shapes
    /// `[n_tokens, heads, head_dim]` to `[count, kv_heads, group · len, head_dim]`.
    pub(crate) fn grouped_queries(self, q_nhe: Tensor<3>, count: usize) -> Tensor<4> {
        let len = q_nhe.dims()[0] / count;
        let Self {
            n_kv,
            group,
            head_dim,
        } = self;
        q_nhe
            .reshape([count, len, n_kv, group, head_dim])
            .permute([0, 2, 3, 1, 4])
            .reshape([count, n_kv, group * len, head_dim])
    }

    /// The way back from [`Self::grouped_queries`], heads side by side.
    pub(crate) fn ungroup(self, out: Tensor<4>, count: usize, len: usize) -> Tensor<2> {
        let Self {
            n_kv,
            group,
            head_dim,
        } = self;
        out.reshape([count, n_kv, group, len, head_dim])
            .permute([0, 3, 1, 2, 4])
            .reshape([count * len, n_kv * group * head_dim])
    }
}

/// `softmax(q·kᵀ + mask)·v` for each segment and key/value head.
///
/// # Shapes
/// `q`: `[c, g, r·s, e]`, `k` and `v`: `[c, g, t, e]`, `mask`: `[1, 1, r·s, t]`.
pub(crate) fn attend_heads(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4>>,
) -> Tensor<4> {
    let scores = q.matmul(k.swap_dims(2, 3));
    let scores = match mask {
        Some(mask) => scores + mask,
        None => scores,
    };
    activation::softmax(scores, 3).matmul(v)
}

fn join(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        Tensor::cat(parts, 0)
    }
}

/// The masks of one forward pass: every layer needs the same few.
#[derive(Debug)]
pub(crate) struct MaskCache {
    device: Device,
    masks: HashMap<(usize, usize, Option<usize>), Tensor<4>>,
}

impl MaskCache {
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            masks: HashMap::new(),
        }
    }

    /// What is added to the scores of `n_queries` tokens, the last of `n_keys`: minus infinity
    /// where a key lies ahead, or `window` or more positions back. `None` when nothing is hidden.
    ///
    /// # Shapes
    /// `[1, 1, group · n_queries, n_keys]`
    pub(crate) fn get(
        &mut self,
        n_queries: usize,
        n_keys: usize,
        window: Option<usize>,
        group: usize,
    ) -> Option<Tensor<4>> {
        // A window that reaches back to the start hides nothing: share the plain mask.
        let window = window.filter(|window| *window < n_keys);
        if n_queries == 1 && window.is_none() {
            return None;
        }
        let device = &self.device;
        let mask = self
            .masks
            .entry((n_queries, n_keys, window))
            .or_insert_with(|| {
                let values = mask_values(n_queries, n_keys, window).repeat(group);
                let data = TensorData::new(values, [1, 1, group * n_queries, n_keys]);
                Tensor::from_data(data, device.as_burn())
            });
        Some(mask.clone())
    }
}

fn mask_values(n_queries: usize, n_keys: usize, window: Option<usize>) -> Vec<f32> {
    let first = n_keys - n_queries;
    (first..n_keys)
        .flat_map(|query| {
            (0..n_keys).map(move |key| {
                let seen = key <= query && window.is_none_or(|window| query - key < window);
                if seen { 0.0 } else { f32::NEG_INFINITY }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_sees_itself_and_its_window() {
        let seen = |queries, keys, window| {
            mask_values(queries, keys, window)
                .iter()
                .map(|value| *value == 0.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(2, 2, None), [true, false, true, true]);
        assert_eq!(seen(1, 3, Some(2)), [false, true, true]);
        assert_eq!(
            seen(3, 3, Some(1)),
            [true, false, false, false, true, false, false, false, true]
        );
    }
}
