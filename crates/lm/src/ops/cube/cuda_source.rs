//! The CUDA C++ that our kernels become on a machine with an NVIDIA GPU, made on one without.
//!
//! With `ATTUNE_CUDA_SOURCES` set to a directory the sources are left there, where `tests/gpu_offline/compile.py` takes
//! them to NVIDIA's compilers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::cuda::compiler::CudaBackend;
use cubecl::cuda::{CudaCompilationOptions, CudaCompiler};
use cubecl::ir::{
    AddressType, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, TargetProperties,
};
use cubecl::prelude::*;

use crate::ops::rms_norm::cube::{self as rms_norm, rms_norm_backward_kernel, rms_norm_kernel};
use crate::ops::swiglu::cube::{swiglu_backward_kernel, swiglu_kernel};

/// What we compile for: A100, H100.
const ARCHITECTURES: [(u32, &str); 2] = [(80, "sm_80"), (90, "sm_90a")];

#[test]
fn every_kernel_becomes_cuda_source() {
    assert_eq!(CudaBackend::default(), CudaBackend::Cpp, "NVRTC, not LLVM");
    let directory = std::env::var_os("ATTUNE_CUDA_SOURCES");
    for (version, architecture) in ARCHITECTURES {
        let target = Target::new(version);
        for (element, cpp) in [
            (FloatKind::F32, "float"),
            (FloatKind::BF16, "__nv_bfloat16"),
        ] {
            for (name, source) in target.sources(ElemType::Float(element)) {
                assert!(source.contains("extern \"C\" __global__"), "{source}");
                assert!(source.contains(cpp), "{name} of {cpp}: {source}");
                let Some(directory) = &directory else {
                    continue;
                };
                let file = format!("{name}.{cpp}.{architecture}.cu");
                fs::write(Path::new(directory).join(file), source).unwrap();
            }
        }
    }
}

/// A kernel's name and source, from its compile-time arguments in the order of its parameters.
macro_rules! source {
    ($target:expr, $units:expr, $kernel:ty, $($argument:expr),+) => {{
        let target = $target;
        let (device, compiler) = (target.device.clone(), target.compiler.clone());
        let kernel = <$kernel>::new(settings($units), device, compiler, $($argument),+);
        let (name, _) = stringify!($kernel).split_once("::").unwrap();
        (name, target.source(&kernel))
    }};
}

/// A GPU as far as the compiler asks about it.
struct Target {
    device: Arc<DeviceProperties>,
    compiler: Arc<TargetProperties>,
    options: CudaCompilationOptions,
}

impl Target {
    /// With what cubecl-cuda finds of a GPU of this compute capability.
    fn new(version: u32) -> Self {
        let hardware = HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 1024,
            max_shared_memory_size: 160 * 1024,
            max_cube_count: (i32::MAX.unsigned_abs(), 65_535, 65_535),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: Some(108),
            num_cpu_cores: None,
            last_level_cache_size: None,
            num_tensor_cores: Some(4),
            min_tensor_cores_dim: Some(8),
            max_vector_size: 16,
            cube_mma_reserved_shared_memory: 0,
        };
        let device = DeviceProperties::new(
            cubecl::features::Features::default(),
            MemoryDeviceProperties::new(1 << 34, 512),
            hardware,
            cubecl::profile::TimingMethod::Device,
            DeviceIdentity::default(),
        );
        let mut options = CudaCompilationOptions::default();
        let features = &mut options.cpp.supports_features;
        (features.fast_math, features.dp4a, features.grid_constants) = (true, true, true);
        (features.clusters, features.elect_sync) = (version >= 90, version >= 90);
        Self {
            device: Arc::new(device),
            compiler: Arc::new(TargetProperties::default()),
            options,
        }
    }

    /// With the widths of an 8B Llama.
    fn sources(&self, element: ElemType) -> [(&'static str, String); 4] {
        let buffer = || BufferCompilationArg { inplace: None };
        let (x, weight, gradient, out) = (buffer, buffer, buffer, buffer);
        let (n_rows, epsilon) = ((), ());
        let (width, inner_width, units) = (4096, 14_336, rms_norm::UNITS as usize);
        [
            source!(
                self,
                units,
                rms_norm_kernel::RmsNormKernel,
                x(),
                weight(),
                out(),
                n_rows,
                epsilon,
                width,
                units,
                element
            ),
            source!(
                self,
                units,
                rms_norm_backward_kernel::RmsNormBackwardKernel,
                x(),
                weight(),
                gradient(),
                out(),
                n_rows,
                epsilon,
                width,
                units,
                element
            ),
            source!(
                self,
                256,
                swiglu_kernel::SwigluKernel,
                x(),
                out(),
                inner_width,
                element
            ),
            source!(
                self,
                256,
                swiglu_backward_kernel::SwigluBackwardKernel,
                x(),
                gradient(),
                out(),
                inner_width,
                element
            ),
        ]
    }

    fn source(&self, kernel: &impl CubeKernel) -> String {
        let definition = define_kernel(kernel).unwrap();
        let compiled = CudaCompiler::default().compile(definition, &self.options);
        compiled.unwrap().to_string()
    }
}

fn settings(units: usize) -> KernelSettings {
    let cube = CubeDim::new_1d(u32::try_from(units).unwrap());
    KernelSettings::new(cube.0, ExecutionMode::Checked, AddressType::U32)
}
