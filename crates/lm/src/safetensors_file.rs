//! Safetensors files as a source of weights: the header is parsed under limits, the values are
//! read from disk tensor by tensor.
//!
//! The header is parsed here and not by the safetensors crate, which lets the last of two equal
//! names win and has no limit on the number of tensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::LoadError;
use crate::weights::WeightSource;

mod header;

pub use header::Dtype;
use header::StoredTensor;
pub(crate) use header::{check_values, write_header, write_header_of};

/// Bytes read at a time: a multiple of every element size.
const CHUNK_BYTES: usize = 1 << 20;

/// One open safetensors file.
#[derive(Debug)]
struct SafetensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
}

/// The tensors of one or several safetensors files (the shards of one model).
#[derive(Debug)]
pub struct SafetensorsSource {
    files: Vec<SafetensorsFile>,
    /// Name to the index of its file and its place there.
    tensors: HashMap<String, (usize, StoredTensor)>,
}

impl SafetensorsSource {
    /// Opens `paths` and checks their headers; reads no values.
    ///
    /// # Errors
    /// When a file cannot be read, a header is too large or contradicts itself or the file's size,
    /// or a tensor name is odd or occurs twice.
    pub fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut files = Vec::with_capacity(paths.len());
        let mut tensors = HashMap::new();
        for path in paths {
            let mut file = File::open(path).map_err(LoadError::io(path))?;
            let header = header::read(path, &mut file)?;
            for (name, tensor) in header.tensors {
                if tensors.contains_key(&name) {
                    return Err(LoadError::DuplicateTensor(name));
                }
                tensors.insert(name, (files.len(), tensor));
            }
            files.push(SafetensorsFile {
                path: path.clone(),
                file,
                data_start: header.data_start,
            });
        }
        Ok(Self { files, tensors })
    }

    /// Names and shapes of all tensors, sorted by name.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut all: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, (_, t))| (name.clone(), t.shape.clone()))
            .collect();
        all.sort_unstable();
        all
    }

    /// How the tensor of that name is stored; `None` when there is none or its type is not supported.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name)?.1.dtype
    }

    /// The index of a tensor's file, its type, and where it lies there.
    fn find(&self, name: &str, shape: &[usize]) -> Result<(usize, Dtype, Range<u64>), LoadError> {
        let (index, stored) = self
            .tensors
            .get(name)
            .ok_or_else(|| LoadError::MissingTensor(name.to_owned()))?;
        if stored.shape != shape {
            return Err(LoadError::WrongShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: stored.shape.clone(),
            });
        }
        let dtype = stored.dtype.ok_or_else(|| LoadError::UnsupportedDtype {
            name: name.to_owned(),
            dtype: stored.dtype_name.clone(),
        })?;
        Ok((*index, dtype, stored.begin..stored.end))
    }
}

impl WeightSource for SafetensorsSource {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let (index, dtype, place) = self.find(name, shape)?;
        let mut all = Vec::with_capacity(shape.iter().product());
        let take = |values: &[f32]| all.extend_from_slice(values);
        self.files[index].read(dtype, place, CHUNK_BYTES, take)?;
        Ok(all)
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn rows(
        &mut self,
        name: &str,
        shape: [usize; 2],
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        let (index, dtype, place) = self.find(name, &shape)?;
        let row_bytes = shape[1] * dtype.size_bytes();
        let n_rows = (CHUNK_BYTES / row_bytes).max(1);
        self.files[index].read(dtype, place, n_rows * row_bytes, take)
    }
}

impl SafetensorsFile {
    /// Hands `take` the values of `dtype` between two offsets that the header check has found to be in the file, as many
    /// as `piece` bytes hold at a time.
    fn read(
        &mut self,
        dtype: Dtype,
        place: Range<u64>,
        piece: usize,
        mut take: impl FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        let path: &Path = &self.path;
        self.file
            .seek(SeekFrom::Start(self.data_start + place.start))
            .map_err(LoadError::io(path))?;
        let mut left = usize::try_from(place.end - place.start)
            .map_err(|_| LoadError::corrupt(path, "a tensor is larger than memory"))?;
        let mut chunk = vec![0; piece.min(left)];
        let mut values = Vec::with_capacity(chunk.len() / dtype.size_bytes());
        while left > 0 {
            let part = &mut chunk[..piece.min(left)];
            self.file.read_exact(part).map_err(LoadError::io(path))?;
            values.clear();
            dtype.widen(part, &mut values);
            take(&values);
            left -= part.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::safetensors_bytes;

    fn open(bytes: &[u8]) -> Result<SafetensorsSource, LoadError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        fs::write(&path, bytes).unwrap();
        SafetensorsSource::open(&[path])
    }

    fn raw(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn values_of_every_supported_dtype_come_out_as_f32() {
        let header = r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
            "b":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
            "c":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},"__metadata__":{"format":"pt"}}"#;
        let mut data = Vec::new();
        data.extend_from_slice(&1.5f32.to_le_bytes());
        data.extend_from_slice(&(-2.0f32).to_le_bytes());
        data.extend_from_slice(&[0x00, 0x3c, 0x00, 0xc0]); // 1, -2 as f16
        data.extend_from_slice(&[0x80, 0x3f, 0x00, 0xc0]); // 1, -2 as bf16
        let mut source = open(&raw(header, &data)).unwrap();
        assert_eq!(source.tensor("a", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert_eq!(source.tensor("b", &[2]).unwrap(), [1.0, -2.0]);
        assert_eq!(source.tensor("c", &[2]).unwrap(), [1.0, -2.0]);
        assert!(source.contains("a") && !source.contains("__metadata__"));
    }

    #[test]
    fn a_wrong_shape_and_a_missing_name_are_named() {
        let mut source = open(&safetensors_bytes(&[("a", vec![2], vec![1.0, 2.0])])).unwrap();
        let message = source.tensor("a", &[1, 2]).unwrap_err().to_string();
        assert_eq!(message, "tensor `a` has shape [2], expected [1, 2]");
        assert!(matches!(source.tensor("b", &[2]), Err(LoadError::MissingTensor(n)) if n == "b"));
    }

    #[test]
    fn an_unsupported_dtype_is_refused_by_name_when_it_is_asked_for() {
        let header = r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#;
        let mut source = open(&raw(header, &[0, 0])).unwrap();
        let message = source.tensor("a", &[2]).unwrap_err().to_string();
        assert_eq!(
            message,
            "tensor `a` is stored as F8_E4M3, which is not supported"
        );
    }

    #[test]
    fn a_name_in_two_shards_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["1", "2"].map(|n| directory.path().join(format!("{n}.safetensors")));
        for path in &paths {
            fs::write(path, safetensors_bytes(&[("a", vec![1], vec![1.0])])).unwrap();
        }
        let error = SafetensorsSource::open(&paths).unwrap_err();
        assert!(matches!(error, LoadError::DuplicateTensor(name) if name == "a"));
    }

    #[test]
    fn lying_headers_are_refused() {
        let tensor = |shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                        "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                          "b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#;
        let path = r#"{"../../etc/x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let cases = [
            (tensor("[2]", "[0,4]"), "needs 8 bytes"),
            (tensor("[4]", "[0,16]"), "outside the file"),
            (tensor("[1]", "[4,0]"), "ends before it begins"),
            (
                tensor("[4294967296,4294967296,4294967296]", "[0,8]"),
                "overflows",
            ),
            (tensor("[1]", "[0]"), "not the JSON"),
            (twice.to_owned(), "occurs twice"),
            (overlap.to_owned(), "overlaps"),
            (path.to_owned(), "looks like a path"),
            ("[]".to_owned(), "not the JSON"),
            (String::new(), "not the JSON"),
        ];
        for (header, expected) in cases {
            let message = open(&raw(&header, &[0; 8])).unwrap_err().to_string();
            assert!(message.contains(expected), "{header}: {message}");
        }
    }

    #[test]
    fn a_header_length_beyond_the_file_or_the_limit_is_refused_before_it_is_read() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(matches!(
            open(&bytes),
            Err(LoadError::HeaderTooLarge { .. })
        ));
        let mut bytes = 100u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(matches!(open(&bytes), Err(LoadError::Corrupt { .. })));
        assert!(matches!(open(b"abc"), Err(LoadError::Corrupt { .. })));
    }

    #[test]
    fn more_tensors_than_the_limit_are_refused() {
        let one = r#":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let names: Vec<_> = (0..=header::MAX_TENSORS)
            .map(|i| format!("\"{i}\"{one}"))
            .collect();
        let error = open(&raw(&format!("{{{}}}", names.join(",")), &[])).unwrap_err();
        assert!(matches!(error, LoadError::TooManyTensors { .. }), "{error}");
    }
}
