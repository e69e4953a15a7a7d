//! What `attune train` trains: files, settings, the base model and what the run starts from.

use std::path::Path;

use anyhow::{Context, bail};
use dataset::Limits;
use domain::auto::Facts;
use domain::{Hyperparameters, TrainingConfig};
use lm::device::Device;
use lm::{Adapter, BaseFiles, CausalLm};
use text::TextModel;
use training::memory::Room;
use training::{Checkpoint, Format, Probe, Rows, Run, checkpoint};

use super::TrainArgs;
use crate::models;

/// Everything that a run is made of, read and checked.
pub(super) struct Inputs {
    pub(super) files: BaseFiles,
    pub(super) config: TrainingConfig,
    pub(super) train: Rows,
    fingerprint: String,
    model: CausalLm,
    replay: Option<Rows>,
    valid: Option<Rows>,
    probe: Probe,
}

impl Inputs {
    pub(super) fn read(args: &TrainArgs) -> anyhow::Result<Self> {
        let asked = read_settings(args.config.as_deref())?;
        let device = Device::parse(&args.device).context("--device")?;
        let files = models::open_local(&args.model, args.data_dir.as_deref())?;
        let text = text_model(&files)?.with_now(modified(&args.train)?);
        let fingerprint = files.fingerprint().context("cannot hash the base model")?;
        let config = asked.resolve(&facts(&files, &args.train)?);
        refuse_another_device(&config, &device, &args.device)?;
        if config.care.replay.is_some() != args.replay.is_some() {
            bail!("give both the setting `replay` and the file to mix in (--replay), or neither");
        }
        training::check_before_loading(
            files.config(),
            &config,
            &device,
            Room::now(args.max_bytes()),
        )?;
        let model = files
            .load(&device, training::settings::base_precision(&config))
            .context("cannot load the base model")?;
        let out = &args.out;
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let format = Format::of(&config);
        let read = |path: &Path| {
            Rows::read(path, &text, format, &Limits::default(), out)
                .with_context(|| format!("cannot train on {}", path.display()))
        };
        Ok(Self {
            train: read(&args.train)?,
            valid: args.valid.as_deref().map(read).transpose()?,
            replay: args.replay.as_deref().map(read).transpose()?,
            probe: Probe::new(&text, format.max_seq_len)
                .context("cannot tokenize the text that forgetting is measured on")?,
            files,
            config,
            fingerprint,
            model,
        })
    }

    /// The run, from where it is to start.
    pub(super) fn run<'a>(
        &'a self,
        args: &TrainArgs,
        checkpoints: &'a Path,
    ) -> anyhow::Result<Run<'a>> {
        let resume = if args.resume {
            latest(&self.model, checkpoints)
        } else {
            None
        };
        Ok(Run {
            model: &self.model,
            base_fingerprint: &self.fingerprint,
            tuned_weights: None,
            config: &self.config,
            train: &self.train,
            replay: self.replay.as_ref(),
            valid: self.valid.as_ref(),
            probe: Some(&self.probe),
            initial: initial(args, &self.model, &self.config)?,
            resume: resume.map(Box::new),
            checkpoint_dir: checkpoints,
        })
    }

    pub(super) fn truncated_rows(&self) -> u64 {
        let files = [Some(&self.train), self.valid.as_ref()];
        let cut = files.into_iter().flatten();
        cut.map(|rows| rows.report.truncated_rows).sum()
    }
}

fn refuse_another_device(
    config: &TrainingConfig,
    device: &Device,
    given: &str,
) -> anyhow::Result<()> {
    let found = training::settings::device_kind(device);
    match config.device {
        Some(wanted) if wanted != found => bail!(
            "the setting `device` is `{wanted}`, and this run would be on `{given}` (--device); make them the same or \
             leave the setting out"
        ),
        _ => Ok(()),
    }
}

fn text_model(files: &BaseFiles) -> anyhow::Result<TextModel> {
    let text = TextModel::from_parts(
        files.tokenizer_json(),
        files.tokenizer_config_json(),
        files.chat_template(),
    )
    .context("cannot use the base model's tokenizer or chat template")?;
    Ok(text.with_generation_config(files.generation_config_json()))
}

/// What `auto` is decided by.
fn facts(files: &BaseFiles, train: &Path) -> anyhow::Result<Facts> {
    let size = std::fs::metadata(train).map(|metadata| metadata.len());
    Ok(Facts {
        n_rows: count_lines(train)?,
        n_bytes: size.with_context(|| format!("cannot read {}", train.display()))?,
        n_params: files.config().n_params(),
        context_length: files.config().max_position_embeddings as u64,
        fallback_seed: 0,
    })
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
