//! What every new file goes through, whichever way it comes: streamed into the bucket, counted, judged.

use artifacts::{ArtifactError, Stored};
use buckets::ProjectObjects;
use bytes::Bytes;
use dataset::{FirstRow, QuickScan, ScanReport};
use domain::limits::MAX_LINE_BYTES;
use domain::{FileId, ProjectId};
use futures::{Stream, StreamExt as _};
use store::files::{File, FileStatus};
use time::{Duration, OffsetDateTime};
use tracing::Instrument as _;

use super::{BATCH, FINE_TUNE};
use crate::error::{ApiError, ErrorCode};

/// When OpenAI's own limits let a file expire.
pub(crate) const EXPIRES_AFTER_SECS: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;
/// When the input of a batch expires unless it was told otherwise: after 30 days, as at OpenAI.
const BATCH_EXPIRES_AFTER_SECS: i64 = 2_592_000;
const MAX_FILENAME_CHARS: usize = 255;

/// Where a file goes.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) objects: &'a ProjectObjects,
    pub(crate) key: &'a str,
    pub(crate) max_bytes: u64,
}

/// What is in the bucket now.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) stored: Stored,
    pub(crate) scan: ScanReport,
}

/// What is said about a new file.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) id: FileId,
    pub(crate) project_id: ProjectId,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    pub(crate) expires_after_secs: Option<i64>,
}

impl Destination<'_> {
    /// Streams a file into the bucket; it is counted and hashed on the way, and never held as a whole.
    pub(crate) async fn take<E>(
        &self,
        chunks: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Content, ArtifactError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut scan = QuickScan::new();
        let chunks = chunks.inspect(|chunk| {
            if let Ok(chunk) = chunk {
                scan.push(chunk);
            }
        });
        let stored = self
            .objects
            .put_stream(self.key, chunks, self.max_bytes)
            .await?;
        Ok(Content {
            stored,
            scan: scan.finish(),
        })
    }

    /// Takes the object away again. What cannot be deleted now is left to the sweep of orphans.
    pub(crate) async fn give_up(&self) {
        if let Err(error) = self.objects.delete(self.key).await {
            let chain = domain::failure::error_chain(&error);
            tracing::warn!(error = %chain, "A refused upload's object stays until the sweep: {chain}");
        }
    }
}

/// The row of what was stored, if it is what its purpose asks for.
pub(crate) fn judged(
    description: Description,
    content: Content,
    now: OffsetDateTime,
) -> Result<File, ApiError> {
    let Content { stored, scan } = content;
    if stored.size_bytes == 0 {
        return Err(ApiError::invalid("file", "The file is empty.").code(ErrorCode::EmptyFile));
    }
    if description.purpose == FINE_TUNE {
        check_rows(&scan)?;
    }
    let by_default = (description.purpose == BATCH).then_some(BATCH_EXPIRES_AFTER_SECS);
    let expires_after_secs = description.expires_after_secs.or(by_default);
    Ok(File {
        id: description.id,
        project_id: description.project_id,
        filename: description.filename,
        purpose: description.purpose,
        size_bytes: stored.size_bytes,
        sha256: stored.sha256,
        n_lines: Some(scan.n_rows),
        status: FileStatus::Processed,
        status_details: None,
        created_at: now,
        expires_at: expires_after_secs.map(|secs| now + Duration::seconds(secs)),
    })
}

fn check_rows(scan: &ScanReport) -> Result<(), ApiError> {
    let refused = |message: String| {
        Err(ApiError::invalid("file", message).code(ErrorCode::InvalidFileFormat))
    };
    if scan.first_row == FirstRow::Missing {
        return refused("The file has no rows: all of its lines are blank.".to_owned());
    }
    if scan.first_row == FirstRow::NotAnObject {
        return refused(
            "The first line that is not blank is not a JSON object. A file to fine-tune on is JSON Lines: \
             one object such as {\"messages\": […]} on each line."
                .to_owned(),
        );
    }
    if scan.max_line_bytes > MAX_LINE_BYTES as u64 {
        return refused(format!(
            "The longest line has {} bytes; a line may have {MAX_LINE_BYTES}. Rows are separated by newlines.",
            scan.max_line_bytes
        ));
    }
    Ok(())
}

/// The last part of the name, without what no terminal or header should be sent.
pub(crate) fn filename(given: &str) -> String {
    let name = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_FILENAME_CHARS)
        .collect();
    if name.is_empty() {
        "file".to_owned()
    } else {
        name
    }
}

/// Runs to its end also when the client hangs up, which cancels a handler: cleaning up must not be cancelled.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(ApiError::internal(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filename_is_one_printable_name() {
        assert_eq!(filename("../../etc/passwd"), "passwd");
        assert_eq!(filename("C:\\data\\träin.jsonl"), "träin.jsonl");
        assert_eq!(filename("a\u{0}b\r\nc"), "abc");
        assert_eq!(filename(""), "file");
        assert_eq!(filename(&"x".repeat(1000)).len(), MAX_FILENAME_CHARS);
    }
}
