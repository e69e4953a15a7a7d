//! Holds a fused operation against its definition.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData};

use crate::device::Device;
use crate::rng::splitmix64;

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns when every operation takes its definition, as on a device without fused ones.
pub(crate) fn plainly<R>(work: impl FnOnce() -> R) -> R {
    PLAIN.set(true);
    let result = work();
    PLAIN.set(false);
    result
}

pub(super) fn is_plain() -> bool {
    PLAIN.get()
}

/// Numbers in [-1, 1), a function of `name`.
pub(crate) fn random<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    let values = random_values(name, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), Device::cpu().as_burn())
}

/// `n` numbers in [-1, 1), a function of `name`.
pub(crate) fn random_values(name: &str, n: usize) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(n as u64, |seed, byte| splitmix64(seed ^ u64::from(byte)));
    (0..n as u64)
        .map(|index| u16::try_from(splitmix64(seed ^ index) >> 48).unwrap())
        .map(|number| f32::from(number) / 32_768.0 - 1.0)
        .collect()
}

/// One row of numbers.
pub(crate) fn random_line(name: &str, n: usize) -> Tensor<2> {
    random(name, [1, n])
}

/// Both functions give the same values and the same gradients of every input, element by element; the fused one also
/// without a graph, and on any number of threads to the last bit.
pub(super) fn agree<const N: usize, const D: usize>(
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<D> + Sync,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<D> + Sync,
) {
    agree_within(2e-5, inputs, fused, plain);
}

/// As [`agree`], with another bound on the error, relative to the largest element.
pub(super) fn agree_within<const N: usize, const D: usize>(
    bound: f32,
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<D> + Sync,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<D> + Sync,
) {
    let found = both_agree(bound, &inputs, &fused, &plain);
    for n_threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        let with_pool = pool.build().unwrap().install(|| run(&inputs, &fused));
        assert_eq!(with_pool, found, "with {n_threads} threads");
    }
    without_a_graph(inputs, fused, &found);
}

/// As [`agree`], with the inputs where our kernels for GPUs run.
#[cfg(feature = "wgpu")]
pub(super) fn agree_on_a_gpu<const N: usize, const D: usize>(
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<D>,
    plain: impl Fn([Tensor<2>; N]) -> Tensor<D>,
) {
    let inputs = inputs.map(on_a_gpu);
    let found = both_agree(2e-5, &inputs, &fused, &plain);
    without_a_graph(inputs, fused, &found);
}

/// The tensor on the GPU, or on what takes its place: with Mesa's lavapipe a CPU can.
#[cfg(feature = "wgpu")]
pub(super) fn on_a_gpu<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let device = Device::parse("wgpu").expect("mesa-vulkan-drivers is installed");
    let tensor = tensor.to_device(device.as_burn());
    assert!(
        !crate::device::is_cpu(&tensor.device()),
        "it would be compared with itself"
    );
    tensor
}

/// The result and the gradients of all inputs.
type Found<const N: usize> = (Vec<f32>, [Vec<f32>; N]);

fn run<const N: usize, const D: usize>(
    inputs: &[Tensor<2>; N],
    f: &impl Fn([Tensor<2>; N]) -> Tensor<D>,
) -> Found<N> {
    let leaves = inputs.clone().map(|input| input.autodiff().require_grad());
    let out = f(leaves.clone());
    let upstream = random::<D>("upstream", out.dims()).to_device(&inputs[0].device());
    let graph = (out.clone() * upstream.autodiff()).sum().backward();
    let gradients = leaves.map(|leaf| numbers(leaf.grad(&graph).unwrap()));
    (numbers(out.inner()), gradients)
}

fn both_agree<const N: usize, const D: usize>(
    bound: f32,
    inputs: &[Tensor<2>; N],
    fused: &impl Fn([Tensor<2>; N]) -> Tensor<D>,
    plain: &impl Fn([Tensor<2>; N]) -> Tensor<D>,
) -> Found<N> {
    let (found, expected) = (run(inputs, fused), run(inputs, plain));
    close("the result", bound, &found.0, &expected.0);
    for (input, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        let what = format!("the gradient of input {input}");
        close(&what, bound, found, expected);
    }
    found
}

fn without_a_graph<const N: usize, const D: usize>(
    inputs: [Tensor<2>; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<D>,
    found: &Found<N>,
) {
    let untracked = numbers(fused(inputs.map(Tensor::autodiff)).inner());
    assert_eq!(untracked, found.0, "without a graph");
}

pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub(crate) fn close(what: &str, bound: f32, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected
        .iter()
        .fold(1e-3_f32, |scale, value| scale.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= bound * scale,
            "{what} differs at {index}: {found} instead of {expected}"
        );
    }
}
