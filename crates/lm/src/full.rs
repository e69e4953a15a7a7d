//! Full fine-tuning: a model's own weights as a value that learns, as an adapter is one.
//!
//! The matrices that read one input stay joined, as the model multiplies with them; files hold each under its own name.
//! What learns is f32. A copy in bf16 to compute with would halve what a step reads; there is none yet.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};

use crate::adapter::files::write_atomically;
use crate::error::LoadError;
use crate::safetensors_file::{SafetensorsSource, write_header};
use crate::transformer::{CausalLm, EMBEDDING};
use crate::weights::WeightSource;

/// The tensors that files hold a weight as, one behind the other: Hugging Face's names and shapes.
pub(crate) type Stored = Vec<(String, Vec<usize>)>;

/// A model's weights. Cheap to clone: clones share the tensors.
#[derive(Debug, Clone)]
pub struct FullWeights {
    weights: Vec<NamedWeight>,
    train_embeddings: bool,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct NamedWeight {
    name: String,
    stored: Stored,
    tensor: Tensor<2>,
}

impl NamedWeight {
    pub(crate) fn new(stored: Stored, tensor: Tensor<2>) -> Self {
        let name = joined_name(&stored);
        Self {
            name,
            stored,
            tensor,
        }
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(crate) fn tensor(&self) -> &Tensor<2> {
        &self.tensor
    }

    fn values(&self) -> Vec<f32> {
        let data = self.tensor.clone().inner().into_data();
        data.try_to_vec::<f32>().expect("what learns is f32")
    }
}

/// `….q_proj.weight`, `….k_proj.weight` and `….v_proj.weight` are together `….qkv_proj.weight`.
fn joined_name(stored: &Stored) -> String {
    let [(first, _), others @ ..] = stored.as_slice() else {
        return String::new();
    };
    let module = |name: &str| {
        let module = name.rsplit('.').nth(1).unwrap_or_default();
        module.trim_end_matches("_proj").to_owned()
    };
    let own = module(first);
    let separator = if own.len() == 1 { "" } else { "_" };
    let joined = others.iter().fold(own.clone(), |joined, (name, _)| {
        joined + separator + &module(name)
    });
    first.replace(&format!("{own}_proj"), &format!("{joined}_proj"))
}

impl FullWeights {
    pub(crate) fn new(weights: Vec<NamedWeight>, train_embeddings: bool) -> Self {
        Self {
            weights,
            train_embeddings,
        }
    }

    pub(crate) fn weights(&self) -> &[NamedWeight] {
        &self.weights
    }

    /// Whether the embedding learns, and with it a tied head.
    pub fn train_embeddings(&self) -> bool {
        self.train_embeddings
    }

    /// All tensors with their names, in the order in which the model reads them.
    ///
    /// # Shapes
    /// A matrix is `[out, in]`, those that read one input below each other; a norm's weight or a bias is `[1, width]`.
    pub fn named_tensors(&self) -> impl Iterator<Item = (String, &Tensor<2>)> {
        let weights = self.weights.iter();
        weights.map(|weight| (weight.name.clone(), &weight.tensor))
    }

    /// Replaces every tensor, in the order of [`Self::named_tensors`].
    #[must_use]
    pub fn map(mut self, mut f: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        self.weights = self
            .weights
            .into_iter()
            .map(
                |NamedWeight {
                     name,
                     stored,
                     tensor,
                 }| NamedWeight {
                    tensor: f(&name, tensor),
                    name,
                    stored,
                },
            )
            .collect();
        self
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

    /// Writes the weights to `path`, one safetensors file in Hugging Face's names, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), LoadError> {
        let stored = self.weights.iter().flat_map(|weight| &weight.stored);
        let entries: Vec<_> = stored
            .map(|(name, shape)| (name.as_str(), shape.as_slice()))
            .collect();
        write_atomically(path, |out| {
            let mut out = BufWriter::with_capacity(1 << 20, out);
            write_header(&mut out, entries.iter().copied())?;
            for value in self.weights.iter().flat_map(NamedWeight::values) {
                out.write_all(&value.to_le_bytes())?;
            }
            out.flush()
        })
    }

    /// Whether the embeddings are in the file that [`Self::save`] wrote to `path`.
    ///
    /// # Errors
    /// When the file cannot be read or is corrupt.
    pub fn holds_embeddings(path: &Path) -> Result<bool, LoadError> {
        let source = SafetensorsSource::open(&[path.to_owned()])?;
        Ok(source.contains(EMBEDDING))
    }

    /// Reads the weights of `model` from the file that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, corrupt or lies about its contents, or was written for a model of other dimensions.
    pub fn load(path: &Path, model: &CausalLm) -> Result<Self, LoadError> {
        if !path.exists() {
            return Err(LoadError::MissingFile(path.to_owned()));
        }
        let mut source = SafetensorsSource::open(&[path.to_owned()])?;
        let mut unused: BTreeSet<_> = source.tensors().into_iter().map(|(name, _)| name).collect();
        let mut loaded = model.trainable(unused.contains(EMBEDDING));
        for weight in &mut loaded.weights {
            let mut values = Vec::with_capacity(weight.tensor.shape().num_elements());
            for (name, shape) in &weight.stored {
                values.extend(source.tensor(name, shape)?);
                unused.remove(name);
            }
            if !values.iter().all(|value| value.is_finite()) {
                return Err(LoadError::NonFinite(weight.name.clone()));
            }
            let data = TensorData::new(values, weight.tensor.dims());
            weight.tensor = Tensor::from_data(data, &weight.tensor.device());
        }
        match unused.pop_first() {
            Some(name) => Err(LoadError::UnexpectedTensor(name)),
            None => Ok(loaded),
        }
    }

    /// All weights of the model: these, and from `base` what did not learn.
    pub fn over<'a>(&'a self, base: &'a mut dyn WeightSource) -> impl WeightSource + 'a {
        let mut places = HashMap::new();
        for (index, weight) in self.weights.iter().enumerate() {
            let mut first = 0;
            for (name, shape) in &weight.stored {
                places.insert(name.as_str(), (index, first));
                first += shape.iter().product::<usize>();
            }
        }
        Over {
            weights: &self.weights,
            places,
            base,
        }
    }
}

/// Weights that stand in for some of another source's.
struct Over<'a> {
    weights: &'a [NamedWeight],
    /// By name the weight's number and the tensor's first element in it.
    places: HashMap<&'a str, (usize, usize)>,
    base: &'a mut dyn WeightSource,
}

impl WeightSource for Over<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let Some(&(index, first)) = self.places.get(name) else {
            return self.base.tensor(name, shape);
        };
        let weight = &self.weights[index];
        let stored = weight.stored.iter().find(|(stored, _)| stored == name);
        let (_, found) = stored.expect("a name's place is in the weight of that name");
        if found != shape {
            return Err(LoadError::WrongShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: found.clone(),
            });
        }
        let n: usize = shape.iter().product();
        Ok(weight.values()[first..first + n].to_vec())
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name) || self.base.contains(name)
    }
}
