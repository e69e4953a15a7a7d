//! The decoder: embedding, layers, final norm, head.
//!
//! Plain structs of tensors. The base is frozen and shared; what is trained is the adapter that
//! each call is given.

mod load;

use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::{Int, TensorData, activation};

use crate::adapter::Adapter;
use crate::attention::{Attention, MaskCache, Projected};
use crate::batch::Ragged;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::linear::{Linear, project};
use crate::lora::{Dropout, LayerLora, Target};
use crate::norm::RmsNorm;
use crate::rope::RopeTables;
use crate::session::Session;

/// A decoder-only language model. Cheap to clone: clones share the weights.
#[derive(Debug, Clone)]
pub struct CausalLm {
    config: Arc<ModelConfig>,
    device: Device,
    /// `[vocab, d_model]`
    embedding: Tensor<2>,
    layers: Arc<[Layer]>,
    norm: RmsNorm,
    /// `[vocab, d_model]`; the embedding itself when they are tied.
    head: Tensor<2>,
    inverse_frequencies: Arc<[f32]>,
}

/// One decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    attention_norm: RmsNorm,
    pub(crate) attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

/// SwiGLU: `down(silu(gate(x)) · up(x))`.
#[derive(Debug, Clone)]
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl CausalLm {
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same model, its tensors not copied, for a forward pass that is to be differentiated.
    /// No weight of the base is tracked: gradients reach the adapter's tensors only.
    #[must_use]
    pub fn autodiff(&self) -> Self {
        Self {
            config: self.config.clone(),
            device: self.device.autodiff(),
            embedding: self.embedding.clone().autodiff(),
            layers: self.layers.iter().map(Layer::autodiff).collect(),
            norm: self.norm.autodiff(),
            head: self.head.clone().autodiff(),
            inverse_frequencies: self.inverse_frequencies.clone(),
        }
    }

    /// The last hidden state of every token, after the final norm.
    ///
    /// # Shapes
    /// Returns `[n_tokens, d_model]`.
    ///
    /// # Panics
    /// When `input` is empty, its segments do not sum to its length, or an id is outside the
    /// vocabulary: callers check their data before it gets here.
    pub fn hidden(
        &self,
        input: &Ragged,
        adapter: Option<&Adapter>,
        dropout: Option<&Dropout>,
    ) -> Tensor<2> {
        let positions = input.positions();
        assert_eq!(
            positions.len(),
            input.n_tokens(),
            "segments must cover the batch"
        );
        let rope = RopeTables::new(
            &self.inverse_frequencies,
            positions.into_iter(),
            &self.device,
        );
        let runs = input.runs();
        let mut masks = MaskCache::new(&self.device);
        self.run_layers(
            &input.ids,
            &rope,
            adapter,
            dropout,
            |_, attention, projected| attention.attend_runs(projected, &runs, &mut masks),
        )
    }

    /// The scores of every token of the vocabulary.
    ///
    /// # Shapes
    /// `hidden`: `[n, d_model]`, any rows of [`Self::hidden`]'s result; returns `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        project(hidden, &self.head)
    }

    /// An empty conversation with this model.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    pub(crate) fn rope_tables(&self, positions: std::ops::Range<usize>) -> RopeTables {
        RopeTables::new(&self.inverse_frequencies, positions, &self.device)
    }

    /// All layers and the final norm; `attend` is told the layer's number.
    pub(crate) fn run_layers(
        &self,
        ids: &[u32],
        rope: &RopeTables,
        adapter: Option<&Adapter>,
        dropout: Option<&Dropout>,
        mut attend: impl FnMut(usize, &Attention, Projected) -> Tensor<2>,
    ) -> Tensor<2> {
        let mut x = self.embed(ids);
        for (index, layer) in self.layers.iter().enumerate() {
            let dropout = dropout.copied();
            let lora = LayerLora {
                adapter,
                dropout,
                layer: index,
                device: &self.device,
            };
            x = layer.forward(x, rope, lora, |attention, projected| {
                attend(index, attention, projected)
            });
        }
        self.norm.forward(x)
    }

    fn embed(&self, ids: &[u32]) -> Tensor<2> {
        assert!(!ids.is_empty(), "a forward pass needs at least one token");
        let in_vocabulary = |id: &u32| (*id as usize) < self.config.vocab_size;
        assert!(
            ids.iter().all(in_vocabulary),
            "token ids must be in the vocabulary"
        );
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let len = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [len]), self.device.as_burn());
        self.embedding.clone().select(0, ids)
    }
}

impl Layer {
    /// # Shapes
    /// `x`: `[n_tokens, d_model]` in and out.
    fn forward(
        &self,
        x: Tensor<2>,
        rope: &RopeTables,
        lora: LayerLora<'_>,
        attend: impl FnOnce(&Attention, Projected) -> Tensor<2>,
    ) -> Tensor<2> {
        let h = self.attention_norm.forward(x.clone());
        let x = self.attention.forward(h, rope, lora, attend) + x;
        let h = self.mlp_norm.forward(x.clone());
        self.mlp.forward(h, lora) + x
    }

    fn autodiff(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.autodiff(),
            attention: self.attention.autodiff(),
            mlp_norm: self.mlp_norm.autodiff(),
            mlp: Mlp {
                gate: self.mlp.gate.autodiff(),
                up: self.mlp.up.autodiff(),
                down: self.mlp.down.autodiff(),
            },
        }
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<2>, lora: LayerLora<'_>) -> Tensor<2> {
        let gate = self.gate.forward(x.clone(), lora.slot(Target::Gate));
        let up = self.up.forward(x, lora.slot(Target::Up));
        self.down
            .forward(activation::silu(gate) * up, lora.slot(Target::Down))
    }
}
