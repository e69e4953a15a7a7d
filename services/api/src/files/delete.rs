//! `DELETE /v1/files/{id}`.

use artifacts::keys;
use axum::Json;
use axum::extract::State;
use domain::FileId;
use serde::Serialize;
use store::audit::{self, Act};
use store::files::{self, NeededBy};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::PathId;
use crate::openapi::build;

/// What is left of a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedFile {
    #[schema(value_type = String)]
    id: FileId,
    #[schema(schema_with = build::file)]
    object: &'static str,
    deleted: bool,
}

/// Delete a file, unless something that is not finished still reads it.
#[utoipa::path(
    delete,
    path = "/v1/files/{id}",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The file's id, `file-…`."),
    ),
    responses((status = 200, body = DeletedFile, description = "The file is gone."))
)]
pub async fn delete_file(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<FileId>,
) -> Result<Json<DeletedFile>, ApiError> {
    let key = keys::file(tenant.project_id, id);
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    if let Some(needed_by) = files::needed_by(&mut tx, id).await? {
        return Err(in_use(id, needed_by));
    }
    if !files::delete(&mut tx, id, &key).await? {
        return Err(ApiError::not_found(Thing::File, &id.to_string()));
    }
    let objects = state.buckets.of(&mut tx).await?;
    audit::record(
        &mut tx,
        &tenant.actor(),
        &Act::new("file.deleted", "file", id),
        state.clock.now(),
    )
    .await?;
    tx.commit().await?;
    // The row is gone and the object's deletion is on record; this only makes it happen now, not in a minute.
    if let Err(error) = objects.delete(&key).await {
        let chain = domain::failure::error_chain(&error);
        tracing::warn!(file.id = %id, error = %chain, "The sweep will have to delete the object of `{id}`: {chain}");
    }
    Ok(Json(DeletedFile {
        id,
        object: "file",
        deleted: true,
    }))
}

fn in_use(id: FileId, needed_by: NeededBy) -> ApiError {
    let who = match needed_by {
        NeededBy::Job(job) => format!("fine-tuning job `{job}`"),
        NeededBy::Batch(batch) => format!("batch `{batch}`"),
    };
    let message = format!(
        "The file `{id}` is still needed by the {who}. Wait until that has finished, or cancel it first."
    );
    ApiError::invalid("id", message).code(ErrorCode::FileInUse)
}
