//! Writes a GGUF file tensor by tensor: no more than one is in memory at a time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::quantize::{GgufDtype, Written};
use super::write::{self, MetadataList, TensorEntry};
use crate::error::LoadError;

/// Values encoded at a time: a whole number of blocks of any type.
const CHUNK_VALUES: usize = 1 << 16;

/// A file to be written, all but the values. `C` says where a tensor's values come from.
pub(crate) struct GgufFile<C> {
    metadata: MetadataList,
    tensors: Vec<Planned<C>>,
    data_bytes: u64,
}

struct Planned<C> {
    content: C,
    entry: TensorEntry,
    written: Written,
    size_bytes: u64,
    n_values: usize,
}

impl<C> GgufFile<C> {
    pub(crate) fn new(metadata: MetadataList) -> Self {
        Self {
            metadata,
            tensors: Vec::new(),
            data_bytes: 0,
        }
    }

    /// Adds a tensor. Vectors become f32, whatever `dtype` is.
    ///
    /// # Errors
    /// [`LoadError::NotGguf`] when the format has no room for it.
    pub(crate) fn add(
        &mut self,
        name: String,
        shape: &[usize],
        dtype: GgufDtype,
        content: C,
    ) -> Result<(), LoadError> {
        let written = dtype.of_tensor(shape);
        let kind = written.tensor_type();
        let Some(size_bytes) = kind.size_bytes(shape) else {
            let what = format!("tensor `{name}` has the shape {shape:?}");
            return Err(LoadError::NotGguf(what));
        };
        self.tensors.push(Planned {
            content,
            entry: TensorEntry {
                name,
                dimensions: shape.iter().rev().map(|&n| n as u64).collect(),
                type_code: kind.code(),
                offset: self.data_bytes,
            },
            written,
            size_bytes,
            n_values: shape.iter().product(),
        });
        self.data_bytes = (self.data_bytes + size_bytes).next_multiple_of(write::ALIGNMENT as u64);
        Ok(())
    }

    /// Writes the file to `path`, which must not exist; `values` gives a tensor's values, row by row.
    ///
    /// # Errors
    /// Whatever `values` raises; when a value does not fit the type, or writing fails.
    pub(crate) fn write(
        &self,
        path: &Path,
        mut values: impl FnMut(&C) -> Result<Vec<f32>, LoadError>,
    ) -> Result<(), LoadError> {
        let file = File::create_new(path).map_err(LoadError::io(path))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let entries: Vec<_> = self.tensors.iter().map(|t| t.entry.clone()).collect();
        let header = write::header(&self.metadata, &entries);
        out.write_all(&header).map_err(LoadError::io(path))?;
        let mut raw = Vec::new();
        for tensor in &self.tensors {
            let values = values(&tensor.content)?;
            assert_eq!(values.len(), tensor.n_values, "{}", tensor.entry.name);
            tensor.written.check(&tensor.entry.name, &values)?;
            for part in values.chunks(CHUNK_VALUES) {
                raw.clear();
                tensor.written.encode(part, &mut raw);
                out.write_all(&raw).map_err(LoadError::io(path))?;
            }
            write::write_padding(&mut out, tensor.size_bytes).map_err(LoadError::io(path))?;
        }
        let file = out
            .into_inner()
            .map_err(|error| LoadError::io(path)(error.into_error()))?;
        file.sync_all().map_err(LoadError::io(path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::super::rows::interleaved;
    use super::*;
    use crate::config::ModelConfig;
    use crate::safetensors_file::Dtype;
    use crate::testing::tiny_config;
    use crate::{Adapter, Device, LoraConfig, Target};
    use burn::tensor::{Tensor, TensorData};

    /// Numbers that say where they belong: element n of the k-th tensor is `1000·k + n`.
    fn adapter(model: &ModelConfig) -> Adapter {
        let config = LoraConfig {
            rank: 4,
            alpha: 6.0,
            use_dora: false,
            use_rslora: true,
            dropout: 0.0,
            target_modules: vec![Target::Q, Target::Down],
        };
        let mut first = 0u16;
        let built = Adapter::from_tensors(&config, model, |_, [rows, columns]| {
            first += 1000;
            let n = u16::try_from(rows * columns).unwrap();
            let values = (first..first + n).map(f32::from).collect::<Vec<_>>();
            let data = TensorData::new(values, [rows, columns]);
            Ok::<_, LoadError>(Tensor::from_data(data, Device::cpu().as_burn()))
        });
        built.unwrap()
    }

    /// As llama.cpp's converter has it: A as PEFT has it, B too, but for q's rows.
    #[test]
    fn an_adapter_has_the_names_shapes_and_order_that_llama_cpp_reads() {
        let config = tiny_config().to_string();
        let model = ModelConfig::from_json(config.as_bytes()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.gguf");
        let adapter = adapter(&model);
        adapter.export_gguf(&path, &model, Dtype::F32).unwrap();

        let header = header::read(&path, &mut File::open(&path).unwrap()).unwrap();
        let metadata = &header.metadata;
        let text = |key: &str| metadata.get_str(key).unwrap();
        assert_eq!(text("general.architecture"), "llama");
        assert_eq!(text("general.type"), "adapter");
        assert_eq!(text("adapter.type"), "lora");
        // llama.cpp's factor is alpha / rank, ours alpha / √rank.
        let alpha = metadata.get_f64("adapter.lora.alpha").unwrap();
        assert!((alpha / 4.0 - adapter.config().scale()).abs() < 1e-6);

        let bytes = std::fs::read(&path).unwrap();
        let tensor = |name: &str, shape: [usize; 2]| {
            let info = &header.tensors[name];
            assert_eq!(info.shape, shape, "{name}");
            let begin = usize::try_from(info.offset).unwrap();
            let raw = &bytes[begin..begin + 4 * shape[0] * shape[1]];
            let values = raw.as_chunks().0.iter().copied().map(f32::from_le_bytes);
            values.collect::<Vec<_>>()
        };
        assert_eq!(header.tensors.len(), 8);
        let a = tensor("blk.0.attn_q.weight.lora_a", [4, 32]);
        assert_eq!(a[..3], [1000.0, 1004.0, 1008.0]);
        let b = tensor("blk.0.attn_q.weight.lora_b", [32, 4]);
        // Row n begins with n; the rows of a head of eight are 0 4 1 5 2 6 3 7.
        let in_order: Vec<f32> = (0..32)
            .flat_map(|row| (0..4u16).map(move |rank| f32::from(2000 + rank * 32 + row)))
            .collect();
        assert_eq!(b, interleaved(&in_order, 32, 4));
        assert_eq!(
            b[..8],
            [
                2000.0, 2032.0, 2064.0, 2096.0, 2004.0, 2036.0, 2068.0, 2100.0
            ]
        );
        let down = tensor("blk.0.ffn_down.weight.lora_b", [32, 4]);
        assert_eq!(
            down[..8],
            [
                4000.0, 4032.0, 4064.0, 4096.0, 4001.0, 4033.0, 4065.0, 4097.0
            ]
        );
    }
}
