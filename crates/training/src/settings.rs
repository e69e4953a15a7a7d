//! A run's settings in the model's terms.

use domain::config::{Precision, Quantization, TargetModule};
use domain::cost::ModelShape;
use domain::{DeviceKind, TrainingConfig};
use lm::config::ModelConfig;
use lm::lora::{LoraConfig, Target};
use lm::{Adapter, Device};

/// Whether a run with these settings can go on from `adapter`.
pub fn fits(adapter: &Adapter, config: &TrainingConfig) -> bool {
    let Some(lora) = config.lora() else {
        return false;
    };
    let (found, wanted) = (adapter.config(), lora_config(lora));
    let scaling = |config: &LoraConfig| (config.rank, config.use_rslora, config.use_dora);
    scaling(found) == scaling(&wanted) && found.target_modules == wanted.target_modules
}

/// The device as jobs ask for it.
pub fn device_kind(device: &Device) -> DeviceKind {
    if device.is_cpu() {
        DeviceKind::Cpu
    } else {
        DeviceKind::Cuda
    }
}

/// The settings' precision and quantisation in the model's terms: what the base is to be loaded in.
pub fn base_precision(config: &TrainingConfig) -> lm::Precision {
    match (config.quantization, config.precision) {
        (Quantization::Nf4, _) => lm::Precision::Nf4,
        (Quantization::Gguf, _) => lm::Precision::Gguf,
        (Quantization::None, Precision::F32) => lm::Precision::F32,
        (Quantization::None, Precision::Bf16) => lm::Precision::Bf16,
    }
}

/// The sizes that a model's cost follows from.
pub fn model_shape(config: &ModelConfig) -> ModelShape {
    ModelShape {
        vocabulary: config.vocab_size as u64,
        width: config.hidden_size as u64,
        mlp_width: config.intermediate_size as u64,
        query_width: config.q_width() as u64,
        key_width: config.kv_width() as u64,
        tied_head: config.tie_word_embeddings,
        windows: config
            .sliding_windows
            .iter()
            .map(|window| window.map(|window| window as u64))
            .collect(),
    }
}

/// The settings' adapter in the model's terms.
pub fn lora_config(lora: &domain::config::LoraConfig) -> LoraConfig {
    let target = |module: &TargetModule| match module {
        TargetModule::QProj => Target::Q,
        TargetModule::KProj => Target::K,
        TargetModule::VProj => Target::V,
        TargetModule::OProj => Target::O,
        TargetModule::GateProj => Target::Gate,
        TargetModule::UpProj => Target::Up,
        TargetModule::DownProj => Target::Down,
    };
    LoraConfig {
        rank: lora.rank,
        alpha: lora.alpha,
        use_rslora: lora.use_rslora,
        use_dora: lora.use_dora,
        dropout: lora.dropout,
        target_modules: lora.target_modules.iter().map(target).collect(),
    }
}
