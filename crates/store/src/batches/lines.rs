//! The lines of batches that are under way, and their answers: each is written once.

use domain::BatchId;
use domain::batch::Usage;

use super::turns::{self, Turn};
use crate::number::{from_bigint, to_bigint};
use crate::tx::Connection;
use crate::{StoreError, TenantTx};

/// A line of the input file that asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands, from 1.
    pub line: u64,
    /// The client's name for it.
    pub custom_id: String,
    /// Where it begins in the file.
    pub start_byte: u64,
    /// How long it is.
    pub n_bytes: u64,
}

/// What came of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The whole line of the output or the error file, without its newline.
    pub text: String,
    /// Which of the two files.
    pub is_error: bool,
    /// What it cost.
    pub usage: Usage,
}

/// Stores the lines of a batch whose input is in order. Hold the turn first.
pub async fn create(tx: &mut TenantTx, turn: &Turn, lines: &[Line]) -> Result<(), StoreError> {
    let numbers = |number: fn(&Line) -> u64| {
        let numbers = lines.iter().map(|line| to_bigint("line", number(line)));
        numbers.collect::<Result<Vec<i64>, _>>()
    };
    let custom_ids: Vec<String> = lines.iter().map(|line| line.custom_id.clone()).collect();
    sqlx::query!(
        "INSERT INTO batch_lines (project_id, batch_id, line, custom_id, start_byte, n_bytes)
         SELECT $1, $2, * FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::bigint[])",
        turn.project_id.0,
        turn.batch_id.0,
        &numbers(|line| line.line)?,
        &custom_ids,
        &numbers(|line| line.start_byte)?,
        &numbers(|line| line.n_bytes)?,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Lines behind `after` that have no answer yet, in order.
pub async fn waiting(
    tx: &mut TenantTx,
    batch_id: BatchId,
    after: u64,
    limit: u32,
) -> Result<Vec<Line>, StoreError> {
    let rows = sqlx::query!(
        "SELECT line, custom_id, start_byte, n_bytes FROM batch_lines
         WHERE project_id = $1 AND batch_id = $2 AND line > $3 AND answer IS NULL
         ORDER BY line LIMIT $4",
        tx.project_id().0,
        batch_id.0,
        to_bigint("line", after)?,
        i64::from(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Line {
                line: from_bigint("line of a batch", row.line)?,
                custom_id: row.custom_id,
                start_byte: from_bigint("line of a batch", row.start_byte)?,
                n_bytes: from_bigint("line of a batch", row.n_bytes)?,
            })
        })
        .collect()
}

/// Writes a line's answer and counts it, if the turn still holds and nobody has answered the line. Says whether it did.
///
/// # Errors
/// [`StoreError::LeaseLost`], as [`turns::hold`].
pub async fn record(
    tx: &mut TenantTx,
    turn: &Turn,
    line: u64,
    answer: &Answer,
) -> Result<bool, StoreError> {
    turns::hold(tx, turn).await?;
    let done = sqlx::query!(
        "UPDATE batch_lines SET answer = $4, is_error = $5
         WHERE project_id = $1 AND batch_id = $2 AND line = $3 AND answer IS NULL",
        turn.project_id.0,
        turn.batch_id.0,
        to_bigint("line", line)?,
        answer.text,
        answer.is_error,
    )
    .execute(tx.connection())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    let usage = &answer.usage;
    sqlx::query!(
        "UPDATE batches
         SET n_completed = n_completed + $3, n_failed = n_failed + $4, input_tokens = input_tokens + $5,
             cached_tokens = cached_tokens + $6, output_tokens = output_tokens + $7,
             reasoning_tokens = reasoning_tokens + $8
         WHERE project_id = $1 AND id = $2",
        turn.project_id.0,
        turn.batch_id.0,
        i64::from(!answer.is_error),
        i64::from(answer.is_error),
        to_bigint("usage", usage.input_tokens)?,
        to_bigint("usage", usage.cached_tokens)?,
        to_bigint("usage", usage.output_tokens)?,
        to_bigint("usage", usage.reasoning_tokens)?,
    )
    .execute(tx.connection())
    .await?;
    Ok(true)
}

/// Answers behind line `after` that go to the error file, or to the output file, in the input's order: one, and as many more
/// as there are, up to `limit` and as long as those before are shorter than `bytes` together.
pub async fn answers(
    tx: &mut TenantTx,
    batch_id: BatchId,
    is_error: bool,
    after: u64,
    (limit, bytes): (u32, u64),
) -> Result<Vec<(u64, String)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT line AS "line!", answer AS "answer!"
           FROM (
               SELECT line, answer, sum(octet_length(answer)) OVER (ORDER BY line) - octet_length(answer) AS n_before
               FROM (
                   SELECT line, answer FROM batch_lines
                   WHERE project_id = $1 AND batch_id = $2 AND line > $3 AND is_error = $4
                   ORDER BY line LIMIT $5
               ) next
           ) page
           WHERE n_before < $6 ORDER BY line"#,
        tx.project_id().0,
        batch_id.0,
        to_bigint("line", after)?,
        is_error,
        i64::from(limit),
        to_bigint("bytes", bytes)?,
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter()
        .map(|row| Ok((from_bigint("line of a batch", row.line)?, row.answer)))
        .collect()
}

/// How many bytes the answers make, each a line of a file.
pub async fn answered_bytes(tx: &mut TenantTx, batch_id: BatchId) -> Result<u64, StoreError> {
    let n_bytes = sqlx::query_scalar!(
        r#"SELECT COALESCE(sum(octet_length(answer) + 1), 0)::bigint AS "n!" FROM batch_lines
           WHERE project_id = $1 AND batch_id = $2 AND answer IS NOT NULL"#,
        tx.project_id().0,
        batch_id.0
    )
    .fetch_one(tx.connection())
    .await?;
    from_bigint("bytes of answers", n_bytes)
}

/// Forgets the lines of a batch whose files are written.
pub async fn delete(tx: &mut TenantTx, batch_id: BatchId) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM batch_lines WHERE project_id = $1 AND batch_id = $2",
        tx.project_id().0,
        batch_id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}
