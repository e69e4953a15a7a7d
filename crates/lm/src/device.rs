//! Where tensors live. The only module that knows the kinds of devices.

#[cfg(any(feature = "cube", test))]
mod trial;

use std::fmt;

use burn::tensor::DType;

use crate::ops::Kernel;
use crate::precision::Precision;

/// The device a model runs on.
#[derive(Clone)]
pub struct Device {
    kind: Kind,
    burn: burn::tensor::Device,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(usize),
    #[cfg(feature = "wgpu")]
    Wgpu,
}

/// A device was asked for that this build or this machine does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    #[error("device `{0}` is not known (expected `cpu`, `cuda` or `cuda:N`)")]
    Unknown(String),
    #[error("this build has no CUDA; build with the `cuda` feature or use `cpu`")]
    NotBuilt,
    #[error("no CUDA device found: the NVIDIA driver is not installed or shows no GPU")]
    NoDriver,
    #[error("there is no CUDA device {index}: the driver shows {available}")]
    NoSuchDevice { index: usize, available: usize },
    #[error(
        "CUDA device {index} cannot be used: {reason} (it needs NVRTC and the headers in CUDA_PATH)"
    )]
    Unusable { index: usize, reason: String },
    #[cfg(feature = "wgpu")]
    #[error("wgpu's device cannot be used: {0}")]
    UnusableVulkan(String),
    #[cfg(feature = "wgpu")]
    #[error("no device for wgpu found: there is no Vulkan driver, not even Mesa's lavapipe")]
    NoVulkan,
}

impl Device {
    /// The CPU, all its cores.
    pub fn cpu() -> Self {
        Self {
            kind: Kind::Cpu,
            burn: burn::tensor::Device::flex(),
        }
    }

    /// The device that `cpu`, `cuda` or `cuda:N` names.
    ///
    /// # Errors
    /// When the name is none of these, or this build or this machine has no such device.
    pub fn parse(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(name.to_owned());
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::cpu()),
            None if name == "cuda" => cuda(0),
            Some(("cuda", index)) => cuda(index.parse().map_err(|_| unknown())?),
            #[cfg(feature = "wgpu")]
            None if name == "wgpu" => wgpu(),
            _ => Err(unknown()),
        }
    }

    /// Whether tensors lie in the machine's own memory.
    pub fn is_cpu(&self) -> bool {
        self.kind == Kind::Cpu
    }

    /// In words, for a log line.
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Cpu => {
                let (threads, bf16) = (n_threads(&self.burn), Kernel::detect().name());
                format!("CPU, {threads} threads, {}, bf16 by {bf16}", cpu_kernels())
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(index) => format!("CUDA device {index}"),
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => "wgpu".to_owned(),
        }
    }

    /// Names the kernels that compute here with matrices of `precision`.
    pub(crate) fn kernels(&self, precision: Precision) -> String {
        let kernels = match self.kind {
            Kind::Cpu => cpu_kernels(),
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => "cubecl-cuda",
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => "cubecl-wgpu",
        };
        let kept = match precision {
            Precision::F32 => return kernels.to_owned(),
            Precision::Bf16 => "bf16",
            Precision::Nf4 => "nf4",
            Precision::Gguf => "gguf",
        };
        match self.kind {
            Kind::Cpu => format!("{kernels}+{kept}-{}", Kernel::detect().name()),
            #[cfg(feature = "cube")]
            _ => format!("{kernels}+{kept}"),
        }
    }

    /// The numbers of the activations beside matrices of `precision`.
    pub(crate) fn activations(&self, precision: Precision) -> DType {
        match precision {
            Precision::F32 => DType::F32,
            // The CPU's kernels keep them wide: narrowing them would save little of its time.
            _ if self.kind == Kind::Cpu => DType::F32,
            Precision::Bf16 | Precision::Nf4 | Precision::Gguf => DType::BF16,
        }
    }

    pub(crate) fn as_burn(&self) -> &burn::tensor::Device {
        &self.burn
    }

    /// The same device, recording operations for the backward pass.
    pub(crate) fn autodiff(&self) -> Self {
        Self {
            kind: self.kind,
            burn: self.burn.clone().autodiff(),
        }
    }

    /// The same device, recording nothing.
    pub(crate) fn inner(&self) -> Self {
        Self {
            kind: self.kind,
            burn: self.burn.clone().inner(),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.describe())
    }
}

/// Threads over which a caller may spread one product on `device`: one wherever the device itself
/// spreads it, or records it for a backward pass.
pub(crate) fn n_threads(device: &burn::tensor::Device) -> usize {
    if *device == burn::tensor::Device::flex() {
        rayon::current_num_threads()
    } else {
        1
    }
}

/// Whether the device is the CPU, recording operations or not.
pub(crate) fn is_cpu(device: &burn::tensor::Device) -> bool {
    device.clone().without_autodiff() == burn::tensor::Device::flex()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Asks the driver first: the first operation on a device that is not there panics.
#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    let devices = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Cuda);
    let available = devices.into_vec().len();
    if available == 0 {
        return Err(DeviceError::NoDriver);
    }
    if index >= available {
        return Err(DeviceError::NoSuchDevice { index, available });
    }
    let device = Device {
        kind: Kind::Cuda(index),
        burn: burn::tensor::Device::cuda(index),
    };
    match trial::try_out(&device.burn) {
        Ok(()) => Ok(device),
        Err(reason) => Err(DeviceError::Unusable { index, reason }),
    }
}

/// As for CUDA: looks first.
#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Device, DeviceError> {
    let devices = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Wgpu);
    if devices.into_vec().is_empty() {
        return Err(DeviceError::NoVulkan);
    }
    let device = Device {
        kind: Kind::Wgpu,
        burn: burn::tensor::Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    };
    trial::try_out(&device.burn).map_err(DeviceError::UnusableVulkan)?;
    Ok(device)
}

/// Our own loops and the matrix kernels choose by the CPU's features at run time; this asks the same questions.
fn cpu_kernels() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "fused-1-avx512";
        }
        if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
            return "fused-1-avx2";
        }
    }
    if cfg!(target_arch = "aarch64") {
        "fused-1-neon"
    } else {
        "fused-1-scalar"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_everywhere() {
        assert!(Device::parse("cpu").unwrap().describe().starts_with("CPU"));
        for name in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA"] {
            let error = Device::parse(name).unwrap_err();
            assert_eq!(error, DeviceError::Unknown(name.to_owned()));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        assert_eq!(Device::parse("cuda:0").unwrap_err(), DeviceError::NotBuilt);
    }

    /// With a driver or without one, asking for a GPU that is not there is an error and never a panic.
    #[cfg(feature = "cuda")]
    #[test]
    fn the_driver_is_asked_before_a_device_is_opened() {
        let error = Device::parse("cuda:4000").unwrap_err();
        match error {
            DeviceError::NoDriver => assert_eq!(Device::parse("cuda").unwrap_err(), error),
            DeviceError::NoSuchDevice { index, available } => {
                assert_eq!((index, available > 0), (4000, true));
            }
            _ => panic!("{error}"),
        }
    }
}
