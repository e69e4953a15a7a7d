//! The order of the rows of Llama's q and k, which GGUF has in another one than Hugging Face.
//!
//! Rotary embedding turns pairs of rows: GGUF keeps them side by side and Hugging Face half a head apart.

/// From GGUF's order to Hugging Face's. A row may be values or the bytes of its blocks.
///
/// # Shapes
/// `values`: `[n_rows, anything]`, and the same out.
pub(super) fn in_order<T: Copy>(values: &[T], n_rows: usize, n_heads: usize) -> Vec<T> {
    let row_len = values.len() / n_rows;
    let head_dim = n_rows / n_heads;
    let mut ordered = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * row_len) {
        for part in 0..2 {
            for pair in 0..head_dim / 2 {
                let row = 2 * pair + part;
                ordered.extend_from_slice(&head[row * row_len..(row + 1) * row_len]);
            }
        }
    }
    ordered
}

/// From Hugging Face's order to GGUF's.
///
/// # Shapes
/// `values`: `[n_rows, anything]`, and the same out.
pub(crate) fn interleaved(values: &[f32], n_rows: usize, n_heads: usize) -> Vec<f32> {
    let row_len = values.len() / n_rows;
    let head_dim = n_rows / n_heads;
    let mut interleaved = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * row_len) {
        for pair in 0..head_dim / 2 {
            for row in [pair, head_dim / 2 + pair] {
                interleaved.extend_from_slice(&head[row * row_len..(row + 1) * row_len]);
            }
        }
    }
    interleaved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_go_back_to_its_halves() {
        // Two heads of four rows, one column; the file has each head's rows as 0 2 1 3.
        let stored = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        let ordered = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        assert_eq!(in_order(&stored, 8, 2), ordered);
        assert_eq!(interleaved(&ordered, 8, 2), stored);
    }

    #[test]
    fn rows_stay_whole() {
        let stored = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        let ordered = [0.0, 0.5, 2.0, 2.5, 1.0, 1.5, 3.0, 3.5];
        assert_eq!(in_order(&stored, 4, 1), ordered);
        assert_eq!(interleaved(&ordered, 4, 1), stored);
    }
}
