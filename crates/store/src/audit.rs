//! The audit log: who did what to which object, written in the transaction that does it.
//!
//! Each organization has one chain: a row carries the hash of the row before it, so a row that is changed, removed or
//! moved breaks every hash behind it. Rows are hashed by Postgres (`append_audit`), which is all that a tenant may call;
//! [`chain`] says how, and verifies. [`listing`] reads.
//!
//! The end of the chain is locked from [`record`] until the transaction ends. So that one organization's changes wait for
//! each other no longer than a commit takes, and so that no two transactions wait for each other's locks, `record` comes
//! last, right before the commit.

pub mod chain;
pub mod listing;
mod verify;

use domain::{OrgId, ProjectId};
use serde_json::Value;
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{AuthTx, OperatorTx, OrgTx, StoreError, TenantTx, nul};

pub use verify::verify;

/// Who acts, from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// In whose chain it is written.
    pub org_id: OrgId,
    /// What kind of actor: `api_key`, `user`, `service_account`, `operator`.
    pub kind: String,
    /// Its id among its kind.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The API key of the request.
    pub key_id: Option<String>,
    /// The address of the request.
    pub address: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// For instance `fine_tuning.job.created`.
    pub action: &'static str,
    /// For instance `fine_tuning.job`.
    pub object_kind: &'static str,
    /// The object's id on the wire.
    pub object_id: String,
    /// The project it belongs to. In a tenant's transaction it is the tenant, whatever this says.
    pub project_id: Option<ProjectId>,
    /// What else should be known of it. No secrets: it is kept for good.
    pub details: Value,
}

impl Act {
    /// That `action` was done to an object.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "ids are copied and names borrowed: a call is one line"
    )]
    pub fn new(action: &'static str, object_kind: &'static str, object_id: impl ToString) -> Self {
        Self {
            action,
            object_kind,
            object_id: object_id.to_string(),
            project_id: None,
            details: Value::Object(serde_json::Map::new()),
        }
    }

    /// With what else should be known.
    #[must_use]
    pub fn details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// To an object of this project.
    #[must_use]
    pub fn project(self, project_id: ProjectId) -> Self {
        Self {
            project_id: Some(project_id),
            ..self
        }
    }
}

/// A transaction that may write the log: a project's, an administrator's, the operator's; and of signing in, that somebody
/// became a user or is known by their subject.
pub trait AuditTx: Connection {}

impl AuditTx for TenantTx {}
impl AuditTx for OrgTx {}
impl AuditTx for AuthTx {}
impl AuditTx for OperatorTx {}

/// Adds a row at the end of the organization's chain. It counts when the transaction is committed, with what it is about.
///
/// # Errors
/// [`StoreError::MissingReference`] if the project is not the organization's.
pub async fn record(
    tx: &mut impl AuditTx,
    actor: &Actor,
    act: &Act,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let details = nul::replace_json(&act.details).to_string();
    sqlx::query!(
        "SELECT append_audit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        actor.org_id.0,
        act.project_id.map(|id| id.0) as _,
        now,
        actor.kind,
        actor.id,
        &*nul::replace(&actor.name),
        actor.key_id.as_deref() as _,
        actor.address.as_deref() as _,
        actor.request_id.as_deref() as _,
        act.action,
        act.object_kind,
        &*nul::replace(&act.object_id),
        details,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}
