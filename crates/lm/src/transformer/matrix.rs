//! A matrix on its way from a source into the form it is kept in, its rows read some at a time.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use half::bf16;

use crate::blocks::{Blocks, Quantizer, Rows};
use crate::device::Device;
use crate::error::LoadError;
use crate::precision::Precision;
use crate::weight::Weight;
use crate::weights::WeightSource;

/// Matrices one below the other, as far as they have been read.
pub(super) struct Matrix {
    columns: usize,
    form: Form,
}

enum Form {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Nf4(Vec<Rows>),
    Gguf(Vec<Rows>),
}

impl Matrix {
    /// For a matrix that products go through.
    pub(super) fn new(precision: Precision, columns: usize) -> Self {
        let form = match precision {
            Precision::F32 => Form::F32(Vec::new()),
            Precision::Bf16 => Form::Bf16(Vec::new()),
            Precision::Nf4 => Form::Nf4(Vec::new()),
            Precision::Gguf => Form::Gguf(Vec::new()),
        };
        Self { columns, form }
    }

    /// For one with a row for each token, which is not quantised here: what comes in and goes out of the model suffers
    /// most from it.
    pub(super) fn table(precision: Precision, columns: usize) -> Self {
        let precision = match precision {
            Precision::Nf4 => Precision::Bf16,
            kept => kept,
        };
        Self::new(precision, columns)
    }

    /// Reads tensor `name`, whose rows come below those that are there.
    pub(super) fn append(
        &mut self,
        source: &mut dyn WeightSource,
        name: &str,
        n_rows: usize,
    ) -> Result<(), LoadError> {
        let shape = [n_rows, self.columns];
        match &mut self.form {
            Form::F32(values) => {
                values.reserve_exact(n_rows * self.columns);
                read(source, name, shape, |rows| values.extend_from_slice(rows))
            }
            Form::Bf16(values) => {
                values.reserve_exact(n_rows * self.columns);
                read(source, name, shape, |rows| {
                    values.extend(rows.iter().map(|value| bf16::from_f32(*value)));
                })
            }
            Form::Nf4(parts) => {
                let mut quantizer = Quantizer::new(self.columns);
                quantizer.reserve(n_rows);
                read(source, name, shape, |rows| quantizer.push(rows))?;
                parts.push(Rows::Nf4(quantizer.finish()));
                Ok(())
            }
            Form::Gguf(parts) => {
                let blocks = source.blocks(name, shape)?;
                let blocks = blocks.ok_or_else(|| LoadError::NotInBlocks(name.to_owned()))?;
                let rows = Rows::Gguf(blocks);
                if !rows.is_finite() {
                    return Err(LoadError::NonFinite(name.to_owned()));
                }
                parts.push(rows);
                Ok(())
            }
        }
    }

    /// The matrix, on `device` unless it is in blocks.
    pub(super) fn finish(self, device: &Device) -> Weight {
        match self.form {
            Form::F32(values) => dense(values, self.columns, device),
            Form::Bf16(values) => dense(values, self.columns, device),
            Form::Nf4(parts) | Form::Gguf(parts) => Weight::Blocks(Arc::new(Blocks::new(parts))),
        }
    }
}

fn dense<E: burn::tensor::Element>(values: Vec<E>, columns: usize, device: &Device) -> Weight {
    let shape = [values.len() / columns, columns];
    let data = TensorData::new(values, shape);
    // Its own type rather than the device's, which would hold both copies for a moment.
    Weight::Dense(Tensor::from_data(data, (device.as_burn(), E::dtype())))
}

/// Hands `take` the rows of a tensor, all of them finite.
fn read(
    source: &mut dyn WeightSource,
    name: &str,
    shape: [usize; 2],
    mut take: impl FnMut(&[f32]),
) -> Result<(), LoadError> {
    let mut finite = true;
    source.rows(name, shape, &mut |rows| {
        finite &= rows.iter().all(|value| value.is_finite());
        if finite {
            take(rows);
        }
    })?;
    finite
        .then_some(())
        .ok_or_else(|| LoadError::NonFinite(name.to_owned()))
}
