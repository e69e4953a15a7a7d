//! Tensors beside and below each other.

use std::ops::Range;

use burn::tensor::Tensor;

/// The tensors joined along `dim`; a single one is not copied.
pub(crate) fn join<const D: usize>(mut parts: Vec<Tensor<D>>, dim: usize) -> Tensor<D> {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        Tensor::cat(parts, dim)
    }
}

/// `y` with something added to some of its columns: ranges in order that do not overlap, each with what it gets.
///
/// # Shapes
/// `y`: `[n, width]`; each addend: `[n, columns]`.
pub(crate) fn add_to_columns(
    y: &Tensor<2>,
    added: impl IntoIterator<Item = (Range<usize>, Tensor<2>)>,
) -> Tensor<2> {
    let [_, width] = y.dims();
    let cut = |columns: Range<usize>| y.clone().narrow(1, columns.start, columns.len());
    let mut parts = Vec::new();
    let mut end = 0;
    for (columns, addend) in added {
        if columns.start > end {
            parts.push(cut(end..columns.start));
        }
        end = columns.end;
        parts.push(cut(columns) + addend);
    }
    if end < width {
        parts.push(cut(end..width));
    }
    join(parts, 1)
}
