//! What a run changes, whichever it is: an adapter beside a base model that stays, or the model's own weights.

use std::path::Path;

use burn::tensor::Tensor;

use crate::adapter::{Adapter, files};
use crate::error::LoadError;
use crate::full::FullWeights;
use crate::transformer::CausalLm;

/// The file of a model's own weights, those that learned.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// The two files of an adapter, as PEFT names them.
pub const ADAPTER_FILES: [&str; 2] = [files::CONFIG_FILE, files::WEIGHTS_FILE];
/// What [`Learned::save`] may leave in a folder: an adapter's files, or that of the weights.
pub const FILES: [&str; 3] = [files::CONFIG_FILE, files::WEIGHTS_FILE, WEIGHTS_FILE];

/// What learns: named tensors in a fixed order. Cheap to clone: clones share the tensors.
#[derive(Debug, Clone)]
pub enum Learned {
    Adapter(Adapter),
    Full(FullWeights),
}

/// What a forward pass leaves for the backward pass. Losses and gradients are the same to the bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activations {
    /// All that it needs, of every layer.
    #[default]
    Kept,
    /// The input of each layer; the rest is computed again, a layer at a time (Chen et al. 2016): one more forward pass,
    /// and memory that hardly grows with depth.
    Recomputed,
}

impl Learned {
    /// All tensors with their names.
    pub fn named_tensors(&self) -> impl Iterator<Item = (String, &Tensor<2>)> {
        let (adapter, full) = match self {
            Self::Adapter(adapter) => (Some(adapter.named_tensors()), None),
            Self::Full(weights) => (None, Some(weights.named_tensors())),
        };
        let adapter = adapter.into_iter().flatten();
        adapter.chain(full.into_iter().flatten())
    }

    /// Replaces every tensor, in the order of [`Self::named_tensors`].
    #[must_use]
    pub fn map(self, f: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        match self {
            Self::Adapter(adapter) => Self::Adapter(adapter.map(f)),
            Self::Full(weights) => Self::Full(weights.map(f)),
        }
    }

    /// The same values as leaves whose gradients the backward pass keeps.
    #[must_use]
    pub fn require_grad(self) -> Self {
        self.map(|_, tensor| tensor.autodiff().detach().require_grad())
    }

    /// The same values, no longer part of any graph.
    #[must_use]
    pub fn inner(self) -> Self {
        self.map(|_, tensor| tensor.inner())
    }

    /// As many zeros.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        self.clone().map(|_, tensor| tensor.zeros_like())
    }

    /// The model to run, and the adapter to run it with.
    pub fn on(&self, base: &CausalLm) -> (CausalLm, Option<&Adapter>) {
        match self {
            Self::Adapter(adapter) => (base.clone(), Some(adapter)),
            Self::Full(weights) => (base.with_weights(weights), None),
        }
    }

    /// Writes it into the folder `dir`: an adapter as PEFT keeps it, or the weights that learned.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path, base_name: &str) -> Result<(), LoadError> {
        match self {
            Self::Adapter(adapter) => adapter.save(dir, base_name),
            Self::Full(weights) => {
                std::fs::create_dir_all(dir).map_err(LoadError::io(dir))?;
                weights.save(&dir.join(WEIGHTS_FILE))
            }
        }
    }

    /// Reads what [`Self::save`] wrote about `model`; what it is, its files say.
    ///
    /// # Errors
    /// When files are missing, corrupt or lie about their contents, or are about a model of other dimensions.
    pub fn load(dir: &Path, model: &CausalLm) -> Result<Self, LoadError> {
        let weights = dir.join(WEIGHTS_FILE);
        if weights.exists() {
            FullWeights::load(&weights, model).map(Self::Full)
        } else {
            Adapter::load(dir, model.config(), model.device()).map(Self::Adapter)
        }
    }

    /// Whether the embedding is among what learns.
    pub(crate) fn has_embedding(&self) -> bool {
        matches!(self, Self::Full(weights) if weights.train_embeddings())
    }
}
