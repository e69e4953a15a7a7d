//! Causal self-attention with grouped key/value heads.
//!
//! Legend: c segments of one length in a run, s their length, g key/value heads, r query heads per
//! key/value head, e = head_dim, t key positions, n tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use burn::tensor::{TensorData, activation};

use crate::batch::{positions, ranges, runs};
use crate::columns::join;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::linear::Linear;
use crate::lora::LayerLora;
use crate::norm::RmsNorm;
use crate::ops::Input;
use crate::precision::widened;
use crate::rope::{RopeTables, Rotation};

/// The attention block of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Queries, keys and values side by side.
    pub(crate) qkv: Linear,
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

    pub(crate) fn n_heads(self) -> usize {
        self.n_kv * self.group
    }

    /// Columns of q, k and v together.
    pub(crate) fn width(self) -> usize {
        (self.n_heads() + 2 * self.n_kv) * self.head_dim
    }

    /// Where the heads that share a key/value head begin.
    pub(crate) fn columns(self, kv_head: usize) -> HeadColumns {
        let (n_heads, e) = (self.n_heads(), self.head_dim);
        HeadColumns {
            q: kv_head * self.group * e,
            k: (n_heads + kv_head) * e,
            v: (n_heads + self.n_kv + kv_head) * e,
        }
    }

    /// Queries, keys and values apart.
    ///
    /// # Shapes
    /// `qkv`: `[n, (g·r + 2g)·e]`; returns `[n, g·r, e]` and twice `[n, g, e]`.
    pub(crate) fn split(self, qkv: &Tensor<2>) -> [Tensor<3>; 3] {
        let [n_tokens, _] = qkv.dims();
        let columns = self.columns(0);
        [
            (columns.q, self.n_heads()),
            (columns.k, self.n_kv),
            (columns.v, self.n_kv),
        ]
        .map(|(first, n_heads)| {
            let part = qkv.clone().narrow(1, first, n_heads * self.head_dim);
            part.reshape([n_tokens, n_heads, self.head_dim])
        })
    }
}

/// First columns of a key/value head and of the first query head that shares it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadColumns {
    pub(crate) q: usize,
    pub(crate) k: usize,
    pub(crate) v: usize,
}

impl Attention {
    /// Queries, keys and values of the tokens, before rotation.
    ///
    /// # Shapes
    /// `input`: `[n, d_model]`; returns `[n, (g·r + 2g)·e]`.
    pub(crate) fn project(&self, input: Input, lora: LayerLora<'_>) -> Tensor<2> {
        let qkv = self.qkv.forward(input, lora);
        let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) else {
            return qkv;
        };
        let [n_tokens, _] = qkv.dims();
        let [q, k, v] = self.heads.split(&qkv);
        let joined = [(q, Some(q_norm)), (k, Some(k_norm)), (v, None)].map(|(part, norm)| {
            let [_, n_heads, head_dim] = part.dims();
            let heads = part.reshape([n_tokens * n_heads, head_dim]);
            let heads = match norm {
                Some(norm) => norm.forward(heads),
                None => heads,
            };
            heads.reshape([n_tokens, n_heads * head_dim])
        });
        Tensor::cat(joined.into(), 1)
    }

    pub(crate) fn autodiff(&self) -> Self {
        Self {
            qkv: self.qkv.autodiff(),
            o: self.o.autodiff(),
            q_norm: self.q_norm.as_ref().map(RmsNorm::autodiff),
            k_norm: self.k_norm.as_ref().map(RmsNorm::autodiff),
            heads: self.heads,
            sliding_window: self.sliding_window,
        }
    }
}

/// What attention inside the segments of a batch needs to know besides its tensors.
pub(crate) struct RaggedAttention {
    heads: Heads,
    window: Option<usize>,
    segments: Arc<[usize]>,
    rotation: Rotation,
    frequencies: Arc<[f32]>,
    device: Device,
    /// For devices without a kernel, made when first needed.
    tables: Mutex<Option<(RopeTables, MaskCache)>>,
}

impl fmt::Debug for RaggedAttention {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RaggedAttention")
            .field("heads", &self.heads)
            .field("window", &self.window)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

impl RaggedAttention {
    /// Attention in sequences of these lengths, one behind the other, each from position 0.
    pub(crate) fn new(
        heads: Heads,
        window: Option<usize>,
        segments: &Arc<[usize]>,
        frequencies: &Arc<[f32]>,
        device: &Device,
    ) -> Self {
        let longest = segments.iter().copied().max().unwrap_or(0);
        Self {
            heads,
            window,
            segments: segments.clone(),
            rotation: Rotation::new(frequencies, 0..longest),
            frequencies: frequencies.clone(),
            device: device.clone(),
            tables: Mutex::new(None),
        }
    }

    pub(crate) fn heads(&self) -> Heads {
        self.heads
    }

    /// How many tokens back a token sees, itself included; `None` for all.
    pub(crate) fn window(&self) -> Option<usize> {
        self.window
    }

    /// By position.
    pub(crate) fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// First token and length of each segment.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        ranges(&self.segments).map(|range| (range.start, range.len()))
    }

    /// The attention as a composition of tensor operations.
    ///
    /// # Shapes
    /// `qkv`: `[n, (g·r + 2g)·e]`; returns `[n, g·r·e]`.
    pub(crate) fn plain(&self, qkv: &Tensor<2>) -> Tensor<2> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let (rope, masks) = tables.get_or_insert_with(|| {
            let rotation = Rotation::new(&self.frequencies, positions(&self.segments));
            let rope = RopeTables::new(&rotation, &self.device);
            (rope, MaskCache::new(&self.device))
        });
        let Turned {
            q_nhe,
            k_nge,
            v_nge,
        } = self.heads.turned(qkv, rope);
        let attended = runs(&self.segments)
            .iter()
            .map(|run| {
                let n_tokens = run.count * run.len;
                let mask = masks.get(run.len, run.len, self.window, self.heads.group);
                let cut = |tensor: &Tensor<3>| tensor.clone().narrow(0, run.start, n_tokens);
                self.heads
                    .attend(cut(&q_nhe), cut(&k_nge), cut(&v_nge), run.count, mask)
            })
            .collect();
        join(attended, 0)
    }
}

/// Queries, keys and values of the tokens of one forward pass, heads apart, turned by position.
pub(crate) struct Turned {
    /// `[n_tokens, heads, head_dim]`, already divided by the root of `head_dim`.
    pub(crate) q_nhe: Tensor<3>,
    pub(crate) k_nge: Tensor<3>,
    pub(crate) v_nge: Tensor<3>,
}

impl Heads {
    /// # Shapes
    /// `qkv`: `[n, (g·r + 2g)·e]`, its tokens at the positions of `rope`.
    pub(crate) fn turned(self, qkv: &Tensor<2>, rope: &RopeTables) -> Turned {
        let [q, k, v_nge] = self.split(qkv);
        // Scaling the queries touches far fewer numbers than scaling the scores.
        #[expect(clippy::cast_precision_loss, reason = "head_dim is at most 1024")]
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        Turned {
            q_nhe: widened(q, |q| rope.apply(q.mul_scalar(scale))),
            k_nge: widened(k, |k| rope.apply(k)),
            v_nge,
        }
    }

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
    let shares = widened(scores, |scores| {
        let scores = match mask {
            Some(mask) => scores + mask,
            None => scores,
        };
        activation::softmax(scores, 3)
    });
    shares.matmul(v)
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
