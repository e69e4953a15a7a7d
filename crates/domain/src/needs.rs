//! What a job needs of a worker, and what a worker has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::TrainingConfig;
use crate::cost::{BatchShape, CostModel, ModelShape};

/// What a worker computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Processor cores.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a kind of device; it is `cpu` or `cuda`"))
    }
}

/// What a job asks of the worker that takes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The kind of device; `None` is any.
    pub device: Option<DeviceKind>,
    /// Bytes without which it cannot run. It may need more; 0 is unknown.
    pub memory_bytes: u64,
}

/// What a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerKind {
    /// What it computes on.
    pub device: DeviceKind,
    /// Bytes that a job may take.
    pub memory_bytes: u64,
}

impl Needs {
    /// The device that `config` asks for, and what any run of it on a model of this shape takes at least: the process, the base and what learns. Rows come
    /// on top, but how long they are is known only once a worker has read them.
    pub fn of(shape: &ModelShape, config: &TrainingConfig) -> Self {
        let nothing = BatchShape::default();
        Self {
            device: config.device,
            memory_bytes: CostModel::new(shape, config)
                .memory(&nothing, &nothing)
                .total(),
        }
    }

    /// Whether a worker of this kind can take the job.
    pub fn fit(&self, worker: WorkerKind) -> bool {
        self.device.is_none_or(|device| device == worker.device)
            && self.memory_bytes <= worker.memory_bytes
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = self.device {
            write!(f, "a {device} worker with ")?;
        }
        write!(f, "{} MB of memory", self.memory_bytes.div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> ModelShape {
        ModelShape {
            vocabulary: 100,
            width: 64,
            mlp_width: 128,
            query_width: 64,
            key_width: 32,
            tied_head: true,
            windows: vec![None; 2],
        }
    }

    #[test]
    fn a_larger_model_needs_more_and_an_empty_run_needs_its_weights() {
        let config = TrainingConfig::default();
        let small = Needs::of(&shape(), &config);
        let large = Needs::of(
            &ModelShape {
                windows: vec![None; 20],
                ..shape()
            },
            &config,
        );
        assert!(small.memory_bytes > 4 * shape().layer_weights());
        assert!(large.memory_bytes > small.memory_bytes);
    }

    #[test]
    fn a_job_that_names_its_device_needs_it() {
        let config = TrainingConfig {
            device: Some(DeviceKind::Cuda),
            ..TrainingConfig::default()
        };
        assert_eq!(Needs::of(&shape(), &config).device, Some(DeviceKind::Cuda));
        let any = Needs::of(&shape(), &TrainingConfig::default());
        assert_eq!(any.device, None);
    }

    #[test]
    fn a_job_fits_a_worker_of_its_kind_with_room() {
        let worker = WorkerKind {
            device: DeviceKind::Cpu,
            memory_bytes: 100,
        };
        let needs = |device, memory_bytes| Needs {
            device,
            memory_bytes,
        };
        assert!(needs(None, 100).fit(worker) && needs(Some(DeviceKind::Cpu), 0).fit(worker));
        assert!(!needs(None, 101).fit(worker) && !needs(Some(DeviceKind::Cuda), 1).fit(worker));
    }

    #[test]
    fn every_kind_survives_its_word() {
        for kind in DeviceKind::ALL {
            assert_eq!(kind.as_str().parse::<DeviceKind>(), Ok(kind));
        }
    }
}
