//! The files of a batch that has come to its end.

use artifacts::{ArtifactError, keys};
use async_stream::try_stream;
use buckets::ProjectObjects;
use bytes::Bytes;
use domain::batch::InputError;
use domain::{Batch, BatchStatus, FileId};
use futures::Stream;
use store::StoreError;
use store::batches::lines;
use store::batches::turns::{self, Turn};
use store::files::{self, File, FileStatus};
use store::quotas::{self, QuotaExceeded, Room};
use time::Duration;

use super::answer::unanswered;
use super::finish;
use super::runner::{Runner, TurnError};
use crate::files::BATCH_OUTPUT;

/// Lines read from the database at once.
const PAGE: u32 = 50;
/// The same as bytes; one answer may go beyond.
const PAGE_BYTES: u64 = 4 << 20;

impl Runner {
    /// Writes the files and ends the batch. A crash in between leaves objects that the sweep takes away; the next
    /// turn writes them again. Files that the project has no room for fail the batch.
    pub(super) async fn write_files(&self, turn: &Turn) -> Result<(), TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let batch = turns::hold(&mut tx, turn).await?;
        let room = quotas::left(&mut tx).await?;
        let objects = self.buckets.of(&mut tx).await?;
        tx.commit().await?;
        let mut files = Vec::new();
        let ended = match self.write_both(&batch, &objects, room, &mut files).await {
            Ok(ids) => self.end(turn, &objects, &files, ids).await,
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return Ok(()) };
        // Somebody else ends it, with files of their own; or nobody may keep them; or they are where nobody will look.
        if let TurnError::LeaseLost
        | TurnError::Full(_)
        | TurnError::Store(StoreError::BucketChanged) = error
        {
            for file in files {
                let key = keys::file(turn.project_id, file.id);
                objects.delete(&key).await?;
            }
        }
        match error {
            TurnError::Full(exceeded) => self.give_up(turn, &exceeded).await,
            error => Err(error),
        }
    }

    /// What was stored by the time of an error is in `files`.
    async fn write_both(
        &self,
        batch: &Batch,
        objects: &ProjectObjects,
        mut room: Option<Room>,
        files: &mut Vec<File>,
    ) -> Result<[Option<FileId>; 2], TurnError> {
        let mut ids = [None, None];
        for (id, which) in ids.iter_mut().zip([Which::Output, Which::Errors]) {
            if let Some(file) = self.write(batch, objects, which, room).await? {
                room = room.map(|room| room.with(file.size_bytes));
                *id = Some(file.id);
                files.push(file);
            }
        }
        Ok(ids)
    }

    async fn end(
        &self,
        turn: &Turn,
        objects: &ProjectObjects,
        files: &[File],
        [output, errors]: [Option<FileId>; 2],
    ) -> Result<(), TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let batch = turns::hold(&mut tx, turn).await?;
        objects.hold(&mut tx).await?;
        for file in files {
            files::create(&mut tx, file).await?;
        }
        let added = files.iter().map(|file| file.size_bytes).sum();
        quotas::admit_bytes(&mut tx, added).await?;
        let batch = batch.finish(output, errors, self.clock.now())?;
        finish::finish(&mut tx, &batch).await?;
        tx.commit().await?;
        finish::report(&batch);
        Ok(())
    }

    /// Fails the batch, for want of room for its answers.
    pub(super) async fn give_up(
        &self,
        turn: &Turn,
        exceeded: &QuotaExceeded,
    ) -> Result<(), TurnError> {
        let mut tx = self.store.tenant_tx(turn.project_id).await?;
        let batch = turns::hold(&mut tx, turn).await?;
        let batch = batch.give_up(vec![no_room(exceeded)], self.clock.now())?;
        finish::finish(&mut tx, &batch).await?;
        tx.commit().await?;
        finish::report(&batch);
        Ok(())
    }

    /// Stores one of the two files; `None` if no line belongs there.
    async fn write(
        &self,
        batch: &Batch,
        objects: &ProjectObjects,
        which: Which,
        room: Option<Room>,
    ) -> Result<Option<File>, TurnError> {
        let id = FileId::new();
        let key = keys::file(batch.project_id, id);
        let lines = Box::pin(self.clone().texts(batch, which));
        let max_bytes = room.map_or(u64::MAX, |room| room.bytes());
        let stored = match objects.put_stream(&key, lines, max_bytes).await {
            Ok(stored) => stored,
            Err(ArtifactError::Source { source, .. }) => return Err(TurnError::of_source(source)),
            Err(error @ ArtifactError::TooLarge { .. }) => {
                return Err(match room {
                    Some(room) => TurnError::Full(room.exceeded()),
                    None => error.into(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if stored.size_bytes == 0 {
            objects.delete(&key).await?;
            return Ok(None);
        }
        let now = self.clock.now();
        let expires_after = batch.output_expires_after_secs.map(Duration::seconds);
        Ok(Some(File {
            id,
            project_id: batch.project_id,
            filename: format!("{}_{}.jsonl", batch.id, which.word()),
            purpose: BATCH_OUTPUT.to_owned(),
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
            n_lines: None,
            status: FileStatus::Processed,
            status_details: None,
            created_at: now,
            expires_at: expires_after.map(|after| now + after),
        }))
    }

    /// The lines of one file, read page by page: each page is a transaction of its own, as writing takes long.
    fn texts(
        self,
        batch: &Batch,
        which: Which,
    ) -> impl Stream<Item = Result<Bytes, TurnError>> + Send + use<> {
        let (project_id, batch_id, status) = (batch.project_id, batch.id, batch.status);
        try_stream! {
            let mut after = 0;
            loop {
                let mut tx = self.store.tenant_tx(project_id).await?;
                let is_error = which == Which::Errors;
                let page = (PAGE, PAGE_BYTES);
                let page = lines::answers(&mut tx, batch_id, is_error, after, page).await?;
                tx.commit().await?;
                let Some((last, _)) = page.last() else { break };
                after = *last;
                for (_, text) in page {
                    yield Bytes::from(text + "\n");
                }
            }
            if let (Which::Errors, Some((code, message))) = (which, left_because(status)) {
                let mut after = 0;
                loop {
                    let mut tx = self.store.tenant_tx(project_id).await?;
                    let page = lines::waiting(&mut tx, batch_id, after, PAGE).await?;
                    tx.commit().await?;
                    let Some(last) = page.last() else { break };
                    after = last.line;
                    for line in page {
                        yield Bytes::from(unanswered(&line, code, message) + "\n");
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Output,
    Errors,
}

impl Which {
    fn word(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Errors => "error",
        }
    }
}

/// Why a batch fails whose answers the project cannot keep.
pub(super) fn no_room(exceeded: &QuotaExceeded) -> InputError {
    InputError {
        code: "insufficient_quota".to_owned(),
        line: None,
        message: format!("The answers of the batch cannot be kept. {exceeded}"),
        param: None,
    }
}

/// What is said of lines that have no answer: code and message.
fn left_because(status: BatchStatus) -> Option<(&'static str, &'static str)> {
    match status {
        BatchStatus::Cancelling => Some((
            "batch_cancelled",
            "The batch was cancelled before this request was answered.",
        )),
        BatchStatus::InProgress => Some((
            "batch_expired",
            "The completion window ended before this request was answered.",
        )),
        _ => None,
    }
}
