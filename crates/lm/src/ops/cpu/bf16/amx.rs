//! Intel's Advanced Matrix Extensions: products of 16 × 32 tiles of bfloat16 (Intel SDM vol. 1, chapter 18).
//!
//! The compiler's intrinsics are not stable yet, so this is assembly.

#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use std::arch::asm;
use std::cell::Cell;
use std::sync::LazyLock;

use half::bf16;

use super::{PANEL, STEP};

/// Bytes of a tile's row.
const ROW_BYTES: u16 = 64;
const TILE_ROWS: u8 = 16;

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
        config.rows[tile] = TILE_ROWS;
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
pub(super) fn multiply(a: &[bf16], panel: &[bf16], k: usize, tile: &mut [f32]) {
    configure();
    let a_stride = k * size_of::<bf16>();
    let half_of_rows = a_stride * usize::from(TILE_ROWS);
    // A pair of summands takes PANEL columns of two numbers, which are two tiles side by side.
    let panel_stride = 2 * PANEL * size_of::<bf16>();
    let out_stride = PANEL * size_of::<f32>();
    // SAFETY: `a` is [32, k], `panel` [k / 2, 32, 2] and `tile` [32, 32], and k is a multiple of 32, all checked by the
    // caller: the loop reads k / STEP times 16 rows of 64 bytes at four places of them, the end writes four times 16
    // rows of 64 bytes. The tiles were set up above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a} + {a_stride}]",
            "tileloadd tmm6, [{b} + {b_stride}]",
            "tileloadd tmm7, [{b} + {b_stride} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a_low} + {a_stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 64",
            "add {a_low}, 64",
            "add {b}, {b_step}",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {c_stride}], tmm0",
            "tilestored [{c} + {c_stride} + 64], tmm1",
            "tilestored [{c_low} + {c_stride}], tmm2",
            "tilestored [{c_low} + {c_stride} + 64], tmm3",
            a = inout(reg) a.as_ptr() => _,
            a_low = inout(reg) a.as_ptr().byte_add(half_of_rows) => _,
            b = inout(reg) panel.as_ptr() => _,
            c = in(reg) tile.as_mut_ptr(),
            c_low = in(reg) tile.as_mut_ptr().byte_add(usize::from(TILE_ROWS) * out_stride),
            n = inout(reg) k / STEP => _,
            a_stride = in(reg) a_stride,
            b_stride = in(reg) panel_stride,
            b_step = in(reg) panel_stride * usize::from(TILE_ROWS),
            c_stride = in(reg) out_stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
