//! Generation: one sequence that grows, with the keys and values of its past kept.

use burn::tensor::Tensor;

use crate::adapter::Adapter;
use crate::attention::{Attention, MaskCache, Turned, attend_heads};
use crate::rope::{RopeTables, Rotation};
use crate::transformer::CausalLm;

/// Tokens run through the model at once: bounds the scores that a long prompt needs.
const CHUNK_TOKENS: usize = 512;
/// Room that a cache starts with; it doubles when full, so feeding n tokens copies O(n).
const FIRST_CAPACITY: usize = 256;

/// The sequence cannot go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    #[error("{wanted} tokens exceed the model's context of {limit}")]
    ContextFull { wanted: usize, limit: usize },
    #[error("token id {0} is outside the model's vocabulary")]
    UnknownToken(u32),
    #[error("nothing was fed")]
    Empty,
}

/// One sequence and what attention remembers of it.
#[derive(Debug)]
pub struct Session {
    model: CausalLm,
    /// By layer.
    caches: Vec<KeyValueCache>,
    n_tokens: usize,
    limit: usize,
}

impl Session {
    pub(crate) fn new(model: CausalLm) -> Self {
        let config = model.config();
        let (n_layers, limit) = (config.n_layers, config.max_position_embeddings);
        let caches = std::iter::repeat_with(KeyValueCache::default)
            .take(n_layers)
            .collect();
        Self {
            model,
            caches,
            n_tokens: 0,
            limit,
        }
    }

    /// The same session, refusing to grow beyond `limit` tokens; the model's own limit stays.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// Tokens fed so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Appends `ids` and returns the scores of every token of the vocabulary to come next.
    ///
    /// The cache holds what `adapter` made of the past, so a session keeps to one adapter.
    ///
    /// # Errors
    /// When there is nothing to append, an id is unknown, or the context would overflow; the
    /// session is then as it was.
    pub fn feed(
        &mut self,
        ids: &[u32],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, SessionError> {
        self.check(ids)?;
        let mut last = None;
        for chunk in ids.chunks(CHUNK_TOKENS) {
            last = Some(self.run(chunk, adapter));
        }
        let hidden = last.ok_or(SessionError::Empty)?;
        let logits = self.model.logits(hidden).into_data();
        Ok(logits.try_to_vec::<f32>().expect("logits are f32"))
    }

    fn check(&self, ids: &[u32]) -> Result<(), SessionError> {
        if ids.is_empty() {
            return Err(SessionError::Empty);
        }
        let wanted = self.n_tokens.saturating_add(ids.len());
        if wanted > self.limit {
            return Err(SessionError::ContextFull {
                wanted,
                limit: self.limit,
            });
        }
        let vocab_size = self.model.config().vocab_size;
        match ids.iter().find(|id| **id as usize >= vocab_size) {
            Some(id) => Err(SessionError::UnknownToken(*id)),
            None => Ok(()),
        }
    }

    /// The hidden state of the last of `ids`. `[1, d_model]`
    fn run(&mut self, ids: &[u32], adapter: Option<&Adapter>) -> Tensor<2> {
        let end = self.n_tokens + ids.len();
        let rotation = Rotation::new(self.model.frequencies(), self.n_tokens..end);
        let rope = RopeTables::new(&rotation, self.model.device());
        let mut masks = MaskCache::new(self.model.device());
        let caches = &mut self.caches;
        let hidden = self
            .model
            .run_layers(ids, adapter, None, |layer, attention, qkv| {
                let turned = attention.heads.turned(&qkv, &rope);
                caches[layer].attend(attention, turned, &mut masks)
            });
        self.n_tokens = end;
        hidden.narrow(0, ids.len() - 1, 1)
    }
}

/// One layer's keys and values, in tensors with room to grow.
#[derive(Debug, Default)]
struct KeyValueCache {
    /// `[1, kv_heads, capacity, head_dim]`
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
    len: usize,
}

impl KeyValueCache {
    /// Appends the new tokens' keys and values, then lets their queries see all.
    ///
    /// # Shapes
    /// Returns `[n_tokens, heads · head_dim]`.
    fn attend(
        &mut self,
        attention: &Attention,
        turned: Turned,
        masks: &mut MaskCache,
    ) -> Tensor<2> {
        let Turned {
            q_nhe,
            k_nge,
            v_nge,
        } = turned;
        let n_new = q_nhe.dims()[0];
        let start = self.len;
        self.len += n_new;
        let keys = append(self.keys.take(), start, k_nge);
        let values = append(self.values.take(), start, v_nge);
        let mask = masks.get(
            n_new,
            self.len,
            attention.sliding_window,
            attention.heads.group,
        );
        let out = attend_heads(
            attention.heads.grouped_queries(q_nhe, 1),
            keys.clone().narrow(2, 0, self.len),
            values.clone().narrow(2, 0, self.len),
            mask,
        );
        self.keys = Some(keys);
        self.values = Some(values);
        attention.heads.ungroup(out, 1, n_new)
    }
}

/// Writes `new` behind the first `start` tokens of `cache`: in place, for no one else holds it.
///
/// # Shapes
/// `cache`: `[1, kv_heads, capacity, head_dim]`, `new`: `[n_tokens, kv_heads, head_dim]`.
fn append(cache: Option<Tensor<4>>, start: usize, new: Tensor<3>) -> Tensor<4> {
    let [n_new, n_heads, head_dim] = new.dims();
    let end = start + n_new;
    let like = (&new.device(), new.dtype());
    let new = new.swap_dims(0, 1).unsqueeze::<4>();
    let room = |capacity| Tensor::<4>::zeros([1, n_heads, capacity, head_dim], like);
    let cache = match cache {
        None => room(end.next_power_of_two().max(FIRST_CAPACITY)),
        Some(cache) if cache.dims()[2] >= end => cache,
        Some(cache) => {
            let more = end.next_power_of_two() - cache.dims()[2];
            Tensor::cat(vec![cache, room(more)], 2)
        }
    };
    cache.slice_assign([0..1, 0..n_heads, start..end, 0..head_dim], new)
}
