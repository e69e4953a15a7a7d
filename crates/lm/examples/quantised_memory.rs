//! Memory and speed of a LoRA step over a base of random weights: `quantised_memory 1b|8b f32|bf16|nf4 [rows] [tokens]`
//! prints them as JSON, for `script/bench training` and whoever reads along.
//!
//! The shapes are those of Llama 3.2 1B and Llama 3.1 8B. Weights are made as they are asked for, so what is measured is
//! what a model read from disk would take. One process measures one thing: a peak cannot be taken back.

#![expect(clippy::print_stdout, reason = "a report is what this is for")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use lm::profile;
use lm::{Adapter, CausalLm, Device, LoadError, LoraConfig, ModelConfig, Precision, Ragged};
use lm::{Target, WeightSource};
use serde_json::{Value, json};

const USAGE: &str = "usage: quantised_memory 1b|8b f32|bf16|nf4 [rows] [tokens of each]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [size, kept, batch @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let config = config(size)?;
    let precision = match kept.as_str() {
        "f32" => Precision::F32,
        "bf16" => Precision::Bf16,
        "nf4" => Precision::Nf4,
        _ => return Err(USAGE.into()),
    };
    let number = |index: usize, default| batch.get(index).map_or(Ok(default), |text| text.parse());
    let (n_rows, n_tokens) = (number(0, 4)?, number(1, 256)?);

    let started = Instant::now();
    let mut source = RandomWeights(1);
    let model = CausalLm::from_source(&config, &mut source, &Device::cpu(), precision)?;
    let n_weights: usize = config
        .tensor_shapes()
        .iter()
        .filter(|(_, shape)| shape.len() == 2)
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    let (loading_secs, loading_peak) = (started.elapsed().as_secs_f64(), peak_bytes()?);
    let steps = (0..2).map(|_| step(&model, n_rows, n_tokens));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let peak = peak_bytes()?;
    let report = json!({
        "device": model.device().describe(),
        "matrix_bytes": model.size_bytes(),
        "matrix_bytes_in_16_bits": 2 * n_weights,
        "loading_secs": loading_secs,
        "loading_peak_bytes": loading_peak,
        "step_tokens": n_rows * n_tokens,
        "steps": steps,
        "peak_bytes": peak,
        "generated_token": generation(&model)?,
    });
    println!("{report:#}");
    Ok(())
}

/// Seconds and CPU seconds of one token, when they come one after the other.
fn generation(model: &CausalLm) -> Result<Value, Box<dyn std::error::Error>> {
    let mut session = model.session();
    session.feed(&[1], None)?;
    let (started, before) = (Instant::now(), cpu_secs()?);
    for id in 2..10 {
        session.feed(&[id], None)?;
    }
    let cpu = cpu_secs()? - before;
    Ok(json!({"secs": started.elapsed().as_secs_f64() / 8.0, "cpu_secs": cpu / 8.0}))
}

/// Forward and backward of one micro-batch under a LoRA of rank 8 on every matrix, every token supervised.
fn step(model: &CausalLm, n_rows: u32, n_tokens: u32) -> Result<Value, Box<dyn std::error::Error>> {
    let lora = LoraConfig {
        rank: 8,
        alpha: 16.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: Target::ALL.to_vec(),
    };
    let ids: Vec<u32> = (0..n_tokens).map(|index| index * 37 % 10_000).collect();
    let batch = Ragged::from_rows((0..n_rows).map(|_| ids.as_slice()));
    let targets: Arc<[u32]> = ids.repeat(n_rows as usize).into();
    let adapter = Adapter::init(&lora, model, 1).require_grad();
    let (started, before) = (Instant::now(), cpu_secs()?);
    let model = model.autodiff();
    let hidden = model.hidden(&batch, Some(&adapter), None);
    let loss = model.cross_entropy(hidden, &targets);
    let loss: Tensor<1> = loss.narrow(1, 0, 1).mean();
    let gradients = loss.backward();
    let reached = adapter
        .named_tensors()
        .all(|(_, t)| t.grad(&gradients).is_some());
    assert!(reached, "every factor has a gradient");
    let (secs, cpu_secs) = (started.elapsed().as_secs_f64(), cpu_secs()? - before);
    let parts = profile::take();
    let parts = parts
        .parts()
        .map(|(part, time)| (part.name(), time.as_secs_f64()));
    Ok(json!({
        "loss": loss.into_scalar::<f32>(),
        "secs": secs,
        "cpu_secs": cpu_secs,
        "secs_by_part": parts.collect::<HashMap<_, _>>(),
    }))
}

fn config(size: &str) -> Result<ModelConfig, Box<dyn std::error::Error>> {
    let (shapes, tied) = match size {
        "1b" => ([2048, 8192, 16, 32], true),
        "8b" => ([4096, 14_336, 32, 32], false),
        _ => return Err(USAGE.into()),
    };
    let [hidden, ffn, layers, heads] = shapes;
    let head_dim = hidden / heads;
    let document = format!(
        r#"{{"model_type": "llama", "vocab_size": 128256, "hidden_size": {hidden},
            "intermediate_size": {ffn}, "num_hidden_layers": {layers},
            "num_attention_heads": {heads}, "num_key_value_heads": 8, "head_dim": {head_dim},
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 131072,
            "tie_word_embeddings": {tied}}}"#
    );
    Ok(ModelConfig::from_json(document.as_bytes())?)
}

/// Numbers from a counter, a few rows at a time.
struct RandomWeights(u64);

impl RandomWeights {
    fn fill(&mut self, values: &mut [f32]) {
        for value in values {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let upper = u16::try_from(self.0 >> 48).expect("sixteen bits");
            // Of the customary standard deviation of 0.02.
            *value = (f32::from(upper) / 32_768.0 - 1.0) * 0.034_6;
        }
    }
}

impl WeightSource for RandomWeights {
    fn tensor(&mut self, _name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut values = vec![1.0; shape.iter().product()];
        if shape.len() > 1 {
            self.fill(&mut values);
        }
        Ok(values)
    }

    fn contains(&self, _name: &str) -> bool {
        true
    }

    fn rows(
        &mut self,
        _name: &str,
        [n_rows, columns]: [usize; 2],
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<(), LoadError> {
        let mut values = vec![0.0; columns * 64];
        for first in (0..n_rows).step_by(64) {
            let values = &mut values[..columns * 64.min(n_rows - first)];
            self.fill(values);
            take(values);
        }
        Ok(())
    }
}

/// What all threads have computed so far, in hundredths: on a busy machine it says more than the clock.
fn cpu_secs() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field may hold spaces, the fields behind it none: user and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .map_or(Ok(0.0), |text| text.parse::<f64>())
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The most memory that this process has had resident.
fn peak_bytes() -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .ok_or("no VmHWM in /proc/self/status")?
        .parse::<usize>()?
        * 1024)
}
