//! What the operator does: gives a project a bucket, other credentials for it, or none.

use domain::ProjectId;
use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Held, ProjectBucket, Settings, held, place, show};
use crate::sealed::Keyring;
use crate::tx::Connection;
use crate::{OperatorTx, StoreError, nul};

/// What came of [`set`] or [`remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The project's objects are in another place from now on.
    Moved,
    /// They are where they were, and are reached in another way.
    Updated,
    /// Nothing changed: the project has objects, which would be left behind.
    Refused(Held),
    /// There was nothing to change.
    Nothing,
}

/// Gives the project a bucket of its own, or new credentials for the one that it has. Another place is refused while the
/// project has objects.
///
/// # Errors
/// [`StoreError::Sealed`] if the secret cannot be sealed, [`StoreError::NulCharacter`] names what cannot be stored.
pub async fn set(
    mut tx: OperatorTx,
    keyring: &Keyring,
    project_id: ProjectId,
    settings: &Settings,
    secret: &str,
    now: OffsetDateTime,
) -> Result<(OperatorTx, Change), StoreError> {
    refuse_nul(settings)?;
    lock(&mut tx, project_id).await?;
    let known = show(&mut tx, project_id).await?;
    let same = known.filter(|known| known.settings.is_same_place(settings));
    if let Some(known) = same {
        update(&mut tx, keyring, &known, settings, secret, now).await?;
        return Ok((tx, Change::Updated));
    }
    let (mut tx, held) = held(tx, project_id).await?;
    if held.is_any() {
        return Ok((tx, Change::Refused(held)));
    }
    delete(&mut tx, project_id).await?;
    insert(&mut tx, keyring, project_id, settings, secret, now).await?;
    Ok((tx, Change::Moved))
}

/// Takes the project's own bucket away, unless the project has objects in it.
pub async fn remove(
    mut tx: OperatorTx,
    project_id: ProjectId,
) -> Result<(OperatorTx, Change), StoreError> {
    lock(&mut tx, project_id).await?;
    if show(&mut tx, project_id).await?.is_none() {
        return Ok((tx, Change::Nothing));
    }
    let (mut tx, held) = held(tx, project_id).await?;
    if held.is_any() {
        return Ok((tx, Change::Refused(held)));
    }
    delete(&mut tx, project_id).await?;
    Ok((tx, Change::Moved))
}

/// Waits for whoever is writing a row that names an object of the project, and lets no other begin.
async fn lock(tx: &mut OperatorTx, project_id: ProjectId) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('project_buckets' || $1::text, 0))",
        project_id.0.to_string()
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn insert(
    tx: &mut OperatorTx,
    keyring: &Keyring,
    project_id: ProjectId,
    settings: &Settings,
    secret: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "INSERT INTO project_buckets (id, project_id, endpoint, region, bucket, prefix, path_style, access_key_id,
             secret_access_key, configured_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
        id,
        project_id.0,
        settings.endpoint,
        settings.region,
        settings.bucket,
        settings.prefix,
        settings.path_style,
        settings.access_key_id,
        place(project_id, id).seal(keyring, secret.as_bytes())?,
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn update(
    tx: &mut OperatorTx,
    keyring: &Keyring,
    known: &ProjectBucket,
    settings: &Settings,
    secret: &str,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE project_buckets
         SET region = $2, path_style = $3, access_key_id = $4, secret_access_key = $5, configured_at = $6,
             version = version + 1
         WHERE project_id = $1",
        known.project_id.0,
        settings.region,
        settings.path_style,
        settings.access_key_id,
        known.sealed_place().seal(keyring, secret.as_bytes())?,
        now,
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

async fn delete(tx: &mut OperatorTx, project_id: ProjectId) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM project_buckets WHERE project_id = $1",
        project_id.0
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn refuse_nul(settings: &Settings) -> Result<(), StoreError> {
    nul::refuse("endpoint", &settings.endpoint)?;
    nul::refuse("region", &settings.region)?;
    nul::refuse("bucket", &settings.bucket)?;
    nul::refuse("prefix", &settings.prefix)?;
    nul::refuse("access_key_id", &settings.access_key_id)
}
