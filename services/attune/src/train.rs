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
use lm::{Adapter, BaseFiles, CausalLm, Dtype, Learned};
use text::TextModel;
use training::{Checkpoint, Format, Probe, Rows, Run, Trained, checkpoint};

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
    /// Rows to mix in, so that what they show is not forgotten; the share is the setting `replay.ratio`
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// The settings, as the API takes them in the `attune` object of a job
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the adapter, metrics.jsonl, summary.json and checkpoints go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Start from this adapter (PEFT layout) instead of a new one
    #[arg(long, value_name = "DIR")]
    init_adapter: Option<PathBuf>,
    /// Go on from the newest whole checkpoint in the output folder; give everything else as for the run that was stopped
    #[arg(long)]
    resume: bool,
    /// `cpu`, `cuda` or `cuda:N`
    #[arg(long, env = "ATTUNE_DEVICE", default_value = "cpu")]
    device: String,
    /// The installation that knows the model's name
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Trains a model and writes what was learned with its metrics.
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
    let config = asked.resolve(&Facts {
        n_rows: count_lines(&args.train)?,
        n_bytes: std::fs::metadata(&args.train)?.len(),
        n_params: files.config().n_params(),
        context_length: files.config().max_position_embeddings as u64,
        fallback_seed: 0,
    });
    if config.care.replay.is_some() != args.replay.is_some() {
        bail!("give both the setting `replay` and the file to mix in (--replay), or neither");
    }
    let precision = training::settings::base_precision(&config);
    let model = files
        .load(&device, precision)
        .context("cannot load the base model")?;
    let checkpoints = args.out.join("checkpoints");
    std::fs::create_dir_all(&checkpoints)
        .with_context(|| format!("cannot create {}", checkpoints.display()))?;
    let read = |path: &Path| {
        Rows::read(
            path,
            &text,
            Format::of(&config),
            &Limits::default(),
            &args.out,
        )
        .with_context(|| format!("cannot train on {}", path.display()))
    };
    let train = read(&args.train)?;
    let valid = args.valid.as_deref().map(read).transpose()?;
    let replay = args.replay.as_deref().map(read).transpose()?;
    let probe = Probe::new(&text, Format::of(&config).max_seq_len)
        .context("cannot tokenize the text that forgetting is measured on")?;
    let initial = initial(args, &model, &config)?;
    let resume = if args.resume {
        latest(&model, &checkpoints)
    } else {
        None
    };
    let first_step = resume.as_ref().map_or(0, |checkpoint| checkpoint.step);

    let output = Output::open(&args.out, first_step)?;
    let total_steps = config.total_steps(train.report.n_rows);
    let mut progress = Progress::new(output, first_step, total_steps);
    let trained = training::train(
        Run {
            model: &model,
            base_fingerprint: &fingerprint,
            config: &config,
            train: &train,
            replay: replay.as_ref(),
            valid: valid.as_ref(),
            probe: Some(&probe),
            initial,
            resume: resume.map(Box::new),
            checkpoint_dir: &checkpoints,
        },
        &mut progress,
    )?;
    let (output, tokens_seen) = progress.finish()?;
    for said in said_at_the_end(&trained) {
        eprintln!("{said}");
    }
    save(&trained.learned, &files, args)?;
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

/// The adapter of `--init-adapter`.
fn initial(
    args: &TrainArgs,
    model: &CausalLm,
    config: &TrainingConfig,
) -> anyhow::Result<Option<Adapter>> {
    let Some(dir) = &args.init_adapter else {
        return Ok(None);
    };
    if config.lora().is_none() {
        bail!(
            "--init-adapter cannot be given with `tuning`: `full`; merge it into the base first \
             (`attune export --merged`) and train that"
        );
    }
    let adapter = Adapter::load(dir, model.config(), model.device())
        .with_context(|| format!("cannot start from {}", dir.display()))?;
    if !training::settings::fits(&adapter, config) {
        bail!(
            "{} has rank {} and other `lora` settings than the job's; make them the same",
            dir.display(),
            adapter.config().rank
        );
    }
    Ok(Some(adapter))
}

/// The newest whole checkpoint; those that are not are passed over with a warning.
fn latest(model: &CausalLm, checkpoints: &Path) -> Option<Checkpoint> {
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
    found
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

fn said_at_the_end(trained: &Trained) -> Vec<String> {
    let mut said = Vec::new();
    if trained.stopped_early {
        said.push("stopped early: the validation loss did not fall any more".to_owned());
    }
    if trained.chosen_step < trained.steps {
        said.push(format!(
            "kept step {}, which had the lowest validation loss",
            trained.chosen_step
        ));
    }
    if let Some(forgetting) = &trained.forgetting {
        said.push(format!(
            "perplexity of a general text: {:.2} before, {:.2} after",
            forgetting.perplexity_before, forgetting.perplexity_after
        ));
        said.extend(
            forgetting
                .warning()
                .map(|warning| format!("warning: {warning}")),
        );
    }
    said
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
