//! Organizations: the customers of an installation.

use domain::OrgId;
use time::OffsetDateTime;

use crate::tx::Connection;
use crate::{AdminTx, OperatorTx, StoreError, TenantTx, nul, slug};

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

/// Makes an organization with this name. The slug is made of the name, and told apart where it is taken.
pub async fn create_named(
    tx: &mut OperatorTx,
    name: &str,
    now: OffsetDateTime,
) -> Result<Organization, StoreError> {
    nul::refuse("name", name)?;
    let id = OrgId::new();
    for slug in slug::candidates(name, "org", id.0) {
        let made = sqlx::query!(
            "INSERT INTO organizations (id, name, slug, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (slug) DO NOTHING",
            id.0,
            name,
            slug,
            now,
        )
        .execute(tx.connection())
        .await?;
        if made.rows_affected() == 1 {
            return Ok(Organization {
                id,
                name: name.to_owned(),
                slug,
                created_at: now,
            });
        }
    }
    Err(StoreError::Exists {
        constraint: "organizations_slug_key".to_owned(),
    })
}

/// Every organization that is in use, oldest first.
pub async fn list(tx: &mut OperatorTx) -> Result<Vec<Organization>, StoreError> {
    let rows = sqlx::query!(
        "SELECT id, name, slug, created_at FROM organizations WHERE archived_at IS NULL
         ORDER BY created_at, id"
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Organization {
            id: OrgId(row.id),
            name: row.name,
            slug: row.slug,
            created_at: row.created_at,
        })
        .collect())
}

/// The organization with this id, as far as the transaction sees it.
pub async fn find(tx: &mut impl AdminTx, id: OrgId) -> Result<Option<Organization>, StoreError> {
    let row = sqlx::query!(
        "SELECT id, name, slug, created_at FROM organizations WHERE id = $1",
        id.0
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

/// Lets none of its keys and users in from now on. False if there is no such organization or it was archived before.
pub async fn archive(
    tx: &mut OperatorTx,
    id: OrgId,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE organizations SET archived_at = $2 WHERE id = $1 AND archived_at IS NULL",
        id.0,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
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
