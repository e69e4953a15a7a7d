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
    pub(in crate::ops) fn strided(
        values: &'a [f32],
        [rows, columns]: [usize; 2],
        row_stride: usize,
    ) -> Self {
        let layout = Layout {
            rows,
            columns,
            row_stride,
            column_stride: 1,
        };
        assert!(
            layout.end() <= values.len(),
            "a matrix lies within its slice"
        );
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
        [rows, columns]: [usize; 2],
        row_stride: usize,
    ) -> Self {
        assert!(columns <= row_stride, "rows do not overlap");
        let layout = Layout {
            rows,
            columns,
            row_stride,
            column_stride: 1,
        };
        assert!(
            layout.end() <= values.len(),
            "a matrix lies within its slice"
        );
        Self { values, layout }
    }
}

/// Where a product goes, and who computes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Into {
    /// Over what was there.
    Overwrite,
    /// On top of what was there.
    Add,
}

/// `out = a·b` or `out += a·b` on all threads.
pub(in crate::ops) fn matmul(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, into: Into) {
    product(out, a, b, into, Parallelism::Rayon(0));
}

/// As [`matmul`], on this thread alone: for callers that are one of many tasks.
pub(in crate::ops) fn matmul_here(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, into: Into) {
    product(out, a, b, into, Parallelism::None);
}

fn product(
    MatrixMut { values, layout }: MatrixMut<'_>,
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
    #[expect(unsafe_code, reason = "the kernel takes pointers")]
    // SAFETY: every matrix lies within its slice, which its constructor asserted; the result is borrowed mutably, so it
    // overlaps neither input; its rows do not overlap each other.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            values.as_mut_ptr(),
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
