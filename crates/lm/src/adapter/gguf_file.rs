//! An adapter alone as a GGUF file, which llama.cpp puts on the base model when it loads that.

use std::path::Path;

use super::{Adapter, files::transposed};
use crate::config::ModelConfig;
use crate::error::LoadError;
use crate::gguf::config_document::InterleavedHeads;
use crate::gguf::{GgufDtype, GgufFile, MetadataValue, model_metadata, names, rows};
use crate::merge::values;
use crate::safetensors_file::Dtype;
use crate::staging;

impl Adapter {
    /// Writes the adapter of `model` to the file `out`, which must not exist yet; it is whole or absent.
    ///
    /// # Errors
    /// When the adapter is one that llama.cpp does not know, `out` exists, a value does not fit `dtype`, or writing fails.
    pub fn export_gguf(
        &self,
        out: &Path,
        model: &ModelConfig,
        dtype: Dtype,
    ) -> Result<(), LoadError> {
        if self.config.use_dora {
            let what = "llama.cpp knows no adapters that scale rows (`use_dora`); merge it into its base instead";
            return Err(LoadError::NotGguf(what.to_owned()));
        }
        let file = self.gguf_file(out, model, dtype.into())?;
        staging::file(out, |path| file.write(path, |factor| Ok(factor.clone())))
    }

    fn gguf_file(
        &self,
        out: &Path,
        model: &ModelConfig,
        dtype: GgufDtype,
    ) -> Result<GgufFile<Vec<f32>>, LoadError> {
        let name = out.file_stem().unwrap_or_default().to_string_lossy();
        let mut metadata = model_metadata::general(model, "adapter", &name, dtype);
        metadata.push(("adapter.type".to_owned(), MetadataValue::string("lora")));
        metadata.push(("adapter.lora.alpha".to_owned(), self.gguf_alpha()));
        let mut file = GgufFile::new(metadata);
        let heads = InterleavedHeads::of_model(model);
        for (layer, target, pair) in self.pairs() {
            let weight = target.weight_name(layer);
            let gguf_name =
                names::gguf(&weight).ok_or_else(|| LoadError::UnexpectedTensor(weight.clone()))?;
            let ([n_in, rank], [_, n_out]) = (pair.a.dims(), pair.b.dims());
            let a = transposed(&values(&pair.a), n_in, rank);
            let b = transposed(&values(&pair.b), rank, n_out);
            let b = match heads.for_tensor(&weight) {
                Some(n_heads) => rows::interleaved(&b, n_out, n_heads),
                None => b,
            };
            for (suffix, shape, values) in
                [("lora_a", [rank, n_in], a), ("lora_b", [n_out, rank], b)]
            {
                let name = format!("{gguf_name}.{suffix}");
                file.add(name, &shape, dtype, values)?;
            }
        }
        Ok(file)
    }

    /// llama.cpp divides by the rank, whatever our scale divides by.
    #[expect(clippy::cast_possible_truncation, reason = "GGUF keeps it in f32")]
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    fn gguf_alpha(&self) -> MetadataValue {
        MetadataValue::F32((self.config.scale() * self.config.rank as f64) as f32)
    }
}
