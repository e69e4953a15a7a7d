//! Writes a base model as the folder that Hugging Face's libraries load: f32, sharded, streamed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{BaseFiles, CONFIG_FILE, Source, pretty};
use crate::error::LoadError;
use crate::safetensors_file::write_header;

/// Largest weight file we write, as Hugging Face's own writer does by default.
const MAX_SHARD_BYTES: u64 = 5_000_000_000;
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Tensors of one weight file, name and shape.
type Shard<'a> = &'a [(String, Vec<usize>)];

impl BaseFiles {
    /// Writes the model to `out`, a folder that must not exist yet or be empty. The files are
    /// written to a folder beside it, which is then renamed: `out` is whole or absent. No more than
    /// one tensor is in memory at a time.
    ///
    /// # Errors
    /// When `out` holds something, a tensor cannot be read, or writing fails.
    pub fn export(&self, out: &Path) -> Result<(), LoadError> {
        self.export_sharded(out, MAX_SHARD_BYTES)
    }

    fn export_sharded(&self, out: &Path, max_shard_bytes: u64) -> Result<(), LoadError> {
        refuse_occupied(out)?;
        let staging = staging_folder(out)?;
        let written = self
            .write_documents(&staging)
            .and_then(|()| write_weights(&staging, &mut self.source()?, max_shard_bytes))
            // Renaming replaces an empty folder.
            .and_then(|()| fs::rename(&staging, out).map_err(LoadError::io(out)));
        if written.is_err() {
            // The first error is the one to report; what is left behind is named like a leftover.
            drop(fs::remove_dir_all(&staging));
        }
        written
    }

    fn write_documents(&self, folder: &Path) -> Result<(), LoadError> {
        for (name, bytes) in self.documents() {
            let path = folder.join(name);
            if name == CONFIG_FILE {
                let bytes = pretty(&f32_config(&path, bytes)?);
                write_synced(&path, &bytes)?;
            } else {
                write_synced(&path, bytes)?;
            }
        }
        Ok(())
    }
}

/// The configuration of the same model with its weights in f32.
fn f32_config(path: &Path, config_json: &[u8]) -> Result<Value, LoadError> {
    let mut config: Map<String, Value> =
        serde_json::from_slice(config_json).map_err(|source| LoadError::Json {
            file: path.to_owned(),
            source,
        })?;
    // Newer files say `dtype`; two answers would be one too many.
    config.remove("dtype");
    config.insert("torch_dtype".to_owned(), "float32".into());
    Ok(Value::Object(config))
}

fn refuse_occupied(out: &Path) -> Result<(), LoadError> {
    match fs::read_dir(out).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(LoadError::Occupied(out.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(LoadError::io(out)(error)),
    }
}

/// A new folder on the same file system as `out`, so that it can be renamed to it.
fn staging_folder(out: &Path) -> Result<PathBuf, LoadError> {
    let absolute = std::path::absolute(out).map_err(LoadError::io(out))?;
    let parent = absolute.parent().unwrap_or(&absolute);
    fs::create_dir_all(parent).map_err(LoadError::io(parent))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let staging = parent.join(format!(".{name}.partial-{}", std::process::id()));
    fs::create_dir(&staging).map_err(LoadError::io(&staging))?;
    Ok(staging)
}

fn write_weights(
    folder: &Path,
    source: &mut Source,
    max_shard_bytes: u64,
) -> Result<(), LoadError> {
    let tensors = source.tensors();
    let shards = into_shards(&tensors, max_shard_bytes);
    let mut weight_map = Map::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = shard_name(index, shards.len());
        write_shard(&folder.join(&name), shard, source)?;
        weight_map.extend(
            shard
                .iter()
                .map(|(tensor, _)| (tensor.clone(), name.clone().into())),
        );
    }
    if shards.len() > 1 {
        let total: u64 = tensors.iter().map(|(_, shape)| size_bytes(shape)).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_synced(&folder.join(INDEX_FILE), &pretty(&index))?;
    }
    Ok(())
}

/// Cuts the list where the next tensor would make a file too large. A single tensor may.
fn into_shards(tensors: &[(String, Vec<usize>)], max_shard_bytes: u64) -> Vec<Shard<'_>> {
    let (mut shards, mut begin, mut filled) = (Vec::new(), 0, 0u64);
    for (index, (_, shape)) in tensors.iter().enumerate() {
        let size = size_bytes(shape);
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

fn size_bytes(shape: &[usize]) -> u64 {
    4 * shape.iter().product::<usize>() as u64
}

fn write_shard(path: &Path, shard: Shard, source: &mut Source) -> Result<(), LoadError> {
    let file = File::create_new(path).map_err(LoadError::io(path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let entries = shard
        .iter()
        .map(|(name, shape)| (name.as_str(), shape.as_slice()));
    write_header(&mut out, entries).map_err(LoadError::io(path))?;
    for (name, shape) in shard {
        for value in source.as_weights().tensor(name, shape)? {
            out.write_all(&value.to_le_bytes())
                .map_err(LoadError::io(path))?;
        }
    }
    let file = out
        .into_inner()
        .map_err(|error| LoadError::io(path)(error.into_error()))?;
    file.sync_all().map_err(LoadError::io(path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    let mut file = File::create_new(path).map_err(LoadError::io(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(LoadError::io(path))
}

#[cfg(test)]
mod tests {
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
        let lengths: Vec<_> = into_shards(&tensors, 16)
            .iter()
            .map(|shard| shard.len())
            .collect();
        assert_eq!(lengths, [3, 1, 1]);
        assert_eq!(into_shards(&tensors, 1 << 20).len(), 1);
    }

    #[test]
    fn a_sharded_export_reads_back_value_for_value() {
        let folder = tempfile::tempdir().unwrap();
        let (base, out) = (folder.path().join("base"), folder.path().join("out"));
        write_tiny_base(&base, 1);
        let base = BaseFiles::open(&base).unwrap();
        base.export_sharded(&out, 20_000).unwrap();
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
        let error = BaseFiles::open(&base).unwrap().export(&base).unwrap_err();
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
        base.export(&out).unwrap_err();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
