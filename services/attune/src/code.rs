//! Which program this is.

use training::report::Code;

/// The release, and the commit it was built from.
pub(crate) fn code() -> Code {
    Code {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("ATTUNE_COMMIT").to_owned(),
    }
}
