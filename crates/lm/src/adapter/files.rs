//! `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes and reads them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Adapter, MAGNITUDE, matrix};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::LoadError;
use crate::lora::{LoraConfig, Target};
use crate::safetensors_file::{SafetensorsSource, write_header};
use crate::weights::WeightSource;

pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
pub(crate) const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// An honest one has a kilobyte.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

impl Adapter {
    /// Writes the adapter into `dir`, which is created, for the base model that PEFT's users know
    /// as `base_name`. Each file is there whole or not at all.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path, base_name: &str) -> Result<(), LoadError> {
        fs::create_dir_all(dir).map_err(LoadError::io(dir))?;
        write_atomically(&dir.join(WEIGHTS_FILE), |out| self.write_weights(out))?;
        let mut document = serde_json::to_vec_pretty(&config_document(&self.config, base_name))
            .expect("a JSON value serialises");
        document.push(b'\n');
        write_atomically(&dir.join(CONFIG_FILE), |out| out.write_all(&document))?;
        // The renames themselves become durable with their directory.
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(LoadError::io(dir))
    }

    /// Reads an adapter for `model` from the two files in `dir`.
    ///
    /// # Errors
    /// When a file is missing, corrupt or lies about its contents, when the adapter uses a variant
    /// of LoRA that is not supported, or when it was made for a model of other dimensions.
    pub fn load(dir: &Path, model: &ModelConfig, device: &Device) -> Result<Self, LoadError> {
        let config = read_config(&dir.join(CONFIG_FILE))?;
        let path = dir.join(WEIGHTS_FILE);
        if !path.exists() {
            return Err(LoadError::MissingFile(path));
        }
        let mut source = SafetensorsSource::open(&[path])?;
        let mut unused: BTreeSet<_> = source.tensors().into_iter().map(|(name, _)| name).collect();
        let adapter = Self::from_tensors(&config, model, |name, [rows, columns]| {
            let values = source.tensor(name, &file_shape(name, [rows, columns]))?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(LoadError::NonFinite(name.to_owned()));
            }
            unused.remove(name);
            // Copied into place: a transposed view would be copied in every step instead.
            Ok(matrix(
                transposed(&values, columns, rows),
                [rows, columns],
                device,
            ))
        })?;
        match unused.pop_first() {
            Some(name) => Err(LoadError::UnexpectedTensor(name)),
            None => Ok(adapter),
        }
    }

    fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        let tensors: Vec<_> = self.named_tensors().collect();
        let shapes: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| {
                let shape = file_shape(name, tensor.dims());
                (name.as_str(), shape)
            })
            .collect();
        let mut out = BufWriter::new(out);
        write_header(
            &mut out,
            shapes.iter().map(|(name, shape)| (*name, shape.as_slice())),
        )?;
        for (_, tensor) in tensors {
            let [rows, columns] = tensor.dims();
            let data = tensor.clone().inner().into_data();
            let values = data.try_to_vec::<f32>().map_err(io::Error::other)?;
            for value in transposed(&values, rows, columns) {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        out.flush()
    }
}

/// The shape that a file gives a tensor: factors lie there transposed, a magnitude is a line.
fn file_shape(name: &str, [rows, columns]: [usize; 2]) -> Vec<usize> {
    if name.ends_with(MAGNITUDE) {
        vec![columns]
    } else {
        vec![columns, rows]
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| values[r * columns + c]))
        .collect()
}

/// Writes beside `path`, makes the bytes durable, then renames.
pub(crate) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), LoadError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    let written = File::create(&aside)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // Nothing of a failed attempt stays; the failure itself is what the caller hears of.
        let _ = fs::remove_file(&aside);
    }
    written.map_err(LoadError::io(path))
}

/// What PEFT 0.21 writes for a LoRA adapter of a causal language model.
fn config_document(config: &LoraConfig, base_name: &str) -> Value {
    let modules: Vec<_> = config.targets().map(Target::module_name).collect();
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": config.alpha,
        "lora_bias": false,
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
    })
}

/// The keys of `adapter_config.json` that change what the adapter computes.
#[expect(clippy::struct_excessive_bools, reason = "PEFT's own keys")]
#[derive(Deserialize)]
struct ConfigDocument {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: Value,
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    alpha_pattern: Value,
    #[serde(default)]
    rank_pattern: Value,
    #[serde(default)]
    layer_replication: Value,
    #[serde(default)]
    layers_to_transform: Value,
    #[serde(default)]
    modules_to_save: Value,
}

fn read_config(path: &Path) -> Result<LoraConfig, LoadError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LoadError::MissingFile(path.to_owned()));
        }
        opened => opened.map_err(LoadError::io(path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(LoadError::io(path))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(LoadError::corrupt(
            path,
            "it is far larger than such a file can be",
        ));
    }
    let document: ConfigDocument =
        serde_json::from_slice(&bytes).map_err(|source| LoadError::Json {
            file: path.to_owned(),
            source,
        })?;
    let config = document.into_config()?;
    config.check()?;
    Ok(config)
}

impl ConfigDocument {
    fn into_config(self) -> Result<LoraConfig, LoadError> {
        let refuse = |what: String| Err(LoadError::AdapterMismatch(what));
        if self.peft_type != "LORA" {
            return refuse(format!(
                "peft_type `{}` is not supported, only LORA",
                self.peft_type
            ));
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return refuse(format!("bias `{bias}` is not supported, only none"));
        }
        let flags = [
            ("fan_in_fan_out", self.fan_in_fan_out),
            ("lora_bias", self.lora_bias),
            ("alpha_pattern", !is_empty(&self.alpha_pattern)),
            ("rank_pattern", !is_empty(&self.rank_pattern)),
            ("layer_replication", !is_empty(&self.layer_replication)),
            ("layers_to_transform", !is_empty(&self.layers_to_transform)),
            ("modules_to_save", !is_empty(&self.modules_to_save)),
        ];
        if let Some((key, _)) = flags.into_iter().find(|(_, set)| *set) {
            return refuse(format!("`{key}` is set, which is not supported"));
        }
        Ok(LoraConfig {
            rank: self.r,
            alpha: self.lora_alpha,
            use_rslora: self.use_rslora,
            use_dora: self.use_dora,
            dropout: self.lora_dropout,
            target_modules: targets(self.target_modules)?,
        })
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

fn targets(value: Value) -> Result<Vec<Target>, LoadError> {
    let what = format!("target_modules {value} is not a list of the supported modules");
    serde_json::from_value(value).map_err(|_| LoadError::AdapterMismatch(what))
}
