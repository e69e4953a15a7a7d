//! How a row of the audit log is hashed, and what a whole chain must look like.
//!
//! The hash of a row is SHA-256 over these bytes, in this order, so that whoever holds an export can compute it:
//!
//! ```text
//! the 15 bytes `attune audit v1`
//! the 32 bytes of prev_hash, which are zero in the first row
//! org_id seq at actor_kind actor_id actor_name key_id address request_id action object_kind object_id project_id details
//! ```
//!
//! Each of the last line's is a field: one byte 0 if it is null; else one byte 1, its length in bytes as eight bytes, the
//! greatest first, and its UTF-8. Every field is the text that stands in the export: `seq` in decimal digits, `at` as
//! `2026-11-24T12:00:00.000000Z`, `details` the JSON text itself.
//!
//! What a chain cannot show is that its end was cut off, or all of it written anew. For that, keep the last hash where
//! the database's administrators cannot write, and hold the log against it ([`Verifier::expect`]).

use domain::{OrgId, ProjectId};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const LABEL: &[u8] = b"attune audit v1";
const AT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A hash of the chain.
pub type Hash = [u8; 32];

/// What stands before the first row.
pub const GENESIS: Hash = [0; 32];

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Whose chain it is in.
    pub org_id: OrgId,
    /// Its place there, from 1.
    pub seq: i64,
    /// When it was done.
    pub at: OffsetDateTime,
    /// What kind of actor did it.
    pub actor_kind: String,
    /// Which one.
    pub actor_id: String,
    /// What it was called then.
    pub actor_name: String,
    /// The API key of the request.
    pub key_id: Option<String>,
    /// The address of the request.
    pub address: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// What was done.
    pub action: String,
    /// To what kind of object.
    pub object_kind: String,
    /// To which one.
    pub object_id: String,
    /// In which project.
    pub project_id: Option<ProjectId>,
    /// The JSON text of what else is known.
    pub details: String,
    /// The hash of the row before.
    pub prev_hash: Vec<u8>,
    /// The row's own hash.
    pub hash: Vec<u8>,
}

impl AuditRow {
    /// The time as it is hashed and exported.
    pub fn at_text(&self) -> String {
        let utc = self.at.to_offset(time::UtcOffset::UTC);
        utc.format(AT).expect("every part of it is there")
    }

    /// The row as a line of an export: every field as the text that is hashed. `details` is the JSON text as a string,
    /// because no JSON parser keeps the bytes of an object.
    pub fn export_line(&self) -> String {
        let line = json!({
            "org_id": self.org_id.to_string(),
            "seq": self.seq,
            "at": self.at_text(),
            "actor_kind": self.actor_kind,
            "actor_id": self.actor_id,
            "actor_name": self.actor_name,
            "key_id": self.key_id,
            "address": self.address,
            "request_id": self.request_id,
            "action": self.action,
            "object_kind": self.object_kind,
            "object_id": self.object_id,
            "project_id": self.project_id.map(|id| id.to_string()),
            "details": self.details,
            "prev_hash": hex::encode(&self.prev_hash),
            "hash": hex::encode(&self.hash),
        });
        format!("{line}\n")
    }

    /// What the row's hash must be.
    pub fn computed_hash(&self) -> Hash {
        let (org_id, seq) = (self.org_id.to_string(), self.seq.to_string());
        let project_id = self.project_id.map(|id| id.to_string());
        let mut hasher = Sha256::new();
        hasher.update(LABEL);
        hasher.update(&self.prev_hash);
        for field in [
            Some(org_id.as_str()),
            Some(&seq),
            Some(&self.at_text()),
            Some(&self.actor_kind),
            Some(&self.actor_id),
            Some(&self.actor_name),
            self.key_id.as_deref(),
            self.address.as_deref(),
            self.request_id.as_deref(),
            Some(&self.action),
            Some(&self.object_kind),
            Some(&self.object_id),
            project_id.as_deref(),
            Some(&self.details),
        ] {
            add(&mut hasher, field);
        }
        hasher.finalize().into()
    }
}

fn add(hasher: &mut Sha256, field: Option<&str>) {
    let Some(field) = field else {
        return hasher.update([0]);
    };
    hasher.update([1]);
    hasher.update((field.len() as u64).to_be_bytes());
    hasher.update(field);
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A row is missing, or one too many.
    #[error("row {expected} is missing: row {found} follows row {}", expected - 1)]
    Gap {
        /// The place that is empty.
        expected: i64,
        /// The row that comes next.
        found: i64,
    },
    /// The row says that another one came before it.
    #[error(
        "row {0} does not follow the row before it: one of the two was changed, moved or put in"
    )]
    Link(i64),
    /// The row is not what was written.
    #[error("row {0} was changed: its hash does not fit what it says")]
    Changed(i64),
    /// The head that was kept is in no row.
    #[error("no row has the hash {0}: rows were cut off the end, or the log was written anew")]
    Head(String),
    /// The end of the chain is not where the last write left it.
    #[error("the log ends at row {found}, but row {expected} was the last that was written")]
    Truncated {
        /// What the database says was the last.
        expected: i64,
        /// What is there.
        found: i64,
    },
}

/// Goes along one organization's chain, row by row.
#[derive(Debug, Clone)]
pub struct Verifier {
    seq: i64,
    hash: Hash,
    expected: Option<Hash>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self {
            seq: 0,
            hash: GENESIS,
            expected: None,
        }
    }
}

impl Verifier {
    /// Also wants to come across this hash, which was the last one some time ago.
    pub fn expect(head: Hash) -> Self {
        Self {
            expected: Some(head),
            ..Self::default()
        }
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// How the row breaks the chain.
    pub fn take(&mut self, row: &AuditRow) -> Result<(), Broken> {
        if row.seq != self.seq + 1 {
            return Err(Broken::Gap {
                expected: self.seq + 1,
                found: row.seq,
            });
        }
        if row.prev_hash != self.hash {
            return Err(Broken::Link(row.seq));
        }
        let hash = row.computed_hash();
        if row.hash != hash {
            return Err(Broken::Changed(row.seq));
        }
        (self.seq, self.hash) = (row.seq, hash);
        if self.expected == Some(hash) {
            self.expected = None;
        }
        Ok(())
    }

    /// How many rows there were, and the last hash: what to keep elsewhere.
    ///
    /// # Errors
    /// [`Broken::Head`] if the expected hash did not come.
    pub fn finish(self) -> Result<(i64, Hash), Broken> {
        match self.expected {
            // A head that was taken of an empty log says nothing.
            Some(head) if head != GENESIS => Err(Broken::Head(hex::encode(head))),
            _ => Ok((self.seq, self.hash)),
        }
    }
}
