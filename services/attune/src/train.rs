//! `attune train`: the worker's own training, without a server.

mod inputs;
mod output;
mod progress;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use lm::{BaseFiles, Dtype, Learned};
use training::memory::Room;
use training::report::{Draft, Remark, closing_remarks};

use self::inputs::Inputs;
use self::output::{Output, Summary};
use self::progress::Progress;
use crate::code::code;
use crate::print;

/// Arguments of `attune train`.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// A registered base model's name, a folder in Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "NAME_OR_PATH")]
    model: String,
    /// The rows to learn from: JSONL, one object with `messages` a line
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// The rows to measure on
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,
    /// Rows to mix in, so that what they show is not forgotten; the share is the setting `replay.ratio`
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// The settings, as the API takes them in the `attune` object of a job
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the adapter, metrics.jsonl, summary.json, report.json and checkpoints go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start from this adapter (PEFT layout) instead of a new one
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the output folder; give everything else as for the run that was stopped
    #[arg(long)]
    resume: bool,
    /// Only predict tokens, steps, time and memory, print them as JSON and stop; nothing is trained
    #[arg(long)]
    estimate: bool,
    /// Refuse a run that would need more memory than this; the machine's own limits are looked at in any case
    #[arg(long, value_name = "MB", env = "ATTUNE_MAX_MEMORY_MB")]
    max_memory_mb: Option<u64>,
    /// `cpu`, `cuda` or `cuda:N`
    #[arg(long, env = "ATTUNE_DEVICE", default_value = "cpu")]
    device: String,
    /// The installation that knows the model's name
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl TrainArgs {
    fn max_bytes(&self) -> Option<u64> {
        self.max_memory_mb.map(|mb| mb.saturating_mul(1_000_000))
    }
}

/// Trains a model and writes what was learned with its metrics.
///
/// # Errors
/// Whatever is wrong with the arguments, the files or the run, by name.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let inputs = Inputs::read(args)?;
    let checkpoints = args.out.join("checkpoints");
    std::fs::create_dir_all(&checkpoints)
        .with_context(|| format!("cannot create {}", checkpoints.display()))?;
    let run = inputs.run(args, &checkpoints)?;
    let first_step = run.resume.as_ref().map_or(0, |checkpoint| checkpoint.step);
    let estimate = training::estimate(&run, Room::now(args.max_bytes()))?;
    if args.estimate {
        print::line(&serde_json::to_string_pretty(&estimate)?);
        return Ok(());
    }
    eprintln!("estimated: {estimate}");
    let draft = Draft::new(&run, code(), estimate);
    let output = Output::open(&args.out, first_step)?;
    let total_steps = inputs.config.total_steps(inputs.train.report.n_rows);
    let mut progress = Progress::new(output, first_step, total_steps);
    let trained = training::train(run, &mut progress)?;
    let (output, tokens_seen) = progress.finish()?;
    for Remark {
        text, is_warning, ..
    } in closing_remarks(&trained)
    {
        let warning = if is_warning { "warning: " } else { "" };
        eprintln!("{warning}{text}");
    }
    save(&trained.learned, &inputs.files, args)?;
    output.report(draft, &trained)?;
    let truncated_rows = inputs.truncated_rows();
    output.summary(&Summary::new(
        &trained,
        inputs.config,
        truncated_rows,
        tokens_seen,
        started.elapsed(),
    ))
}

/// Writes an adapter in PEFT's layout, or a whole model in Hugging Face's.
fn save(learned: &Learned, files: &BaseFiles, args: &TrainArgs) -> anyhow::Result<()> {
    match learned {
        Learned::Adapter(adapter) => adapter
            .save(&args.out, &args.model)
            .with_context(|| format!("cannot write the adapter to {}", args.out.display())),
        Learned::Full(_) => {
            let out = args.out.join("model");
            files
                .export(&out, Some(learned), Dtype::F32)
                .with_context(|| format!("cannot write the model to {}", out.display()))
        }
    }
}
