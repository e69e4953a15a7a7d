//! Reading the audit log: pages for people, the whole of it for exports and verification.

use domain::{OrgId, ProjectId};
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::chain::AuditRow;
use crate::page::one_more;
use crate::tx::{AdminTx, Connection};
use crate::{OperatorTx, Page, StoreError};

/// Which rows to list. Empty lists and absent bounds let everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditListing {
    /// Only rows older than this one.
    pub after: Option<i64>,
    /// So many at most.
    pub limit: u32,
    /// Only of these projects.
    pub projects: Vec<ProjectId>,
    /// Only these actions.
    pub actions: Vec<String>,
    /// Only by these actors, or with these keys.
    pub actors: Vec<String>,
    /// Only to these objects.
    pub objects: Vec<String>,
    /// Not before this.
    pub from: Option<OffsetDateTime>,
    /// Before this, not at it.
    pub until: Option<OffsetDateTime>,
}

/// One page of an organization's log, newest first.
pub async fn list(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    listing: &AuditListing,
) -> Result<Page<AuditRow>, StoreError> {
    let projects: Vec<Uuid> = listing.projects.iter().map(|id| id.0).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT org_id, seq, at, actor_kind, actor_id, actor_name, key_id, address, request_id, action,
                object_kind, object_id, project_id, details::text AS "details!", prev_hash, hash
         FROM audit_log
         WHERE org_id = $1 AND seq < COALESCE($2, 9223372036854775807)
           AND (cardinality($3::uuid[]) = 0 OR project_id = ANY ($3))
           AND (cardinality($4::text[]) = 0 OR action = ANY ($4))
           AND (cardinality($5::text[]) = 0 OR actor_id = ANY ($5) OR key_id = ANY ($5))
           AND (cardinality($6::text[]) = 0 OR object_id = ANY ($6))
           AND ($7::timestamptz IS NULL OR at >= $7)
           AND ($8::timestamptz IS NULL OR at < $8)
         ORDER BY seq DESC LIMIT $9"#,
        org_id.0,
        listing.after,
        &projects,
        &listing.actions,
        &listing.actors,
        &listing.objects,
        listing.from,
        listing.until,
        one_more(listing.limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Page::cut(rows, listing.limit, |row| Ok(row.read()))
}

/// At most `limit` rows behind the one with `seq`, oldest first: how an export or a verification goes along.
pub async fn next(
    tx: &mut impl AdminTx,
    org_id: OrgId,
    seq: i64,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT org_id, seq, at, actor_kind, actor_id, actor_name, key_id, address, request_id, action,
                object_kind, object_id, project_id, details::text AS "details!", prev_hash, hash
         FROM audit_log WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"#,
        org_id.0,
        seq,
        i64::from(limit),
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Row::read).collect())
}

/// Every organization that has a log, and the number of its last row.
pub async fn heads(tx: &mut OperatorTx) -> Result<Vec<(OrgId, i64)>, StoreError> {
    // An organization whose head is gone but whose rows are there has lost its head: it is verified all the same.
    let rows = sqlx::query!(
        r#"SELECT COALESCE(h.org_id, l.org_id) AS "org_id!", COALESCE(h.seq, 0) AS "seq!"
         FROM audit_heads h FULL JOIN (SELECT DISTINCT org_id FROM audit_log) l ON l.org_id = h.org_id
         ORDER BY 1"#
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (OrgId(row.org_id), row.seq))
        .collect())
}

struct Row {
    org_id: Uuid,
    seq: i64,
    at: OffsetDateTime,
    actor_kind: String,
    actor_id: String,
    actor_name: String,
    key_id: Option<String>,
    address: Option<String>,
    request_id: Option<String>,
    action: String,
    object_kind: String,
    object_id: String,
    project_id: Option<Uuid>,
    details: String,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl Row {
    fn read(self) -> AuditRow {
        AuditRow {
            org_id: OrgId(self.org_id),
            seq: self.seq,
            at: self.at,
            actor_kind: self.actor_kind,
            actor_id: self.actor_id,
            actor_name: self.actor_name,
            key_id: self.key_id,
            address: self.address,
            request_id: self.request_id,
            action: self.action,
            object_kind: self.object_kind,
            object_id: self.object_id,
            project_id: self.project_id.map(ProjectId),
            details: self.details,
            prev_hash: self.prev_hash,
            hash: self.hash,
        }
    }
}
