//! Whether a device computes at all. What is missing beside its driver (NVRTC, the toolkit's headers) shows at the first
//! kernel, and as a panic inside burn.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "cube")]
use burn::tensor::Tensor;

/// Lets the device add four ones.
///
/// # Errors
/// Says what went wrong.
#[cfg(feature = "cube")]
pub(super) fn try_out(device: &burn::tensor::Device) -> Result<(), String> {
    guarded(|| Tensor::<1>::ones([4], device).sum().into_scalar::<f32>())
}

fn guarded(four_ones: impl FnOnce() -> f32) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(four_ones)) {
        Ok(sum) if (sum - 4.0).abs() < f32::EPSILON => Ok(()),
        Ok(sum) => Err(format!("four ones add up to {sum}")),
        Err(panic) => Err(message(&*panic).trim().to_owned()),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it failed without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_panics_or_computes_nonsense_says_so() {
        assert_eq!(guarded(|| 4.0), Ok(()));
        assert_eq!(
            guarded(|| f32::NAN),
            Err("four ones add up to NaN".to_owned())
        );
        let found = guarded(|| panic!("\n  CUDA installation not found {}", 1));
        assert_eq!(found, Err("CUDA installation not found 1".to_owned()));
    }
}
