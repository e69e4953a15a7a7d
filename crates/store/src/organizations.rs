//! Organizations: the customers of an installation.

use domain::OrgId;
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{OperatorTx, StoreError, TenantTx, nul};

/// One customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// For people.
    pub name: String,
    /// Lower-case letters, digits and hyphens; part of the names of its models.
    pub slug: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Stores a new organization.
///
/// # Errors
/// [`StoreError::Exists`] if the slug is taken.
pub async fn create(tx: &mut OperatorTx, organization: &Organization) -> Result<(), StoreError> {
    nul::refuse("name", &organization.name)?;
    nul::refuse("slug", &organization.slug)?;
    sqlx::query!(
        "INSERT INTO organizations (id, name, slug, created_at) VALUES ($1, $2, $3, $4)",
        organization.id.0,
        organization.name,
        organization.slug,
        organization.created_at,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// The organization with this slug.
pub async fn find_by_slug(
    tx: &mut OperatorTx,
    slug: &str,
) -> Result<Option<Organization>, StoreError> {
    nul::refuse("slug", slug)?;
    let row = sqlx::query!(
        "SELECT id, name, slug, created_at FROM organizations WHERE slug = $1",
        slug
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Organization {
        id: OrgId(row.id),
        name: row.name,
        slug: row.slug,
        created_at: row.created_at,
    }))
}

/// The organization of the transaction's project: row security shows no other.
pub async fn own(tx: &mut TenantTx) -> Result<Option<Organization>, StoreError> {
    let row = sqlx::query!(
        "SELECT o.id, o.name, o.slug, o.created_at
         FROM organizations o JOIN projects p ON p.org_id = o.id WHERE p.id = $1",
        tx.project_id().0
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Organization {
        id: OrgId(row.id),
        name: row.name,
        slug: row.slug,
        created_at: row.created_at,
    }))
}
