//! Products of matrices through the `gemm` crate, which picks its kernels by the CPU's features.

use gemm::Parallelism;

/// A matrix in a slice, with any strides.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Matrix<'a> {
    values: &'a [f32],
    layout: Layout,
}

/// A matrix to write to.
pub(in crate::ops) struct MatrixMut<'a> {
    values: &'a mut [f32],
    layout: Layout,
}

#[derive(Clone, Copy)]
struct Layout {
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Layout {
    /// Rows that begin `row_stride` apart.
    fn strided([rows, columns]: [usize; 2], row_stride: usize) -> Self {
        Self {
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// As [`Self::strided`], for numbers that are there.
    fn within(values: &[f32], shape: [usize; 2], row_stride: usize) -> Self {
        let layout = Self::strided(shape, row_stride);
        assert!(
            layout.end() <= values.len(),
            "a matrix lies within its slice"
        );
        layout
    }

    /// The index behind the last element.
    fn end(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` numbers, one behind the other.
    pub(in crate::ops) fn new(values: &'a [f32], columns: usize) -> Self {
        Self::strided(values, [values.len() / columns, columns], columns)
    }

    /// Rows that begin `row_stride` apart.
    pub(in crate::ops) fn strided(values: &'a [f32], shape: [usize; 2], row_stride: usize) -> Self {
        let layout = Layout::within(values, shape, row_stride);
        Self { values, layout }
    }

    /// The same numbers, rows as columns.
    #[must_use]
    pub(in crate::ops) fn transposed(self) -> Self {
        let Layout {
            rows,
            columns,
            row_stride,
            column_stride,
        } = self.layout;
        let layout = Layout {
            rows: columns,
            columns: rows,
            row_stride: column_stride,
            column_stride: row_stride,
        };
        Self { layout, ..self }
    }
}

impl<'a> MatrixMut<'a> {
    /// Rows of `columns` numbers, one behind the other.
    pub(in crate::ops) fn new(values: &'a mut [f32], columns: usize) -> Self {
        let rows = values.len() / columns;
        Self::strided(values, [rows, columns], columns)
    }

    /// Rows that begin `row_stride` apart.
    pub(in crate::ops) fn strided(
        values: &'a mut [f32],
        shape: [usize; 2],
        row_stride: usize,
    ) -> Self {
        assert!(shape[1] <= row_stride, "rows do not overlap");
        let layout = Layout::within(values, shape, row_stride);
        Self { values, layout }
    }
}

/// `a·b` on all threads, row after row.
pub(in crate::ops) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let layout = Layout::strided([a.layout.rows, b.layout.columns], b.layout.columns);
    let n = layout.rows * layout.columns;
    let mut out = Vec::with_capacity(n);
    if a.layout.columns == 0 {
        out.resize(n, 0.0);
        return out;
    }
    #[expect(unsafe_code, reason = "the kernel writes what was not initialised")]
    // SAFETY: the vector has room for n numbers, which lie as `layout` says and are not read before they are written:
    // with `Into::Overwrite` the kernel writes every one of them.
    unsafe {
        gemm_to(
            out.as_mut_ptr(),
            layout,
            a,
            b,
            Into::Overwrite,
            Parallelism::Rayon(0),
        );
        out.set_len(n);
    }
    out
}

/// Whether a product replaces what was there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Into {
    /// Over what was there.
    Overwrite,
    /// On top of what was there.
    Add,
}

/// `out = a·b` or `out += a·b` on this thread alone: for callers that are one of many tasks.
pub(in crate::ops) fn matmul(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, into: Into) {
    let MatrixMut { values, layout } = out;
    #[expect(unsafe_code, reason = "the kernel takes a pointer")]
    // SAFETY: the result lies within its slice, which its constructor asserted, and is borrowed mutably.
    unsafe {
        gemm_to(values.as_mut_ptr(), layout, a, b, into, Parallelism::None);
    }
}

/// # Safety
/// `out` may be written wherever `layout` reaches, by nobody else meanwhile, and its rows do not overlap. It is read only
/// with [`Into::Add`].
#[expect(unsafe_code, reason = "the kernel takes pointers")]
unsafe fn gemm_to(
    out: *mut f32,
    layout: Layout,
    a: Matrix<'_>,
    b: Matrix<'_>,
    into: Into,
    parallelism: Parallelism,
) {
    let (m, n, k) = (layout.rows, layout.columns, a.layout.columns);
    assert_eq!(
        (m, n, k),
        (a.layout.rows, b.layout.columns, b.layout.rows),
        "the matrices fit"
    );
    let stride = |stride: usize| stride.cast_signed();
    // SAFETY: the factors lie within their slices, which their constructors asserted; for the result the caller vouches.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            stride(layout.column_stride),
            stride(layout.row_stride),
            into == Into::Add,
            a.values.as_ptr(),
            stride(a.layout.column_stride),
            stride(a.layout.row_stride),
            b.values.as_ptr(),
            stride(b.layout.column_stride),
            stride(b.layout.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
