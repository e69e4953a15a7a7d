//! What a file is for.

use crate::error::ApiError;

/// Rows to train or validate on: the only purpose whose content is looked at.
pub const FINE_TUNE: &str = "fine-tune";

/// The requests of a batch.
pub const BATCH: &str = "batch";
/// The answers of a batch, and its errors.
pub const BATCH_OUTPUT: &str = "batch_output";

/// What a client may say. Produced files have purposes of their own.
const UPLOADABLE: [&str; 6] = [
    FINE_TUNE,
    "assistants",
    BATCH,
    "vision",
    "user_data",
    "evals",
];

/// The purpose a client gave, if it is one.
///
/// # Errors
/// It is none; the purposes are named.
pub(crate) fn parse(text: &str) -> Result<&'static str, ApiError> {
    UPLOADABLE
        .into_iter()
        .find(|purpose| *purpose == text)
        .ok_or_else(|| {
            let list = UPLOADABLE.map(|purpose| format!("`{purpose}`")).join(", ");
            let given: String = text.chars().take(40).collect();
            ApiError::invalid(
                "purpose",
                format!("`{given}` is not a purpose; choose one of {list}."),
            )
        })
}

/// As the OpenAPI document shows it.
pub(super) fn schema() -> utoipa::openapi::Object {
    crate::openapi::build::word(&UPLOADABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_of_produced_files_cannot_be_uploaded() {
        assert!(parse("fine-tune-results").is_err());
        assert_eq!(parse("fine-tune").unwrap(), FINE_TUNE);
    }
}
