//! Bounds that hold everywhere, in one place. What an operator may change is a setting of a service instead.

/// The largest file a tenant may send in one request, unless the operator sets another: 512 MB, as OpenAI's.
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

/// The largest file that may come in parts, unless the operator sets another: 8 GB, as OpenAI's.
pub const DEFAULT_MAX_UPLOAD_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// The largest part of an upload: 64 MB, as OpenAI's.
pub const MAX_PART_BYTES: u64 = 64 * 1024 * 1024;
/// Parts of one upload, used or not.
pub const MAX_PARTS: u64 = 10_000;

/// Requests in a batch.
pub const MAX_BATCH_LINES: u64 = 50_000;
/// The largest input file of a batch.
pub const MAX_BATCH_BYTES: u64 = 200 * 1024 * 1024;
/// Characters of a request's name within its batch.
pub const MAX_CUSTOM_ID_CHARS: usize = 512;
/// Batches of one project that are not final.
pub const MAX_OPEN_BATCHES: u64 = 100;

/// Services that one job reports to.
pub const MAX_INTEGRATIONS: usize = 5;
/// Characters of a project, an entity and a run's name at Weights & Biases, which are its own limits.
pub const MAX_WANDB_NAME_CHARS: usize = 128;
/// Tags of one run.
pub const MAX_WANDB_TAGS: usize = 32;
/// Characters of a tag, which is Weights & Biases' own limit.
pub const MAX_WANDB_TAG_CHARS: usize = 64;
