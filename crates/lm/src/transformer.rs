//! The decoder: embedding, layers, final norm, head.
//!
//! Plain structs of tensors. The base is frozen and shared; what is trained is the adapter that
//! each call is given, or a value of all weights that a model is made with.

mod gradients;
mod load;
mod matrix;
mod weights;

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use crate::adapter::Adapter;
use crate::attention::{Attention, RaggedAttention};
use crate::batch::Ragged;
use crate::config::ModelConfig;
use crate::device::Device;
use crate::linear::{Linear, Part, project};
use crate::lora::{Dropout, LayerLora, Target};
use crate::norm::RmsNorm;
use crate::ops::{Input, attention, cross_entropy, kl_divergence};
use crate::precision::{Precision, cast};
use crate::session::Session;
use crate::weight::Weight;

pub(crate) use load::EMBEDDING;

/// A decoder-only language model. Cheap to clone: clones share the weights.
#[derive(Debug, Clone)]
pub struct CausalLm {
    config: Arc<ModelConfig>,
    device: Device,
    precision: Precision,
    /// The numbers of all that flows from layer to layer.
    activations: DType,
    /// `[vocab, d_model]`
    embedding: Weight,
    layers: Arc<[Layer]>,
    norm: RmsNorm,
    /// `[vocab, d_model]`; the embedding itself when they are tied.
    head: Weight,
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
    /// Side by side.
    gate_up: Linear,
    down: Linear,
}

impl CausalLm {
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names the kernels that compute with this model. Two runs agree to the last bit only under the
    /// same ones, so a checkpoint carries this name.
    pub fn kernels(&self) -> String {
        self.device.kernels(self.precision)
    }

    /// Bytes that the matrices take, embedding and head included, whatever they are kept in.
    pub fn size_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|layer| {
            let (attention, mlp) = (&layer.attention, &layer.mlp);
            [&attention.qkv, &attention.o, &mlp.gate_up, &mlp.down]
        });
        let layers: usize = layers.map(|linear| linear.weight.size_bytes()).sum();
        let head = if self.config.tie_word_embeddings {
            0
        } else {
            self.head.size_bytes()
        };
        self.embedding.size_bytes() + layers + head
    }

    /// The same model, its tensors not copied, for a forward pass that is to be differentiated.
    /// No weight of the base is tracked: gradients reach the adapter's tensors only.
    #[must_use]
    pub fn autodiff(&self) -> Self {
        Self {
            config: self.config.clone(),
            device: self.device.autodiff(),
            precision: self.precision,
            activations: self.activations,
            embedding: self.embedding.autodiff(),
            layers: self.layers.iter().map(Layer::autodiff).collect(),
            norm: self.norm.autodiff(),
            head: self.head.autodiff(),
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
        let mut plans = Plans::new(self, input);
        self.run_layers(&input.ids, adapter, dropout, |_, layer, qkv| {
            plans.attend(layer, qkv)
        })
    }

    /// The scores of every token of the vocabulary.
    ///
    /// # Shapes
    /// `hidden`: `[n, d_model]`, any rows of [`Self::hidden`]'s result; returns `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        cast(project(hidden, &self.head), DType::F32)
    }

    /// How well each row of `hidden` predicts its target: the negative log-likelihood in nats, and
    /// 1 where no other token scores higher. Takes less memory than [`Self::logits`].
    ///
    /// # Shapes
    /// `hidden`: `[n, d_model]`, `targets`: n token ids; returns `[n, 2]`, of which the first column
    /// has a gradient.
    pub fn cross_entropy(&self, hidden: Tensor<2>, targets: &Arc<[u32]>) -> Tensor<2> {
        cross_entropy(hidden, &self.head, targets)
    }

    /// How far each row's prediction has moved from that of `reference`: `KL(reference ‖ hidden)` in nats.
    ///
    /// # Shapes
    /// `hidden`, `reference`: `[n, d_model]`; returns `[n, 1]`, whose gradient reaches `hidden` only.
    pub fn kl_divergence(&self, hidden: Tensor<2>, reference: Tensor<2>) -> Tensor<2> {
        let reference = reference.to_device(&hidden.device());
        kl_divergence(hidden, reference, &self.head)
    }

    /// An empty conversation with this model.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// How far each pair of a head's columns turns from one position to the next.
    pub(crate) fn frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// The matrix `target` of a layer: where it lies, and which part of that it is.
    pub(crate) fn linear(&self, layer: usize, target: Target) -> (&Linear, &Part) {
        let Layer { attention, mlp, .. } = &self.layers[layer];
        let linear = match target {
            Target::Q | Target::K | Target::V => &attention.qkv,
            Target::O => &attention.o,
            Target::Gate | Target::Up => &mlp.gate_up,
            Target::Down => &mlp.down,
        };
        let part = linear.parts.iter().find(|part| part.target == target);
        (linear, part.expect("each matrix lies in one layer"))
    }

    /// All layers and the final norm; `attend` is told the layer's number and gets queries, keys
    /// and values side by side, before rotation.
    pub(crate) fn run_layers(
        &self,
        ids: &[u32],
        adapter: Option<&Adapter>,
        dropout: Option<&Dropout>,
        mut attend: impl FnMut(usize, &Attention, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let mut x = self.embed(ids);
        for index in 0..self.layers.len() {
            x = self.run_layer(index, x, adapter, dropout, |attention, qkv| {
                attend(index, attention, qkv)
            });
        }
        self.norm.forward(x)
    }

    fn run_layer(
        &self,
        index: usize,
        x: Tensor<2>,
        adapter: Option<&Adapter>,
        dropout: Option<&Dropout>,
        attend: impl FnOnce(&Attention, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let lora = LayerLora {
            adapter,
            dropout: dropout.copied(),
            layer: index,
            device: &self.device,
        };
        self.layers[index].forward(x, lora, attend)
    }

    fn embed(&self, ids: &[u32]) -> Tensor<2> {
        assert!(!ids.is_empty(), "a forward pass needs at least one token");
        let in_vocabulary = |id: &u32| (*id as usize) < self.config.vocab_size;
        assert!(
            ids.iter().all(in_vocabulary),
            "token ids must be in the vocabulary"
        );
        cast(
            self.embedding.select(ids, self.device.as_burn()),
            self.activations,
        )
    }
}

/// How the layers attend inside the segments of one batch. They differ in their window at most.
struct Plans {
    segments: Arc<[usize]>,
    frequencies: Arc<[f32]>,
    device: Device,
    by_window: HashMap<Option<usize>, Arc<RaggedAttention>>,
}

impl Plans {
    fn new(model: &CausalLm, input: &Ragged) -> Self {
        assert_eq!(
            input.segments.iter().sum::<usize>(),
            input.n_tokens(),
            "segments must cover the batch"
        );
        Self {
            segments: input.segments.clone().into(),
            frequencies: model.inverse_frequencies.clone(),
            device: model.device.clone(),
            by_window: HashMap::new(),
        }
    }

    fn attend(&mut self, layer: &Attention, qkv: Tensor<2>) -> Tensor<2> {
        let (heads, window) = (layer.heads, layer.sliding_window);
        let plan = self.by_window.entry(window).or_insert_with(|| {
            let (segments, frequencies) = (&self.segments, &self.frequencies);
            let plan = RaggedAttention::new(heads, window, segments, frequencies, &self.device);
            Arc::new(plan)
        });
        attention(qkv, plan)
    }
}

impl Layer {
    /// # Shapes
    /// `x`: `[n_tokens, d_model]` in and out.
    fn forward(
        &self,
        x: Tensor<2>,
        lora: LayerLora<'_>,
        attend: impl FnOnce(&Attention, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let h = self.attention_norm.input(x.clone());
        let attended = attend(&self.attention, self.attention.project(h, lora));
        let x = self.attention.o.forward(Input::given(attended), lora) + x;
        let h = self.mlp_norm.input(x.clone());
        self.mlp.forward(h, lora) + x
    }

    fn autodiff(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.autodiff(),
            attention: self.attention.autodiff(),
            mlp_norm: self.mlp_norm.autodiff(),
            mlp: Mlp {
                gate_up: self.mlp.gate_up.autodiff(),
                down: self.mlp.down.autodiff(),
            },
        }
    }
}

impl Mlp {
    fn forward(&self, input: Input, lora: LayerLora<'_>) -> Tensor<2> {
        let gate_up = self.gate_up.forward(input, lora);
        self.down.forward(Input::gated(gate_up), lora)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BaseFiles;
    use crate::lora::{LoraConfig, Target};

    /// A model in bf16 on the CPU, whose activations are wide, and the same with narrow ones as on a GPU.
    fn wide_and_narrow() -> [CausalLm; 2] {
        let dir = tempfile::TempDir::new().unwrap();
        crate::testing::write_tiny_base(dir.path(), 5);
        let files = BaseFiles::open(dir.path()).unwrap();
        let wide = files.load(&Device::cpu(), Precision::Bf16).unwrap();
        let activations = DType::BF16;
        let narrow = CausalLm {
            activations,
            ..wide.clone()
        };
        [wide, narrow]
    }

    fn adapter(model: &CausalLm) -> Adapter {
        let config = LoraConfig {
            rank: 4,
            alpha: 8.0,
            use_rslora: false,
            use_dora: false,
            dropout: 0.0,
            target_modules: Target::ALL.to_vec(),
        };
        let adapter = Adapter::init(&config, model, 1);
        // A factor that is zero at first, as those that are not.
        adapter.map(|name, tensor| tensor + if name.contains("lora_B") { 0.02 } else { 0.0 })
    }

    /// The loss, and of every tensor of the adapter its gradient.
    fn step(model: &CausalLm, dropout: Option<&Dropout>) -> (f32, Vec<Tensor<2>>) {
        let adapter = adapter(model).require_grad();
        let batch = Ragged::from_rows([&[40, 41, 42, 43][..], &[50, 51, 52]]);
        let targets: Arc<[u32]> = (41..48).collect();
        let graph_model = model.autodiff();
        let hidden = graph_model.hidden(&batch, Some(&adapter), dropout);
        let losses = graph_model.cross_entropy(hidden, &targets);
        let loss = losses.narrow(1, 0, 1).sum();
        let graph = loss.clone().backward();
        let gradients = adapter.named_tensors();
        let gradients = gradients.map(|(_, tensor)| tensor.grad(&graph).unwrap());
        (loss.into_scalar::<f32>(), gradients.collect())
    }

    #[test]
    fn narrow_activations_change_losses_and_gradients_by_no_more_than_their_rounding() {
        let dropped = Dropout { rate: 0.1, key: 9 };
        for dropout in [None, Some(&dropped)] {
            let [(wide, expected), (narrow, found)] =
                wide_and_narrow().map(|model| step(&model, dropout));
            assert!(wide.to_bits() != narrow.to_bits(), "nothing was narrow");
            assert!((wide / narrow - 1.0).abs() < 1e-2, "{narrow}, not {wide}");
            for (found, expected) in found.into_iter().zip(expected) {
                assert_eq!(found.dtype(), DType::F32, "what trains is wide");
                let size = |tensor: Tensor<2>| tensor.square().sum().into_scalar::<f32>().sqrt();
                let error = size(found - expected.clone()) / size(expected);
                assert!(error < 0.05, "a gradient is off by {error}");
            }
        }
    }

    #[test]
    fn a_session_with_narrow_activations_gives_wide_scores() {
        let [wide, narrow] = wide_and_narrow().map(|model| {
            let mut session = model.session();
            session.feed(&[40, 41, 42], None).unwrap();
            session.feed(&[43], None).unwrap()
        });
        for (wide, narrow) in wide.iter().zip(&narrow) {
            assert!((wide - narrow).abs() < 0.1, "{narrow}, not {wide}");
        }
        assert_ne!(wide, narrow, "nothing was narrow");
    }
}
