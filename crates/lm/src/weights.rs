//! Where a model's weights come from, seen from the model: a name, a shape, f32 values.
//!
//! Reading files and undoing their quantisation belongs to `base` and what it opens; this module
//! knows neither format.

use crate::error::LoadError;

/// Named tensors of a base model, in Hugging Face names and orientation (`[out, in]` for linear
/// weights), f32.
pub trait WeightSource {
    /// The values of tensor `name`, row by row.
    ///
    /// # Errors
    /// [`LoadError::MissingTensor`] when there is none of that name, [`LoadError::WrongShape`]
    /// when its shape is not `shape`; whatever reading it can raise.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool;
}
