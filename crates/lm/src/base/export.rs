//! Writes a base model, with an adapter in it if there is one, as the folder that Hugging Face's
//! libraries load: sharded, streamed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{BaseFiles, CONFIG_FILE, pretty, weights};
use crate::error::LoadError;
use crate::learned::Learned;
use crate::safetensors_file::{Dtype, write_header_of};
use crate::staging;
use crate::weights::WeightSource;

/// Largest weight file we write, as Hugging Face's own writer does by default.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;
/// Values written at a time.
const CHUNK_VALUES: usize = 1 << 16;
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Tensors of one weight file, name and shape.
type Shard<'a> = &'a [(String, Vec<usize>)];

impl BaseFiles {
    /// Writes the model to `out`, a folder that must not exist yet or be empty; it is whole or absent.
    /// With something `learned`, its weights are those that training made of them. No more than one
    /// tensor is in memory at a time.
    ///
    /// # Errors
    /// When `out` holds something, a tensor cannot be read or does not fit `dtype`, or writing fails.
    pub fn export(
        &self,
        out: &Path,
        learned: Option<&Learned>,
        dtype: Dtype,
    ) -> Result<(), LoadError> {
        self.export_sharded(out, learned, dtype, MAX_SHARD_BYTES)
    }

    fn export_sharded(
        &self,
        out: &Path,
        learned: Option<&Learned>,
        dtype: Dtype,
        max_shard_bytes: u64,
    ) -> Result<(), LoadError> {
        let mut source = self.source()?;
        let tensors = source.tensors();
        let mut write = |weights: &mut dyn WeightSource| {
            let mut shards = Shards {
                dtype,
                max_bytes: max_shard_bytes,
                weights,
            };
            staging::folder(out, |folder| {
                self.write_documents(folder, dtype)?;
                shards.write(folder, &tensors)
            })
        };
        weights(&mut source, learned, &mut write)
    }

    fn write_documents(&self, folder: &Path, dtype: Dtype) -> Result<(), LoadError> {
        for (name, bytes) in self.documents() {
            let path = folder.join(name);
            if name == CONFIG_FILE {
                let bytes = pretty(&config_in(dtype, &path, bytes)?);
                write_synced(&path, &bytes)?;
            } else {
                write_synced(&path, bytes)?;
            }
        }
        Ok(())
    }
}

/// The configuration of the same model with its weights in `dtype`.
fn config_in(dtype: Dtype, path: &Path, config_json: &[u8]) -> Result<Value, LoadError> {
    let mut config: Map<String, Value> =
        serde_json::from_slice(config_json).map_err(|source| LoadError::Json {
            file: path.to_owned(),
            source,
        })?;
    // Newer files say `dtype`; two answers would be one too many.
    config.remove("dtype");
    config.insert("torch_dtype".to_owned(), dtype.torch_name().into());
    Ok(Value::Object(config))
}

/// Weights on their way into files.
struct Shards<'a> {
    dtype: Dtype,
    max_bytes: u64,
    weights: &'a mut dyn WeightSource,
}

impl Shards<'_> {
    fn write(&mut self, folder: &Path, tensors: &[(String, Vec<usize>)]) -> Result<(), LoadError> {
        let shards = into_shards(tensors, self.dtype, self.max_bytes);
        let mut weight_map = Map::new();
        for (index, shard) in shards.iter().enumerate() {
            let name = shard_name(index, shards.len());
            self.write_shard(&folder.join(&name), shard)?;
            weight_map.extend(
                shard
                    .iter()
                    .map(|(tensor, _)| (tensor.clone(), name.clone().into())),
            );
        }
        if shards.len() > 1 {
            let sizes = tensors
                .iter()
                .map(|(_, shape)| size_bytes(shape, self.dtype));
            let total: u64 = sizes.sum();
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            write_synced(&folder.join(INDEX_FILE), &pretty(&index))?;
        }
        Ok(())
    }

    fn write_shard(&mut self, path: &Path, shard: Shard) -> Result<(), LoadError> {
        let file = File::create_new(path).map_err(LoadError::io(path))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let entries = shard
            .iter()
            .map(|(name, shape)| (name.as_str(), shape.as_slice()));
        write_header_of(&mut out, self.dtype, entries).map_err(LoadError::io(path))?;
        let mut raw = Vec::new();
        for (name, shape) in shard {
            let values = self.weights.tensor(name, shape)?;
            self.dtype.check(name, &values)?;
            for part in values.chunks(CHUNK_VALUES) {
                raw.clear();
                self.dtype.narrow(part, &mut raw);
                out.write_all(&raw).map_err(LoadError::io(path))?;
            }
        }
        let file = out
            .into_inner()
            .map_err(|error| LoadError::io(path)(error.into_error()))?;
        file.sync_all().map_err(LoadError::io(path))
    }
}

/// Cuts the list where the next tensor would make a file too large. A single tensor may.
fn into_shards(
    tensors: &[(String, Vec<usize>)],
    dtype: Dtype,
    max_shard_bytes: u64,
) -> Vec<Shard<'_>> {
    let (mut shards, mut begin, mut filled) = (Vec::new(), 0, 0u64);
    for (index, (_, shape)) in tensors.iter().enumerate() {
        let size = size_bytes(shape, dtype);
        if index > begin && filled + size > max_shard_bytes {
            shards.push(&tensors[begin..index]);
            (begin, filled) = (index, 0);
        }
        filled += size;
    }
    shards.push(&tensors[begin..]);
    shards
}

fn shard_name(index: usize, n_shards: usize) -> String {
    match n_shards {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", index + 1),
    }
}

fn size_bytes(shape: &[usize], dtype: Dtype) -> u64 {
    (dtype.size_bytes() * shape.iter().product::<usize>()) as u64
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    let mut file = File::create_new(path).map_err(LoadError::io(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(LoadError::io(path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::write_tiny_base;

    fn shapes(sizes: &[usize]) -> Vec<(String, Vec<usize>)> {
        sizes
            .iter()
            .enumerate()
            .map(|(i, &n)| (i.to_string(), vec![n]))
            .collect()
    }

    #[test]
    fn shards_are_cut_before_they_grow_too_large() {
        let tensors = shapes(&[1, 1, 2, 9, 1]);
        let lengths: Vec<_> = into_shards(&tensors, Dtype::F32, 16)
            .iter()
            .map(|shard| shard.len())
            .collect();
        assert_eq!(lengths, [3, 1, 1]);
        assert_eq!(into_shards(&tensors, Dtype::F32, 1 << 20).len(), 1);
    }

    #[test]
    fn a_sharded_export_reads_back_value_for_value() {
        let folder = tempfile::tempdir().unwrap();
        let (base, out) = (folder.path().join("base"), folder.path().join("out"));
        write_tiny_base(&base, 1);
        let base = BaseFiles::open(&base).unwrap();
        base.export_sharded(&out, None, Dtype::F32, 20_000).unwrap();
        let exported = BaseFiles::open(&out).unwrap();
        assert!(exported.weight_files().len() > 2);
        assert!(out.join(INDEX_FILE).is_file());
        let (mut before, mut after) = (base.source().unwrap(), exported.source().unwrap());
        assert_eq!(before.tensors(), after.tensors());
        for (name, shape) in before.tensors() {
            let values = before.as_weights().tensor(&name, &shape).unwrap();
            assert_eq!(
                after.as_weights().tensor(&name, &shape).unwrap(),
                values,
                "{name}"
            );
        }
    }

    #[test]
    fn an_occupied_folder_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        write_tiny_base(&base, 1);
        let files = BaseFiles::open(&base).unwrap();
        let error = files.export(&base, None, Dtype::F32).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
        assert!(base.join(CONFIG_FILE).is_file());
    }

    #[test]
    fn a_failed_export_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("base"), folder.path().join("out"));
        write_tiny_base(&path, 1);
        let base = BaseFiles::open(&path).unwrap();
        fs::remove_file(&base.weight_files()[0]).unwrap();
        base.export(&out, None, Dtype::F32).unwrap_err();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
