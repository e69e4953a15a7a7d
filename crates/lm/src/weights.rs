//! Where a model's weights come from, seen from the model: a name, a shape, f32 values, or the blocks that a file has
//! instead.
//!
//! Reading files and undoing their quantisation belongs to `base` and what it opens; this module
//! knows neither format.

use crate::blocks::GgufBlocks;
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

    /// Hands `take` the rows of matrix `name` from the first to the last, several whole ones at a time: for matrices of
    /// which there should never be all f32 values.
    ///
    /// # Errors
    /// As [`Self::tensor`]; some rows may have been taken by then.
    fn rows(
        &mut self,
        name: &str,
        shape: [usize; 2],
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        take(&self.tensor(name, &shape)?);
        Ok(())
    }

    /// Matrix `name` in the blocks that its file has it in, rows in Hugging Face order; `None` when this source keeps no
    /// blocks.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    fn blocks(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<GgufBlocks>, LoadError> {
        let (_, _) = (name, shape);
        Ok(None)
    }
}
