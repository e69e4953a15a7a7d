//! What a GGUF header says about one tensor, and whether that can be true.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::LoadError;

/// A storage type that we can turn into f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Names of the types that exist and are not in [`TensorType`], for the refusal.
const OTHER_TYPES: [(u32, &str); 20] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (39, "MXFP4"),
];

impl TensorType {
    /// The type with this code.
    ///
    /// # Errors
    /// With the name of the type when it is one that we do not read.
    pub(super) fn from_code(code: u32) -> Result<Self, String> {
        Ok(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => {
                let known = OTHER_TYPES.iter().find(|(other, _)| *other == code);
                return Err(known.map_or_else(|| format!("type {code}"), |(_, n)| (*n).to_owned()));
            }
        })
    }

    /// The type's code in a file.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Values per block.
    pub(crate) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The types that keep several values in a block.
    #[cfg(test)]
    pub(crate) const BLOCKS: [Self; 8] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Where in a block its 16-bit floats begin.
    #[cfg(test)]
    pub(crate) fn half_floats(self) -> &'static [usize] {
        match self {
            Self::F32 | Self::Bf16 => &[],
            Self::F16 | Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q6K => &[208],
        }
    }

    /// Bytes of a tensor of this type; `None` when it overflows or a row is no whole number of
    /// blocks.
    pub(crate) fn size_bytes(self, shape: &[usize]) -> Option<u64> {
        if !shape.last()?.is_multiple_of(self.block_len()) {
            return None;
        }
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        // The f32 values must be addressable too.
        elements
            .checked_mul(4)
            .filter(|bytes| isize::try_from(*bytes).is_ok())?;
        ((elements / self.block_len()) as u64).checked_mul(self.block_bytes() as u64)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
    }
}

/// Where one tensor lies and how it is stored.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) kind: TensorType,
    /// Outermost dimension first: `[out, in]` for a linear layer.
    pub(super) shape: Vec<usize>,
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
}

/// Turns offsets within the data into offsets within the file.
///
/// # Errors
/// When a tensor is not aligned, not within the file, or overlaps another.
pub(super) fn place(
    path: &Path,
    tensors: &mut BTreeMap<String, TensorInfo>,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), LoadError> {
    for (name, info) in tensors.iter_mut() {
        if !info.offset.is_multiple_of(alignment) {
            return Err(LoadError::corrupt(
                path,
                format!("tensor `{name}` is not aligned"),
            ));
        }
        let begin = data_start.checked_add(info.offset);
        let end = begin.and_then(|begin| begin.checked_add(info.size_bytes));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= file_bytes => info.offset = begin,
            _ => {
                let what = format!("tensor `{name}` lies outside the file");
                return Err(LoadError::corrupt(path, what));
            }
        }
    }
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_unstable_by_key(|(_, info)| info.offset);
    for pair in sorted.windows(2) {
        let ((first, info), (second, next)) = (pair[0], pair[1]);
        if info.offset + info.size_bytes > next.offset {
            let what = format!("tensor `{first}` overlaps `{second}`");
            return Err(LoadError::corrupt(path, what));
        }
    }
    Ok(())
}
