//! How the C library's allocator treats what a training step frees.

use std::sync::Once;

/// Keeps up to a gibibyte of freed memory for the next step, from the first call on.
///
/// Every step allocates and frees the same activations. glibc gives large blocks back to the kernel as soon as they are free,
/// which then clears every page of them again: an eighth of a step's time. The peak stays as it is, for what is kept is what
/// the step before had used.
pub(crate) fn keep_freed() {
    static ASKED: Once = Once::new();
    ASKED.call_once(ask);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt(3) is a function of the C library")]
fn ask() {
    use std::ffi::c_int;

    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const GIBIBYTE: c_int = 1 << 30;
    /// The largest that glibc takes.
    const LARGEST: c_int = 32 << 20;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    // SAFETY: it takes two numbers, sets what glibc reads under its own lock, and says 0 where it will not.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, LARGEST);
        mallopt(M_TRIM_THRESHOLD, GIBIBYTE);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn ask() {}
