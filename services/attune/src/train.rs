//! `attune train`: the worker's own training, without a server.

mod output;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use dataset::Limits;
use domain::auto::Facts;
use domain::{Hyperparameters, TrainingConfig};
use lm::device::Device;
use lm::{Adapter, CausalLm};
use text::TextModel;
use training::train::Start;
use training::{Rows, Run, checkpoint};

use self::output::{Output, Summary};
use self::progress::Progress;
use crate::models;

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
    /// The settings, as the API takes them in the `attune` object of a job
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the adapter, metrics.jsonl, summary.json and checkpoints go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start from this adapter (PEFT layout) instead of a new one
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the output folder
    #[arg(long, conflicts_with = "init_adapter")]
    resume: bool,
    /// `cpu`, `cuda` or `cuda:N`
    #[arg(long, env = "ATTUNE_DEVICE", default_value = "cpu")]
    device: String,
    /// The installation that knows the model's name
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Trains an adapter and writes it with its metrics.
///
/// # Errors
/// Whatever is wrong with the arguments, the files or the run, by name.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let asked = read_settings(args.config.as_deref())?;
    let device = Device::parse(&args.device).context("--device")?;
    let files = models::open_local(&args.model, args.data_dir.as_deref())?;
    let text = TextModel::from_parts(
        files.tokenizer_json(),
        files.tokenizer_config_json(),
        files.chat_template(),
    )
    .context("cannot use the base model's tokenizer or chat template")?
    .with_now(modified(&args.train)?);
    let fingerprint = files.fingerprint().context("cannot hash the base model")?;
    let n_rows = count_lines(&args.train)?;
    let config = asked.resolve(&Facts {
        n_rows,
        n_params: files.config().n_params(),
        context_length: files.config().max_position_embeddings as u64,
        fallback_seed: 0,
    });
    let precision = training::train::base_precision(&config);
    let model = files
        .load(&device, precision)
        .context("cannot load the base model")?;
    let read = |path: &Path| {
        let max_seq_len = usize::try_from(config.max_seq_len).expect("at most 2^20");
        Rows::read(path, &text, max_seq_len, &Limits::default())
            .with_context(|| format!("cannot train on {}", path.display()))
    };
    let train = read(&args.train)?;
    let valid = args.valid.as_deref().map(read).transpose()?;
    let checkpoints = args.out.join("checkpoints");
    std::fs::create_dir_all(&checkpoints)
        .with_context(|| format!("cannot create {}", checkpoints.display()))?;
    let start = start(args, &model, &config, &checkpoints)?;
    let first_step = match &start {
        Start::Resume(checkpoint) => checkpoint.step,
        Start::Fresh | Start::From(_) => 0,
    };

    let output = Output::open(&args.out, first_step)?;
    let total_steps = config.total_steps(train.report.n_rows);
    let mut progress = Progress::new(output, first_step, total_steps);
    let trained = training::train(
        Run {
            model: &model,
            base_fingerprint: &fingerprint,
            config: &config,
            train: &train,
            valid: valid.as_ref(),
            start,
            checkpoint_dir: &checkpoints,
        },
        &mut progress,
    )?;
    let (output, tokens_seen) = progress.finish()?;
    trained
        .adapter
        .save(&args.out, &args.model)
        .with_context(|| format!("cannot write the adapter to {}", args.out.display()))?;
    let truncated_rows =
        train.report.truncated_rows + valid.as_ref().map_or(0, |rows| rows.report.truncated_rows);
    output.summary(&Summary::new(
        &trained,
        config,
        truncated_rows,
        tokens_seen,
        started.elapsed(),
    ))
}

fn read_settings(path: Option<&Path>) -> anyhow::Result<Hyperparameters> {
    let Some(path) = path else {
        return Ok(Hyperparameters::default());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    Hyperparameters::parse("", &value).with_context(|| path.display().to_string())
}

fn start(
    args: &TrainArgs,
    model: &CausalLm,
    config: &TrainingConfig,
    checkpoints: &Path,
) -> anyhow::Result<Start> {
    if let Some(dir) = &args.init_adapter {
        let adapter = Adapter::load(dir, model.config(), model.device())
            .with_context(|| format!("cannot start from {}", dir.display()))?;
        if !training::train::fits(&adapter, &config.lora) {
            bail!(
                "{} has rank {} and other `lora` settings than the job's; make them the same",
                dir.display(),
                adapter.config().rank
            );
        }
        return Ok(Start::From(adapter));
    }
    if !args.resume {
        return Ok(Start::Fresh);
    }
    let (found, passed_over) = checkpoint::latest(checkpoints, model);
    for error in passed_over {
        tracing::warn!(
            "Passing over a checkpoint: {}",
            domain::failure::error_chain(&error)
        );
    }
    if let Some(message) = found.as_ref().and_then(|found| found.other_kernels(model)) {
        tracing::warn!("{message}");
    }
    Ok(match found {
        Some(checkpoint) => Start::Resume(Box::new(checkpoint)),
        None => Start::Fresh,
    })
}

/// When the file was last changed: the date that a template may write, the same when the run is resumed.
fn modified(path: &Path) -> anyhow::Result<time::OffsetDateTime> {
    let modified = std::fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(modified.into())
}

fn count_lines(path: &Path) -> anyhow::Result<u64> {
    use std::io::Read;
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut lines, mut last) = (0, b'\n');
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            return Ok(lines + u64::from(last != b'\n'));
        }
        lines += buffer[..n].split(|byte| *byte == b'\n').count() as u64 - 1;
        last = buffer[n - 1];
    }
}
