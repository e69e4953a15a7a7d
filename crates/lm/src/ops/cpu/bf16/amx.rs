//! Intel's Advanced Matrix Extensions: products of 16 × 32 tiles of bfloat16 (Intel SDM vol. 1, chapter 18).
//!
//! The compiler's intrinsics are not stable yet, so this is assembly.

#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use std::arch::asm;
use std::cell::Cell;
use std::sync::LazyLock;

use half::bf16;

use super::{HALF, STEP};

/// Bytes of a tile's row.
const ROW_BYTES: u16 = 64;

/// Palette 1: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = {
    let mut config = TileConfig {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut tile = 0;
    while tile < 8 {
        config.row_bytes[tile] = ROW_BYTES;
        config.rows[tile] = 16;
        tile += 1;
    }
    config
};

/// Whether the CPU has the unit and Linux lets this process use it.
pub(super) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_unit() && is_permitted());
    *AVAILABLE
}

/// CPUID leaf 7: AMX-BF16 is bit 22 and AMX-TILE bit 24 of EDX.
fn has_unit() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & (1 << 22) != 0 && leaf.edx & (1 << 24) != 0
}

/// Asks Linux for the tiles' state, which it saves only for processes that have asked (`arch_prctl(2)`).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the call takes two numbers and touches no memory of ours; `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Sets the thread's tiles up, once: the setting stays with the thread.
fn configure() {
    thread_local! {
        static CONFIGURED: Cell<bool> = const { Cell::new(false) };
    }
    if !CONFIGURED.get() {
        // SAFETY: the unit is there and permitted, and the setting is a valid one of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
        CONFIGURED.set(true);
    }
}

/// As [`super::multiply`], which has checked the lengths: four tiles of sums, two of rows, two of columns.
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(a: &[bf16], panel: &[bf16], k: usize, out: *mut f32, stride: usize) {
    configure();
    let half_of_rows = HALF * k * size_of::<bf16>();
    let out_stride = stride * size_of::<f32>();
    // SAFETY: `a` and `panel` are k / STEP times two tiles of 1 KiB, `a`'s two halves one behind the other, which the
    // caller checked; it vouches for [32, 32] numbers at `out`. The loop reads those tiles, the end writes four times 16
    // rows of 64 bytes. The tiles were set up above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {stride}]",
            "tileloadd tmm6, [{b} + {stride}]",
            "tileloadd tmm7, [{b} + {stride} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a_low} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 1024",
            "add {a_low}, 1024",
            "add {b}, 2048",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {c_stride}], tmm0",
            "tilestored [{c} + {c_stride} + 64], tmm1",
            "tilestored [{c_low} + {c_stride}], tmm2",
            "tilestored [{c_low} + {c_stride} + 64], tmm3",
            a = inout(reg) a.as_ptr() => _,
            a_low = inout(reg) a.as_ptr().byte_add(half_of_rows) => _,
            b = inout(reg) panel.as_ptr() => _,
            c = in(reg) out,
            c_low = in(reg) out.byte_add(HALF * out_stride),
            n = inout(reg) k / STEP => _,
            stride = in(reg) usize::from(ROW_BYTES),
            c_stride = in(reg) out_stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
