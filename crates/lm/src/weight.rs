//! A matrix of the model, in numbers or in blocks.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::blocks::{Blocks, norm};
use crate::ops::WeightOn;
use crate::precision::{cast, product};

/// A matrix of the model; blocks never learn. Cheap to clone: clones share it.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a model has a few hundred")]
pub(crate) enum Weight {
    Dense(Tensor<2>),
    /// In host memory, whatever the device.
    Blocks(Arc<Blocks>),
}

/// Rows whose norms are computed at a time.
const ROWS: usize = 1024;

impl Weight {
    /// Rows and columns.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Blocks(blocks) => blocks.dims(),
        }
    }

    /// Bytes that it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.shape().num_elements() * weight.dtype().size(),
            Self::Blocks(blocks) => blocks.size_bytes(),
        }
    }

    /// The same matrix, for a forward pass that is to be differentiated.
    pub(crate) fn autodiff(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone().autodiff()),
            Self::Blocks(blocks) => Self::Blocks(blocks.clone()),
        }
    }

    /// The same matrix, no longer part of any graph.
    pub(crate) fn inner(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone().inner()),
            Self::Blocks(blocks) => Self::Blocks(blocks.clone()),
        }
    }

    /// The matrix as the operations take it.
    pub(crate) fn on_dispatch(&self) -> WeightOn<Dispatch> {
        match self {
            Self::Dense(weight) => WeightOn::Dense(weight.clone().into_dispatch()),
            Self::Blocks(blocks) => WeightOn::Blocks(blocks.clone()),
        }
    }

    /// These rows of it, not copied.
    pub(crate) fn narrow(&self, rows: Range<usize>) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.clone().narrow(0, rows.start, rows.len())),
            Self::Blocks(blocks) => Self::Blocks(Arc::new(blocks.narrow(rows))),
        }
    }

    /// `x·Wᵀ` as tensor operations: the definition, and what devices without a kernel for it do.
    ///
    /// Blocks are decoded on the host and sent to x's device as a whole matrix in x's numbers, on every call; a graph keeps
    /// that matrix until its backward pass. So on such devices they save disk and host memory, and none of the device's.
    pub(crate) fn product(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.tensor(&x.device(), x.dtype());
        product(x, &weight)
    }

    /// The matrix as a tensor: its own, or decoded to `device` in numbers of `dtype`.
    pub(crate) fn tensor(&self, device: &Device, dtype: DType) -> Tensor<2> {
        let blocks = match self {
            Self::Dense(weight) => return weight.clone(),
            Self::Blocks(blocks) => blocks,
        };
        let data = TensorData::new(blocks.dense(), blocks.dims());
        Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
    }

    /// The rows of these numbers, as f32.
    pub(crate) fn select(&self, ids: &[u32], device: &Device) -> Tensor<2> {
        let n = ids.len();
        match self {
            Self::Dense(weight) => {
                let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
                let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), device);
                cast(weight.clone().select(0, ids), DType::F32)
            }
            Self::Blocks(blocks) => {
                let [_, columns] = blocks.dims();
                let mut values = vec![0.0; n * columns];
                for (id, values) in ids.iter().zip(values.chunks_exact_mut(columns)) {
                    blocks.read(*id as usize, 0, values);
                }
                Tensor::from_data(TensorData::new(values, [n, columns]), device)
            }
        }
    }

    /// The length of each row as a vector; no more than [`ROWS`] rows exist in f32 at a time.
    pub(crate) fn row_norms(&self) -> Vec<f32> {
        let weight = match self {
            Self::Blocks(blocks) => return blocks.row_norms(),
            Self::Dense(weight) => weight,
        };
        let [n_rows, columns] = weight.dims();
        let pieces = (0..n_rows).step_by(ROWS).map(|first| {
            let rows = weight.clone().narrow(0, first, ROWS.min(n_rows - first));
            let rows = cast(rows, DType::F32).into_data();
            rows.try_to_vec::<f32>().expect("just cast to f32")
        });
        let norms = pieces.map(|rows| rows.chunks_exact(columns).map(norm).collect::<Vec<_>>());
        norms.flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::FloatDType;

    use super::*;
    use crate::blocks::testing::{nf4, quantized};
    use crate::blocks::{Blocks, Rows};
    use crate::ops::testing::{random, random_values};

    #[test]
    fn norms_are_those_of_the_rows_in_whatever_numbers() {
        let dense = random::<2>("weight", [2100, 64]);
        let blocks = Rows::Nf4(quantized(&random_values("weight", 2100 * 64), 64));
        let blocks = Arc::new(Blocks::new(vec![blocks]));
        let expected = Weight::Dense(dense.clone()).row_norms();
        assert_eq!(expected.len(), 2100);
        let first = random_values("weight", 2100 * 64)[..64]
            .iter()
            .map(|value| value * value)
            .sum::<f32>();
        assert!((expected[0] - first.sqrt()).abs() < 1e-5);
        let bf16 = Weight::Dense(dense.cast(FloatDType::BF16));
        for (weight, bound) in [(bf16, 1e-2), (Weight::Blocks(blocks), 5e-2)] {
            for (found, expected) in weight.row_norms().iter().zip(&expected) {
                assert!((found / expected - 1.0).abs() < bound, "{weight:?}");
            }
        }
    }

    #[test]
    fn rows_by_number_are_those_of_the_matrix() {
        let blocks = Arc::new(Blocks::new(vec![nf4("weight", 9, 70)]));
        let dense = TensorData::new(blocks.dense(), [9, 70]);
        let device = Device::flex();
        let dense = Weight::Dense(Tensor::from_data(dense, &device));
        let blocks = Weight::Blocks(blocks);
        let some = |weight: &Weight| weight.narrow(2..7).tensor(&device, DType::F32).into_data();
        assert_eq!(some(&blocks), some(&dense));
        let rows = |weight: &Weight| weight.select(&[8, 0, 3, 3], &device).into_data();
        assert_eq!(rows(&blocks), rows(&dense));
    }
}
