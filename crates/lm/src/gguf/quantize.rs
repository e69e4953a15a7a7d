//! f32 to the types that we write, value for value as llama.cpp does it.

use half::f16;

use super::tensor_info::TensorType;
use crate::error::LoadError;
use crate::safetensors_file::{Dtype, check_values};

/// How the matrices of a GGUF file are stored. Vectors, norms and biases, are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufDtype {
    F32,
    F16,
    Bf16,
    /// Signed bytes with one f16 scale for each 32 of them. A matrix whose rows are no multiple of
    /// 32 is stored as f16.
    Q8_0,
}

impl From<Dtype> for GgufDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl GgufDtype {
    /// What `general.file_type` says of a file whose matrices are of this type.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// The type of one tensor.
    pub(super) fn of_tensor(self, shape: &[usize]) -> Written {
        let whole_blocks = shape
            .last()
            .is_some_and(|n| n.is_multiple_of(TensorType::Q8_0.block_len()));
        match self {
            _ if shape.len() < 2 => Written::Plain(Dtype::F32),
            Self::F32 => Written::Plain(Dtype::F32),
            Self::Bf16 => Written::Plain(Dtype::Bf16),
            Self::Q8_0 if whole_blocks => Written::Q8_0,
            Self::F16 | Self::Q8_0 => Written::Plain(Dtype::F16),
        }
    }
}

/// A type that tensors can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Plain(Dtype),
    Q8_0,
}

impl Written {
    pub(super) fn tensor_type(self) -> TensorType {
        match self {
            Self::Plain(Dtype::F32) => TensorType::F32,
            Self::Plain(Dtype::F16) => TensorType::F16,
            Self::Plain(Dtype::Bf16) => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
        }
    }

    /// # Errors
    /// When a value is not finite, or too large for the type.
    pub(super) fn check(self, name: &str, values: &[f32]) -> Result<(), LoadError> {
        match self {
            Self::Plain(dtype) => dtype.check(name, values),
            // Scales are f16, and values at most 127 of them.
            Self::Q8_0 => {
                let largest = f16::MAX.to_f32() * 127.0;
                check_values(name, values, largest, "q8_0")
            }
        }
    }

    /// Appends `values`, a whole number of blocks, to `raw`.
    pub(super) fn encode(self, values: &[f32], raw: &mut Vec<u8>) {
        match self {
            Self::Plain(dtype) => dtype.narrow(values, raw),
            Self::Q8_0 => {
                for block in values.chunks_exact(TensorType::Q8_0.block_len()) {
                    q8_0(block, raw);
                }
            }
        }
    }
}

/// The largest value becomes ±127. Divided by the scale before it is rounded to f16, as llama.cpp does.
#[expect(clippy::cast_possible_truncation, reason = "rounded, and at most 127")]
fn q8_0(block: &[f32], raw: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    raw.extend(f16::from_f32(scale).to_le_bytes());
    raw.extend(
        block
            .iter()
            .map(|value| ((value * inverse).round() as i8).cast_unsigned()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::dequantize::dequantize;

    fn there_and_back(written: Written, values: &[f32]) -> Vec<f32> {
        let mut raw = Vec::new();
        written.encode(values, &mut raw);
        let kind = written.tensor_type();
        assert_eq!(
            raw.len(),
            values.len() / kind.block_len() * kind.block_bytes()
        );
        let mut back = vec![0.0; values.len()];
        dequantize(kind, &raw, &mut back);
        back
    }

    #[test]
    fn every_type_reads_back_within_its_rounding() {
        let values: Vec<f32> = (0u8..64)
            .map(|i| (f32::from(i) * 0.7).sin() * 3.0)
            .collect();
        for (dtype, bound) in [
            (GgufDtype::F32, 0.0),
            (GgufDtype::F16, 3.0 / 2048.0),
            (GgufDtype::Bf16, 3.0 / 256.0),
            // Half a step, and the scale's own rounding at the far end.
            (GgufDtype::Q8_0, 3.0 / 254.0 + 3.0 / 2048.0),
        ] {
            let back = there_and_back(dtype.of_tensor(&[2, 32]), &values);
            let off = values.iter().zip(&back).map(|(v, b)| (v - b).abs());
            let most = off.fold(0.0, f32::max);
            assert!(most <= bound, "{dtype:?}: {most}");
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        assert_eq!(there_and_back(Written::Q8_0, &[0.0; 32]), [0.0; 32]);
    }

    #[test]
    fn vectors_stay_f32_and_odd_rows_become_f16() {
        assert_eq!(GgufDtype::Q8_0.of_tensor(&[64]), Written::Plain(Dtype::F32));
        assert_eq!(GgufDtype::Q8_0.of_tensor(&[64, 64]), Written::Q8_0);
        assert_eq!(
            GgufDtype::Q8_0.of_tensor(&[64, 40]),
            Written::Plain(Dtype::F16)
        );
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused_by_name() {
        let f16 = Written::Plain(Dtype::F16);
        let message = f16.check("x", &[1.0, -7e4]).unwrap_err().to_string();
        assert!(
            message.contains("`x`") && message.contains("f16"),
            "{message}"
        );
        assert!(Written::Q8_0.check("x", &[-7e4]).is_ok());
        assert!(matches!(
            Written::Q8_0.check("x", &[f32::NAN]),
            Err(LoadError::NonFinite(_))
        ));
    }
}
