//! Reads the header of a GGUF file: counts, metadata, tensor descriptions.
//!
//! Every length in it is checked against the bytes that are left in the file, and against a cap on
//! the header as a whole, before anything is allocated for it. Memory stays within a small multiple
//! of the header's own size, whatever it claims.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use super::metadata::{Metadata, Value};
use super::tensor_info::{self, TensorInfo, TensorType};
use crate::error::LoadError;
use crate::tensor_name;

/// Largest header we read. Vocabularies of 250,000 tokens with their merges take about 12 MB.
const MAX_HEADER_BYTES: u64 = 64 << 20;
const MAX_TENSORS: usize = 100_000;
const MAX_KEYS: u64 = 10_000;
const MAX_KEY_BYTES: u64 = 4_096;
const MAX_ARRAY_DEPTH: u32 = 4;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_ALIGNMENT: usize = 1 << 20;

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// Where in the file each metadata value lies, its type code included, in the file's order.
    pub(super) spans: Vec<(String, Range<u64>)>,
    /// By GGUF name; offsets are from the start of the file and within it.
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Reads and checks the header of `file`, from its start.
///
/// # Errors
/// See [`super::GgufSource::open`].
pub(super) fn read(path: &Path, file: &mut File) -> Result<Header, LoadError> {
    let file_bytes = file.metadata().map_err(LoadError::io(path))?.len();
    let mut reader = HeaderReader {
        path,
        reader: BufReader::new(file),
        position: 0,
        file_bytes,
    };
    let (n_tensors, n_keys) = reader.counts()?;
    let mut metadata = Metadata::new(path);
    let mut spans = Vec::new();
    for _ in 0..n_keys {
        let key = reader.string(MAX_KEY_BYTES)?;
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(reader.corrupt(format!("{key:?} is no metadata key")));
        }
        let begin = reader.position;
        let code = reader.u32()?;
        let value = reader.value(code)?;
        spans.push((key.clone(), begin..reader.position));
        metadata.insert(key, value)?;
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..n_tensors {
        let (name, info) = reader.tensor_info()?;
        if tensors.contains_key(&name) {
            return Err(LoadError::DuplicateTensor(name));
        }
        tensors.insert(name, info);
    }
    let alignment = alignment(&metadata)?;
    let data_start = reader.position.next_multiple_of(alignment);
    tensor_info::place(path, &mut tensors, data_start, alignment, file_bytes)?;
    Ok(Header {
        metadata,
        spans,
        tensors,
    })
}

fn alignment(metadata: &Metadata) -> Result<u64, LoadError> {
    let alignment = metadata
        .find_usize("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
        return Err(metadata.corrupt(format!("{alignment} is no alignment")));
    }
    Ok(alignment as u64)
}

struct HeaderReader<'a> {
    path: &'a Path,
    reader: BufReader<&'a mut File>,
    position: u64,
    file_bytes: u64,
}

impl HeaderReader<'_> {
    /// Magic and version, then the numbers of tensors and of metadata keys.
    fn counts(&mut self) -> Result<(usize, u64), LoadError> {
        if self.file_bytes < 4 || self.bytes::<4>()? != *b"GGUF" {
            return Err(self.corrupt("it is not a GGUF file"));
        }
        let version = self.u32()?;
        if version == 2u32.swap_bytes() || version == 3u32.swap_bytes() {
            return Err(self.corrupt("it is a big-endian GGUF file, which is not supported"));
        }
        if !(2..=3).contains(&version) {
            return Err(self.corrupt(format!("GGUF version {version} is not supported (2 and 3)")));
        }
        let n_tensors = self.u64()?;
        let n_keys = self.u64()?;
        if n_keys > MAX_KEYS {
            return Err(self.corrupt(format!("it claims {n_keys} metadata keys")));
        }
        match usize::try_from(n_tensors) {
            Ok(count) if count <= MAX_TENSORS => Ok((count, n_keys)),
            _ => {
                let (file, limit) = (self.path.to_owned(), MAX_TENSORS);
                Err(LoadError::TooManyTensors { file, limit })
            }
        }
    }

    /// A value of the type that `code` names.
    fn value(&mut self, code: u32) -> Result<Value, LoadError> {
        Ok(match code {
            6 => Value::Float(shortest(f32::from_le_bytes(self.bytes()?))),
            7 => Value::Bool(self.bytes::<1>()? != [0]),
            8 => Value::String(self.string(MAX_HEADER_BYTES)?),
            9 => self.array()?,
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            _ => self.integer(code)?.map_or(Value::Skipped, Value::Integer),
        })
    }

    /// `None` when the number is beyond `i64`.
    fn integer(&mut self, code: u32) -> Result<Option<i64>, LoadError> {
        Ok(match code {
            0 => Some(u8::from_le_bytes(self.bytes()?).into()),
            1 => Some(i8::from_le_bytes(self.bytes()?).into()),
            2 => Some(u16::from_le_bytes(self.bytes()?).into()),
            3 => Some(i16::from_le_bytes(self.bytes()?).into()),
            4 => Some(self.u32()?.into()),
            5 => Some(i32::from_le_bytes(self.bytes()?).into()),
            10 => i64::try_from(self.u64()?).ok(),
            11 => Some(i64::from_le_bytes(self.bytes()?)),
            _ => return Err(self.corrupt(format!("{code} is no metadata type"))),
        })
    }

    fn array(&mut self) -> Result<Value, LoadError> {
        let code = self.u32()?;
        let len = self.u64()?;
        match code {
            // A string takes its length field at least.
            8 => {
                self.ensure(len.saturating_mul(8))?;
                let strings: Result<_, _> =
                    (0..len).map(|_| self.string(MAX_HEADER_BYTES)).collect();
                Ok(Value::Strings(strings?))
            }
            4 | 5 => {
                self.ensure(len.saturating_mul(4))?;
                let numbers: Result<Option<_>, _> = (0..len)
                    .map(|_| self.integer(code))
                    .collect::<Result<_, _>>();
                Ok(numbers?.map_or(Value::Skipped, Value::Integers))
            }
            _ => {
                self.skip_elements(code, len, 1)?;
                Ok(Value::Skipped)
            }
        }
    }

    /// Walks over an array that nothing asks for. Nested arrays are walked to a fixed depth.
    fn skip_elements(&mut self, code: u32, len: u64, depth: u32) -> Result<(), LoadError> {
        let element_bytes = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 | 9 => return self.skip_sized_elements(code, len, depth),
            _ => return Err(self.corrupt(format!("{code} is no metadata type"))),
        };
        self.skip(len.saturating_mul(element_bytes))
    }

    fn skip_sized_elements(&mut self, code: u32, len: u64, depth: u32) -> Result<(), LoadError> {
        if depth >= MAX_ARRAY_DEPTH {
            return Err(self.corrupt("its metadata arrays are nested too deeply"));
        }
        self.ensure(len.saturating_mul(8))?;
        for _ in 0..len {
            if code == 8 {
                let bytes = self.u64()?;
                self.skip(bytes)?;
            } else {
                let inner_code = self.u32()?;
                let inner_len = self.u64()?;
                self.skip_elements(inner_code, inner_len, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tensor_info(&mut self) -> Result<(String, TensorInfo), LoadError> {
        let name = self.string(MAX_KEY_BYTES)?;
        if let Some(fault) = tensor_name::fault(&name) {
            return Err(self.corrupt(format!("tensor name {name:?} {fault}")));
        }
        let n_dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&n_dimensions) {
            return Err(self.corrupt(format!("tensor `{name}` has {n_dimensions} dimensions")));
        }
        // GGUF lists the row length first, everyone else last.
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            let n = self.u64()?;
            let dimension = usize::try_from(n).ok().filter(|n| *n > 0);
            shape.push(
                dimension.ok_or_else(|| {
                    self.corrupt(format!("tensor `{name}` has a dimension of {n}"))
                })?,
            );
        }
        shape.reverse();
        let code = self.u32()?;
        let offset = self.u64()?;
        let kind =
            TensorType::from_code(code).map_err(|type_name| LoadError::UnsupportedDtype {
                name: name.clone(),
                dtype: type_name,
            })?;
        let Some(size_bytes) = kind.size_bytes(&shape) else {
            let what = format!("tensor `{name}` has the shape {shape:?}, which {kind} cannot have");
            return Err(self.corrupt(what));
        };
        Ok((
            name,
            TensorInfo {
                kind,
                shape,
                offset,
                size_bytes,
            },
        ))
    }

    fn string(&mut self, limit_bytes: u64) -> Result<String, LoadError> {
        let len = self.u64()?;
        self.ensure(len)?;
        if len > limit_bytes {
            return Err(self.corrupt(format!("it has a name of {len} bytes")));
        }
        let mut bytes = Vec::new();
        let mut part = self.reader.by_ref().take(len);
        part.read_to_end(&mut bytes)
            .map_err(LoadError::io(self.path))?;
        self.position += len;
        String::from_utf8(bytes).map_err(|_| self.corrupt("a string in its header is not UTF-8"))
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        self.ensure(N as u64)?;
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(LoadError::io(self.path))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), LoadError> {
        self.ensure(bytes)?;
        let relative = i64::try_from(bytes).expect("within the cap on the header");
        self.reader
            .seek_relative(relative)
            .map_err(LoadError::io(self.path))?;
        self.position += bytes;
        Ok(())
    }

    /// Checks that `bytes` more belong to the file and to a header of sane size.
    fn ensure(&self, bytes: u64) -> Result<(), LoadError> {
        let end = self.position.saturating_add(bytes);
        if end > self.file_bytes {
            return Err(self.corrupt("its header claims more than the file holds"));
        }
        if end > MAX_HEADER_BYTES {
            let (file, limit_bytes) = (self.path.to_owned(), MAX_HEADER_BYTES);
            return Err(LoadError::HeaderTooLarge {
                file,
                size_bytes: end,
                limit_bytes,
            });
        }
        Ok(())
    }

    fn corrupt(&self, what: impl Into<String>) -> LoadError {
        LoadError::corrupt(self.path, what)
    }
}

/// The f64 with the shortest decimal form of `value`: 1e-5 stays 1e-5 in the JSON made from it,
/// instead of 9.999999747378752e-6.
fn shortest(value: f32) -> f64 {
    value
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(value))
}
