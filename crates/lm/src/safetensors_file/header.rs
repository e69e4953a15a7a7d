//! The header of a safetensors file: eight bytes of length, then JSON.
//!
//! Everything it claims is checked here against the file, before anything is allocated for it.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use half::{bf16, f16};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::LoadError;
use crate::tensor_name;

/// Largest header we parse.
const MAX_HEADER_BYTES: u64 = 8 << 20;
/// Most tensors one file may name.
pub(super) const MAX_TENSORS: usize = 100_000;
const MAX_DIMENSIONS: usize = 8;
const METADATA_KEY: &str = "__metadata__";

/// An element type that we can read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    /// The type's name in a `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The largest number it holds.
    fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    pub(crate) fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Appends the values in `raw` to `values`.
    pub(super) fn widen(self, raw: &[u8], values: &mut Vec<f32>) {
        let pairs = || raw.as_chunks::<2>().0.iter().copied();
        match self {
            Self::F32 => values.extend(raw.as_chunks().0.iter().copied().map(f32::from_le_bytes)),
            Self::F16 => values.extend(pairs().map(|pair| f16::from_le_bytes(pair).to_f32())),
            Self::Bf16 => values.extend(pairs().map(|pair| bf16::from_le_bytes(pair).to_f32())),
        }
    }

    /// # Errors
    /// When a value is not finite, or too large for the type.
    pub(crate) fn check(self, name: &str, values: &[f32]) -> Result<(), LoadError> {
        let in_words = match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        };
        check_values(name, values, self.largest(), in_words)
    }

    /// Appends `values`, each rounded to the nearest that the type holds, to `raw`.
    pub(crate) fn narrow(self, values: &[f32], raw: &mut Vec<u8>) {
        match self {
            Self::F32 => raw.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => raw.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
            Self::Bf16 => raw.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
        }
    }
}

/// Where one tensor lies. The offsets count from the end of the header.
#[derive(Debug)]
pub(super) struct StoredTensor {
    /// `None` for a type that we cannot read; that matters only if the model wants the tensor.
    pub(super) dtype: Option<Dtype>,
    pub(super) dtype_name: String,
    pub(super) shape: Vec<usize>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: Vec<(String, StoredTensor)>,
    pub(super) data_start: u64,
}

/// Reads and checks the header of `file`.
///
/// # Errors
/// See [`super::SafetensorsSource::open`].
pub(super) fn read(path: &Path, file: &mut File) -> Result<Header, LoadError> {
    let file_bytes = file.metadata().map_err(LoadError::io(path))?.len();
    let mut length = [0; 8];
    if file_bytes < 8 {
        return Err(LoadError::corrupt(
            path,
            "it is shorter than a safetensors header",
        ));
    }
    file.read_exact(&mut length).map_err(LoadError::io(path))?;
    let size_bytes = u64::from_le_bytes(length);
    if size_bytes > MAX_HEADER_BYTES {
        let file = path.to_owned();
        return Err(LoadError::HeaderTooLarge {
            file,
            size_bytes,
            limit_bytes: MAX_HEADER_BYTES,
        });
    }
    let data_start = 8 + size_bytes;
    if data_start > file_bytes {
        return Err(LoadError::corrupt(
            path,
            "its header is longer than the file",
        ));
    }
    let mut json = Vec::new();
    file.take(size_bytes)
        .read_to_end(&mut json)
        .map_err(LoadError::io(path))?;
    let entries: Entries = serde_json::from_slice(&json).map_err(|source| LoadError::Json {
        file: path.to_owned(),
        source,
    })?;
    let tensors = check(path, entries, file_bytes - data_start)?;
    Ok(Header {
        tensors,
        data_start,
    })
}

/// Checks names, sizes and extents of all entries against the bytes that follow the header.
fn check(
    path: &Path,
    entries: Entries,
    data_bytes: u64,
) -> Result<Vec<(String, StoredTensor)>, LoadError> {
    if entries.0.len() > MAX_TENSORS {
        return Err(LoadError::TooManyTensors {
            file: path.to_owned(),
            limit: MAX_TENSORS,
        });
    }
    let mut seen = HashSet::with_capacity(entries.0.len());
    for (name, entry) in &entries.0 {
        if let Some(fault) = tensor_name::fault(name) {
            return Err(LoadError::corrupt(
                path,
                format!("tensor name {name:?} {fault}"),
            ));
        }
        if !seen.insert(name.as_str()) {
            return Err(LoadError::DuplicateTensor(name.clone()));
        }
        if let Some(fault) = entry.fault(data_bytes) {
            return Err(LoadError::corrupt(path, format!("tensor `{name}` {fault}")));
        }
    }
    if let Some((first, second)) = first_overlap(&entries.0) {
        return Err(LoadError::corrupt(
            path,
            format!("tensor `{first}` overlaps `{second}`"),
        ));
    }
    Ok(entries
        .0
        .into_iter()
        .map(|(name, entry)| (name, entry.into()))
        .collect())
}

fn first_overlap(entries: &[(String, Entry)]) -> Option<(&str, &str)> {
    let mut sorted: Vec<_> = entries
        .iter()
        .filter(|(_, e)| e.begin() < e.end())
        .collect();
    sorted.sort_unstable_by_key(|(_, entry)| entry.begin());
    sorted
        .windows(2)
        .find(|pair| pair[0].1.end() > pair[1].1.begin())
        .map(|pair| (pair[0].0.as_str(), pair[1].0.as_str()))
}

/// One tensor as the JSON describes it.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn begin(&self) -> u64 {
        self.data_offsets.0
    }

    fn end(&self) -> u64 {
        self.data_offsets.1
    }

    /// What is wrong with this entry in a file with `data_bytes` of data.
    fn fault(&self, data_bytes: u64) -> Option<String> {
        if self.shape.len() > MAX_DIMENSIONS {
            return Some(format!("has {} dimensions", self.shape.len()));
        }
        if self.end() < self.begin() {
            return Some("ends before it begins".to_owned());
        }
        if self.end() > data_bytes {
            return Some("lies outside the file".to_owned());
        }
        let Some(elements) = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) else {
            return Some(format!("has the shape {:?}, which overflows", self.shape));
        };
        let size_bytes = Dtype::parse(&self.dtype)?
            .size_bytes()
            .checked_mul(elements);
        let found = self.end() - self.begin();
        match size_bytes {
            None => Some(format!("has the shape {:?}, which overflows", self.shape)),
            Some(size) if size as u64 != found => Some(format!("needs {size} bytes, has {found}")),
            Some(_) => None,
        }
    }
}

impl From<Entry> for StoredTensor {
    fn from(entry: Entry) -> Self {
        let (begin, end) = entry.data_offsets;
        Self {
            dtype: Dtype::parse(&entry.dtype),
            dtype_name: entry.dtype,
            shape: entry.shape,
            begin,
            end,
        }
    }
}

/// All entries in the order of the file, equal names included: a map would let the last one win.
#[derive(Debug)]
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA_KEY {
                map.next_value::<IgnoredAny>()?;
            } else if entries.len() > MAX_TENSORS {
                // One too many is remembered, so that the check refuses the file; the rest is not.
                map.next_value::<IgnoredAny>()?;
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Entries(entries))
    }
}

/// Checks that a type called `dtype`, whose largest number is `largest`, can hold `values`.
///
/// # Errors
/// [`LoadError::NonFinite`] or [`LoadError::TooLarge`].
pub(crate) fn check_values(
    name: &str,
    values: &[f32],
    largest: f32,
    dtype: &'static str,
) -> Result<(), LoadError> {
    if values.iter().all(|value| value.abs() <= largest) {
        return Ok(());
    }
    let name = name.to_owned();
    if values.iter().all(|value| value.is_finite()) {
        return Err(LoadError::TooLarge { name, dtype });
    }
    Err(LoadError::NonFinite(name))
}

/// [`write_header_of`] for f32.
///
/// # Errors
/// When writing fails.
pub(crate) fn write_header<'a>(
    out: &mut impl Write,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> io::Result<()> {
    write_header_of(out, Dtype::F32, tensors)
}

/// Writes the header of a file that holds `tensors` as `dtype`, one after the other without gaps.
///
/// # Errors
/// When writing fails.
pub(crate) fn write_header_of<'a>(
    out: &mut impl Write,
    dtype: Dtype,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> io::Result<()> {
    let mut json = format!("{{\"{METADATA_KEY}\":{{\"format\":\"pt\"}}");
    let mut begin = 0u64;
    for (name, shape) in tensors {
        let end = begin + (dtype.size_bytes() * shape.iter().product::<usize>()) as u64;
        let entry = serde_json::json!(
            {"dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end]}
        );
        json.push(',');
        json.push_str(&serde_json::Value::from(name).to_string());
        json.push(':');
        json.push_str(&entry.to_string());
        begin = end;
    }
    json.push('}');
    // Readers that map the file want the values aligned.
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    out.write_all(&(json.len() as u64).to_le_bytes())?;
    out.write_all(json.as_bytes())
}
