//! The layout of a GGUF file of version 3: header, metadata, tensor descriptions, then aligned data.

use std::io::{self, Write};

/// Where a tensor may begin; what readers assume of a file that does not say.
pub(crate) const ALIGNMENT: usize = 32;

const VERSION: u32 = 3;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A metadata value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    /// A type code and the bytes that follow it: a value of another file, or one that lies.
    Raw(u32, Vec<u8>),
}

impl MetadataValue {
    /// A string value.
    pub fn string(value: &str) -> Self {
        Self::String(value.to_owned())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(value) => tagged(out, 4, &value.to_le_bytes()),
            Self::F32(value) => tagged(out, 6, &value.to_le_bytes()),
            Self::Bool(value) => tagged(out, 7, &[u8::from(*value)]),
            Self::String(value) => {
                tagged(out, STRING, &[]);
                write_string(out, value);
            }
            Self::Strings(values) => {
                array_head(out, STRING, values.len());
                for value in values {
                    write_string(out, value);
                }
            }
            Self::I32s(values) => {
                array_head(out, 5, values.len());
                for value in values {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
            Self::Raw(code, bytes) => tagged(out, *code, bytes),
        }
    }
}

/// Metadata in the order in which it is written.
pub(crate) type MetadataList = Vec<(String, MetadataValue)>;

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    /// GGUF's order: the row length first.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) type_code: u32,
    /// From the end of the header.
    pub(crate) offset: u64,
}

/// Everything before the data, padded so that the data begins aligned.
pub(crate) fn header(metadata: &[(String, MetadataValue)], tensors: &[TensorEntry]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        write_string(&mut out, key);
        value.write(&mut out);
    }
    for tensor in tensors {
        write_string(&mut out, &tensor.name);
        let n_dimensions = u32::try_from(tensor.dimensions.len()).expect("a handful");
        out.extend_from_slice(&n_dimensions.to_le_bytes());
        for dimension in &tensor.dimensions {
            out.extend_from_slice(&dimension.to_le_bytes());
        }
        out.extend_from_slice(&tensor.type_code.to_le_bytes());
        out.extend_from_slice(&tensor.offset.to_le_bytes());
    }
    let gap = padding(out.len() as u64);
    out.extend_from_slice(&[0; ALIGNMENT][..gap]);
    out
}

/// Writes the zeros that follow a tensor of `size_bytes`.
///
/// # Errors
/// When writing fails.
pub(crate) fn write_padding(out: &mut impl Write, size_bytes: u64) -> io::Result<()> {
    out.write_all(&[0; ALIGNMENT][..padding(size_bytes)])
}

/// Zeros that bring `size_bytes` to a multiple of the alignment.
fn padding(size_bytes: u64) -> usize {
    let gap = size_bytes.next_multiple_of(ALIGNMENT as u64) - size_bytes;
    usize::try_from(gap).expect("below the alignment")
}

fn tagged(out: &mut Vec<u8>, code: u32, bytes: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn array_head(out: &mut Vec<u8>, element_code: u32, len: usize) {
    tagged(out, ARRAY, &element_code.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

fn write_string(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}
