//! Bounds that hold everywhere, in one place. What an operator may change is a setting of a service instead.

/// The largest file a tenant may upload, unless the operator sets another: 512 MB, as OpenAI's.
pub const DEFAULT_MAX_FILE_BYTES: u64 = 512 * 1024 * 1024;

/// The longest line of a dataset.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// Pairs of metadata an object may carry.
pub const MAX_METADATA_PAIRS: usize = 16;
/// Characters of a metadata key.
pub const MAX_METADATA_KEY_CHARS: usize = 64;
/// Characters of a metadata value.
pub const MAX_METADATA_VALUE_CHARS: usize = 512;

/// Characters of a model's suffix.
pub const MAX_SUFFIX_CHARS: usize = 64;

/// The greatest seed OpenAI's clients can send.
pub const MAX_SEED: u64 = 2_147_483_647;

/// How often a job is tried before it fails for good.
pub const MAX_ATTEMPTS: i32 = 4;
