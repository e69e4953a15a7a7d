//! How much memory the activations of a training step take, by the model's depth: kept, and computed again.
//!
//! `cargo run --release -p lm --example activation_memory` takes a random model of several depths, and with the path of a
//! base model that model. Every measurement is a process of its own; the peak is Linux's own count, above what the
//! process held before the step.

#![expect(clippy::print_stdout, reason = "it reports to whoever runs it")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use lm::{
    Activations, Adapter, BaseFiles, CausalLm, Device, Learned, LoadError, LoraConfig, ModelConfig,
    Precision, Ragged, Target, WeightSource,
};
use serde_json::json;

const N_TOKENS: u32 = 1024;
const DEPTHS: [&str; 3] = ["30", "60", "120"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [what, "kept"] => measure(what, Activations::Kept),
        [what, "recomputed"] => measure(what, Activations::Recomputed),
        [] => compare(&DEPTHS),
        [path] => compare(&[path]),
        _ => Err("expected nothing, or the path of a base model".into()),
    }
}

fn compare(models: &[&str]) -> Result<(), Box<dyn Error>> {
    println!("layers  activations  peak_mib  step_ms  sum_of_gradients");
    for model in models {
        for activations in ["kept", "recomputed"] {
            let mut command = Command::new(std::env::current_exe()?);
            if !command.args([model, activations]).status()?.success() {
                return Err(format!("the measurement of `{model}` failed").into());
            }
        }
    }
    Ok(())
}

fn measure(what: &str, activations: Activations) -> Result<(), Box<dyn Error>> {
    let model = match what.parse() {
        Ok(n_layers) => random_model(n_layers)?,
        Err(_) => BaseFiles::open(Path::new(what))?.load(&Device::cpu(), Precision::F32)?,
    };
    let config = LoraConfig {
        rank: 8,
        alpha: 16.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: Target::ALL.to_vec(),
    };
    let adapter = Adapter::init(&config, &model, 1).map(|_, tensor| tensor.add_scalar(0.01));
    let learned = Learned::Adapter(adapter);
    let ids: Vec<u32> = (0..N_TOKENS).map(|index| index * 7 % 300).collect();
    let targets: Arc<[u32]> = ids.iter().copied().collect();
    // As training does: the head runs on a part of the tokens.
    let supervised = 128;
    let objective = |model: &CausalLm, hidden: Tensor<2>| {
        let rows = hidden.narrow(0, 0, supervised);
        let targets = targets[..supervised].into();
        (
            model.cross_entropy(rows, &targets).narrow(1, 0, 1).sum(),
            (),
        )
    };
    // A write of 5 sets the peak back to what is held now.
    fs::write("/proc/self/clear_refs", "5")?;
    let (before, started) = (kib("VmRSS")?, Instant::now());
    let input = Ragged::single(&ids);
    let ((), gradients) = model.gradients(&learned, &input, None, activations, objective);
    let (peak, step) = (kib("VmHWM")?.saturating_sub(before), started.elapsed());
    let sum: f32 = gradients
        .into_iter()
        .map(|gradient| gradient.abs().sum().into_scalar::<f32>())
        .sum();
    println!(
        "{:>6}  {:>11}  {:>8}  {:>7}  {:08x}",
        model.config().n_layers,
        format!("{activations:?}"),
        peak / 1024,
        step.as_millis(),
        sum.to_bits()
    );
    Ok(())
}

/// A number of kibibytes in the process's status.
fn kib(key: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(value.ok_or("no such line")?.parse()?)
}

/// Wide enough that activations outweigh everything else.
fn random_model(n_layers: usize) -> Result<CausalLm, LoadError> {
    let config = json!({
        "model_type": "llama", "vocab_size": 300, "hidden_size": 128, "intermediate_size": 384,
        "num_hidden_layers": n_layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 2048,
    });
    let config = ModelConfig::from_json(config.to_string().as_bytes())?;
    CausalLm::from_source(&config, &mut Random(1), &Device::cpu(), Precision::F32)
}

/// Numbers in [-0.1, 0.1).
struct Random(u32);

impl WeightSource for Random {
    fn tensor(&mut self, _name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = (0..shape.iter().product()).map(|_| {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let upper = u16::try_from(self.0 >> 16).unwrap_or_default();
            (f32::from(upper) / 32_768.0 - 1.0) / 10.0
        });
        Ok(values.collect())
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }
}
