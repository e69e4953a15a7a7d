//! A run's whole state on disk: adapter, optimizer, and what they belong to.
//!
//! Where the run stands in its data and its randomness follows from the step (see [`crate::random`]), so there is
//! nothing else to keep. A checkpoint is written aside, synced and renamed; a manifest of SHA-256 sums is checked
//! when it is read, and a torn one is passed over for the one before.
//!
//! ```text
//! step-00000040/
//!   adapter_config.json  adapter_model.safetensors   the adapter as PEFT keeps it
//!   weights.safetensors                              or, where every weight learns, those
//!   optimizer.safetensors                            AdamW's moments
//!   best.safetensors                                 the best adapter so far, if it is to be kept and is another one
//!   state.json                                       step, identity, and what was the best so far
//!   manifest.json                                    SHA-256 of each of the above
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use domain::TrainingConfig;
use lm::error::LoadError;
use lm::safetensors_file::SafetensorsSource;
use lm::weights::WeightSource;
use lm::{Adapter, CausalLm, Learned};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::adamw::{AdamW, Moments};
use crate::selection::{Progress, Selection};
use crate::train::Run;

const STATE: &str = "state.json";
const BEST: &str = "best.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const MANIFEST: &str = "manifest.json";
/// Small files are read whole; nothing in a checkpoint that is JSON comes near this.
const MAX_JSON_BYTES: u64 = 16 * 1024 * 1024;

/// What a run is a function of. A checkpoint of another run is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Every setting.
    pub config: TrainingConfig,
    /// Fingerprint of the base model's files.
    pub base: String,
    /// Fingerprint of the training rows.
    pub data: String,
    /// Fingerprint of the rows that are mixed in.
    #[serde(default)]
    pub replay: Option<String>,
    /// SHA-256 of the adapter that the run started from, or of tuned weights.
    #[serde(default)]
    pub initial: Option<String>,
    /// The kernels that computed it: losses repeat bit for bit only on the same ones.
    pub kernels: String,
}

/// A run's state after a step.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Steps that went into it.
    pub step: u64,
    /// What had been learned.
    pub learned: Learned,
    /// `AdamW`'s memory of each tensor.
    pub moments: Vec<Moments>,
    /// What was the best so far, and when.
    pub selection: Progress,
    /// What had been learned by then, if it is kept.
    pub best: Option<Learned>,
    /// The run it belongs to.
    pub identity: Identity,
}

impl Checkpoint {
    /// What its owner should know when this machine computes with other kernels than the one that wrote it.
    pub fn other_kernels(&self, model: &CausalLm) -> Option<String> {
        let (theirs, ours) = (&self.identity.kernels, model.kernels());
        (*theirs != ours).then(|| {
            format!(
                "The checkpoint of step {} was computed with {theirs}, this machine uses {ours}: from here on losses may \
                 differ from an uninterrupted run's by about one in ten thousand",
                self.step
            )
        })
    }
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk or the system.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The files are not what the manifest says, or not a checkpoint at all.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file or folder.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The adapter or the optimizer cannot be loaded.
    #[error("cannot load {path}")]
    Tensors {
        /// The folder.
        path: String,
        /// Why.
        source: LoadError,
    },
    /// A checkpoint of another run.
    #[error(
        "{path} belongs to another run: its {what} differs; start afresh or give the same {what}"
    )]
    OtherRun {
        /// The folder.
        path: String,
        /// What differs.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    #[serde(default)]
    selection: Progress,
    #[serde(flatten)]
    identity: Identity,
}

impl Identity {
    /// What `run` is a function of.
    pub fn of(run: &Run<'_>) -> Self {
        Self {
            config: run.config.clone(),
            base: run.base_fingerprint.to_owned(),
            data: run.train.report.fingerprint.clone(),
            replay: run.replay.map(|rows| rows.report.fingerprint.clone()),
            initial: match &run.initial {
                Some(adapter) => Some(sha256_of_adapter(adapter)),
                None => run.tuned_weights.map(str::to_owned),
            },
            kernels: run.model.kernels(),
        }
    }

    /// What sets `self` apart from `other`, kernels aside.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.config != other.config {
            Some("config")
        } else if self.base != other.base {
            Some("base model")
        } else if self.data != other.data {
            Some("training data")
        } else if self.replay != other.replay {
            Some("replay data")
        } else if other.initial.is_some() && self.initial != other.initial {
            Some("initial model")
        } else {
            None
        }
    }
}

/// Writes a checkpoint under `root` and returns its folder. An existing one of the same step is replaced.
///
/// # Errors
/// [`CheckpointError::Io`]; whatever was there before is still whole.
pub fn save(
    root: &Path,
    learned: &Learned,
    optimizer: &AdamW,
    selection: &Selection<Learned>,
    identity: &Identity,
) -> Result<PathBuf, CheckpointError> {
    let dir = root.join(folder_name(optimizer.step));
    let aside = root.join(format!(".writing-{}", folder_name(optimizer.step)));
    remove_dir(&aside)?;
    fs::create_dir_all(&aside).map_err(io_error("create", &aside))?;
    learned
        .save(&aside, &identity.base)
        .map_err(|source| CheckpointError::Tensors {
            path: aside.display().to_string(),
            source,
        })?;
    save_moments(&aside.join(OPTIMIZER), learned, optimizer)?;
    if let Some((_, _, best)) = selection
        .best()
        .filter(|(step, ..)| *step != optimizer.step)
    {
        save_tensors(&aside.join(BEST), best.named_tensors())?;
    }
    let state = State {
        step: optimizer.step,
        selection: selection.progress(),
        identity: identity.clone(),
    };
    write_json(&aside.join(STATE), &state)?;
    write_json(&aside.join(MANIFEST), &manifest_of(&aside)?)?;
    sync_dir(&aside)?;
    remove_dir(&dir)?;
    fs::rename(&aside, &dir).map_err(io_error("rename", &aside))?;
    sync_dir(root)?;
    Ok(dir)
}

/// The newest whole checkpoint under `root`, and what was wrong with those passed over.
pub fn latest(root: &Path, model: &CausalLm) -> (Option<Checkpoint>, Vec<CheckpointError>) {
    let mut passed_over = Vec::new();
    for dir in folders(root).into_iter().rev() {
        match load(&dir, model) {
            Ok(checkpoint) => return (Some(checkpoint), passed_over),
            Err(error) => passed_over.push(error),
        }
    }
    (None, passed_over)
}

/// Reads one checkpoint and verifies every byte of it.
///
/// # Errors
/// [`CheckpointError::Damaged`] if a file is not what the manifest says.
pub fn load(dir: &Path, model: &CausalLm) -> Result<Checkpoint, CheckpointError> {
    let expected: BTreeMap<String, String> = read_json(&dir.join(MANIFEST))?;
    let found = manifest_of(dir)?;
    if expected != found {
        return Err(damaged(dir, "a file's SHA-256 is not the manifest's"));
    }
    let state: State = read_json(&dir.join(STATE))?;
    let tensors = |source| CheckpointError::Tensors {
        path: dir.display().to_string(),
        source,
    };
    let learned = Learned::load(dir, model).map_err(tensors)?;
    let moments = load_moments(&dir.join(OPTIMIZER), &learned).map_err(tensors)?;
    let best = if dir.join(BEST).exists() {
        Some(load_best(&dir.join(BEST), &learned).map_err(tensors)?)
    } else {
        (state.selection.best_step == Some(state.step)).then(|| learned.clone())
    };
    Ok(Checkpoint {
        step: state.step,
        learned,
        moments,
        selection: state.selection,
        best,
        identity: state.identity,
    })
}

/// Removes all checkpoints under `root` but the newest `keep`.
pub fn prune(root: &Path, keep: usize) {
    let folders = folders(root);
    for dir in &folders[..folders.len().saturating_sub(keep)] {
        // One that stays behind costs space and nothing else.
        let _ = fs::remove_dir_all(dir);
    }
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Checkpoint folders, oldest first.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("step-"))
        })
        .collect();
    folders.sort();
    folders
}

fn save_moments(path: &Path, learned: &Learned, optimizer: &AdamW) -> Result<(), CheckpointError> {
    let names = learned.named_tensors().map(|(name, _)| name);
    let moments = names.zip(&optimizer.moments).flat_map(|(name, moments)| {
        [("exp_avg", &moments.mean), ("exp_avg_sq", &moments.square)]
            .map(|(kind, tensor)| (format!("{kind}.{name}"), tensor))
    });
    save_tensors(path, moments)
}

fn save_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, &'a Tensor<2>)>,
) -> Result<(), CheckpointError> {
    let mut buffers = Vec::new();
    for (name, tensor) in tensors {
        let values = tensor
            .to_data()
            .try_to_vec::<f32>()
            .map_err(|error| damaged(path, format!("{name} is not f32: {error:?}")))?;
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        buffers.push((name, tensor.dims().to_vec(), bytes));
    }
    let views = buffers
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes)?,
            ))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| damaged(path, error))?;
    let bytes = safetensors::serialize(views, None).map_err(|error| damaged(path, error))?;
    write_synced(path, &bytes)
}

fn load_best(path: &Path, like: &Learned) -> Result<Learned, LoadError> {
    let mut source = SafetensorsSource::open(&[path.to_path_buf()])?;
    let tensors: Vec<Tensor<2>> = like
        .named_tensors()
        .map(|(name, like)| read_like(&mut source, &name, like))
        .collect::<Result<_, _>>()?;
    let mut tensors = tensors.into_iter();
    let next = |_: &str, _| tensors.next().expect("one tensor for each name");
    Ok(like.clone().map(next))
}

/// SHA-256 over the names and values of an adapter's tensors.
fn sha256_of_adapter(adapter: &Adapter) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in adapter.named_tensors() {
        hash.update(name);
        let values = tensor.to_data().try_to_vec::<f32>();
        for value in values.expect("adapters are f32") {
            hash.update(value.to_le_bytes());
        }
    }
    hex::encode(hash.finalize())
}

fn load_moments(path: &Path, learned: &Learned) -> Result<Vec<Moments>, LoadError> {
    let mut source = SafetensorsSource::open(&[path.to_path_buf()])?;
    learned
        .named_tensors()
        .map(|(name, like)| {
            Ok(Moments {
                mean: read_like(&mut source, &format!("exp_avg.{name}"), like)?,
                square: read_like(&mut source, &format!("exp_avg_sq.{name}"), like)?,
            })
        })
        .collect()
}

fn read_like(
    source: &mut SafetensorsSource,
    name: &str,
    like: &Tensor<2>,
) -> Result<Tensor<2>, LoadError> {
    let values = source.tensor(name, &like.dims())?;
    let data = TensorData::new(values, like.dims());
    Ok(Tensor::from_data(data, &like.device()))
}

/// SHA-256 of every file in `dir` but the manifest.
fn manifest_of(dir: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let path = entry.map_err(io_error("read", dir))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name != MANIFEST {
            sums.insert(name, sha256_of(&path)?);
        }
    }
    Ok(sums)
}

fn sha256_of(path: &Path) -> Result<String, CheckpointError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io_error("read", path))? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    serde_json::from_reader(file.take(MAX_JSON_BYTES)).map_err(|error| damaged(path, error))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CheckpointError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| damaged(path, error))?;
    write_synced(path, &bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(io_error("create", path))?;
    io::Write::write_all(&mut file, bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

fn sync_dir(path: &Path) -> Result<(), CheckpointError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", path))
}

fn remove_dir(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    move |source| CheckpointError::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.display().to_string(),
        what: format!("{what}"),
    }
}
