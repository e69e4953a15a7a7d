//! `POST /v1/uploads/{id}/complete`.
//!
//! Joining takes as long as the file is long, so it happens outside any transaction. Two clients that complete one
//! upload at once both join; the first to commit makes the file, the other finds it and throws its own away.

use std::collections::{HashMap, HashSet};

use artifacts::{ArtifactError, ByteStream, keys};
use async_stream::{stream, try_stream};
use axum::Json;
use axum::extract::State;
use buckets::ProjectObjects;
use domain::limits::MAX_PARTS;
use domain::upload::Completion;
use domain::{FileId, Upload, UploadId};
use futures::{StreamExt as _, TryStreamExt as _};
use md5::{Digest as _, Md5};
use store::TenantTx;
use store::audit;
use store::files::{self, File};
use store::quotas;
use store::uploads::{self, Part};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{UploadObject, fields};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::{JsonBody, PathId};
use crate::files::create::created;
use crate::files::intake::{Content, Description, Destination, judged, to_the_end};

/// The body, as the documentation shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a body is read field by field")]
struct CompletedUpload {
    /// Every part, in the file's order.
    part_ids: Vec<String>,
    /// Of the whole file, in 32 hexadecimal digits.
    md5: Option<String>,
}

/// Make a file of an upload's parts. The same request again gets the same answer.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/complete",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The upload's id, `upload_…`."),
    ),
    request_body(content = CompletedUpload),
    responses((status = 200, body = UploadObject, description = "The upload, completed, with its file."))
)]
pub async fn complete_upload(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<UploadId>,
    JsonBody(body): JsonBody,
) -> Result<Json<UploadObject>, ApiError> {
    let with = fields::completion(&body, MAX_PARTS)?;
    let (upload, file) = to_the_end(complete(state, tenant, id, with)).await?;
    Ok(Json(UploadObject::of(upload, file)))
}

type Completed = (Upload, Option<File>);

async fn complete(
    state: AppState,
    tenant: Tenant,
    id: UploadId,
    with: Completion,
) -> Result<Completed, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    // Locked, so that the parts are those of what was found: whoever ends the upload takes them away.
    let upload = uploads::find_for_update(&mut tx, id).await?;
    let upload = upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &id.to_string()))?;
    if let Some(file_id) = answered(&upload, &with) {
        let file = files::find(&mut tx, file_id).await?;
        return Ok((upload, file));
    }
    upload.check_open(state.clock.now())?;
    let parts = uploads::parts(&mut tx, id).await?;
    let objects = state.buckets.of(&mut tx).await?;
    tx.commit().await?;
    check_parts(&upload, &parts, &with)?;

    let file_id = FileId::new();
    let key = keys::file(tenant.project_id, file_id);
    let destination = Destination {
        objects: &objects,
        key: &key,
        max_bytes: upload.size_bytes,
    };
    let content = match join(&destination, &upload, &with).await {
        Ok(content) => content,
        Err(JoinError::PartGone) => return ended_meanwhile(&state, &tenant, id, &with).await,
        Err(JoinError::Other(error)) => return Err(*error),
    };
    commit(&state, &tenant, &destination, file_id, content, (id, with)).await
}

/// The file of an upload that was completed with the very same request.
fn answered(upload: &Upload, with: &Completion) -> Option<FileId> {
    let (before, file_id) = upload.completed.as_ref()?;
    (before == with).then_some(*file_id)
}

/// Refuses what cannot become the declared file before a byte is moved.
fn check_parts(upload: &Upload, parts: &[Part], with: &Completion) -> Result<(), ApiError> {
    let sizes: HashMap<_, _> = parts
        .iter()
        .map(|part| (part.id, part.size_bytes))
        .collect();
    let mut seen = HashSet::new();
    let mut total = 0;
    for id in &with.part_ids {
        total += sizes.get(id).ok_or_else(|| no_part(&id.to_string()))?;
        if !seen.insert(id) {
            return Err(ApiError::invalid(
                "part_ids",
                format!("The part `{id}` is named twice."),
            ));
        }
    }
    if total != upload.size_bytes {
        let message = format!(
            "The parts have {total} bytes together, but the upload was declared to have {}. Name every part, in \
             order, or begin another upload.",
            upload.size_bytes
        );
        return Err(ApiError::invalid("part_ids", message).code(ErrorCode::UploadSizeMismatch));
    }
    Ok(())
}

/// A part that does not exist or is another upload's: the answer is the same for both.
pub(super) fn no_part(id: &str) -> ApiError {
    let id: String = id.chars().take(160).collect();
    ApiError::invalid("part_ids", format!("The upload has no part `{id}`."))
        .code(ErrorCode::PartNotFound)
}

enum JoinError {
    PartGone,
    Other(Box<ApiError>),
}

impl From<ArtifactError> for JoinError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::NotFound { .. } => Self::PartGone,
            // What could not be read was one of our own objects, so it is that failure that counts.
            ArtifactError::Source { source, .. } => match source.downcast::<ArtifactError>() {
                Ok(error) => (*error).into(),
                Err(other) => Self::Other(Box::new(ApiError::internal(other))),
            },
            error => Self::Other(Box::new(error.into())),
        }
    }
}

/// Streams the parts, one behind the other, into one object: in constant memory, whatever their size. A copy inside
/// the bucket would not do, as every byte has to be hashed and looked at.
async fn join(
    destination: &Destination<'_>,
    upload: &Upload,
    with: &Completion,
) -> Result<Content, JoinError> {
    let keys: Vec<String> = with
        .part_ids
        .iter()
        .map(|part| keys::upload_part(upload.project_id, upload.id, *part))
        .collect();
    let mut md5 = with.md5.as_ref().map(|_| Md5::new());
    let seen = &mut md5;
    let mut parts = concatenated(destination.objects.clone(), keys);
    let chunks = stream! {
        while let Some(chunk) = parts.next().await {
            if let (Ok(chunk), Some(md5)) = (&chunk, seen.as_mut()) {
                md5.update(chunk);
            }
            yield chunk;
        }
    };
    let content = destination.take(chunks).await?;
    let found = md5.map(|md5| hex::encode(md5.finalize()));
    if found == with.md5 {
        return Ok(content);
    }
    destination.give_up().await;
    let message = format!(
        "The parts make a file whose MD5 is {}, not {}. Check their order, or send them again.",
        found.unwrap_or_default(),
        with.md5.as_deref().unwrap_or_default()
    );
    let error = ApiError::invalid("md5", message).code(ErrorCode::ChecksumMismatch);
    Err(JoinError::Other(Box::new(error)))
}

/// The objects' bytes, one object behind the other.
fn concatenated(objects: ProjectObjects, keys: Vec<String>) -> ByteStream {
    Box::pin(try_stream! {
        for key in keys {
            let mut part = objects.get_stream(&key).await?.stream;
            while let Some(chunk) = part.try_next().await? {
                yield chunk;
            }
        }
    })
}

/// Makes the file, unless somebody was faster.
async fn commit(
    state: &AppState,
    tenant: &Tenant,
    destination: &Destination<'_>,
    file_id: FileId,
    content: Content,
    (id, with): (UploadId, Completion),
) -> Result<Completed, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let decided = decide(&mut tx, id, with, file_id, content, state.clock.now()).await;
    let (upload, file) = match decided {
        Ok(Decided::Make(upload, file)) => (upload, file),
        not_made => {
            drop(tx);
            destination.give_up().await;
            return not_made.map(Decided::found);
        }
    };
    // When this fails, the object is an orphan, as after any upload whose commit fails: see `create_file`.
    if let Err(changed) = destination.objects.hold(&mut tx).await {
        drop(tx);
        destination.give_up().await;
        return Err(changed.into());
    }
    files::create(&mut tx, &file).await?;
    // The parts make room for what was made of them.
    uploads::end(
        &mut tx,
        &upload,
        &keys::upload_prefix(tenant.project_id, id),
    )
    .await?;
    if let Err(refused) = quotas::admit_bytes(&mut tx, file.size_bytes).await {
        drop(tx);
        destination.give_up().await;
        return Err(refused.into());
    }
    audit::record(&mut tx, &tenant.actor(), &created(&file), file.created_at).await?;
    tx.commit().await?;
    Ok((upload, Some(file)))
}

enum Decided {
    Make(Upload, File),
    Found(Upload, Option<File>),
}

impl Decided {
    fn found(self) -> Completed {
        match self {
            Self::Make(upload, file) => (upload, Some(file)),
            Self::Found(upload, file) => (upload, file),
        }
    }
}

/// What becomes of a joined upload, which is locked from here on.
async fn decide(
    tx: &mut TenantTx,
    id: UploadId,
    with: Completion,
    file_id: FileId,
    content: Content,
    now: OffsetDateTime,
) -> Result<Decided, ApiError> {
    let upload = uploads::find_for_update(tx, id).await?;
    let upload = upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &id.to_string()))?;
    if let Some(theirs) = answered(&upload, &with) {
        let file = files::find(tx, theirs).await?;
        return Ok(Decided::Found(upload, file));
    }
    let upload = upload.complete(with, file_id)?;
    let description = Description {
        id: file_id,
        project_id: upload.project_id,
        filename: upload.filename.clone(),
        purpose: upload.purpose.clone(),
        expires_after_secs: upload.expires_after_secs,
    };
    let file = judged(description, content, now)?;
    Ok(Decided::Make(upload, file))
}

/// The answer when parts vanished while they were joined: somebody else has ended the upload.
async fn ended_meanwhile(
    state: &AppState,
    tenant: &Tenant,
    id: UploadId,
    with: &Completion,
) -> Result<Completed, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let upload = uploads::find(&mut tx, id).await?;
    let upload = upload.ok_or_else(|| ApiError::not_found(Thing::Upload, &id.to_string()))?;
    if let Some(file_id) = answered(&upload, with) {
        let file = files::find(&mut tx, file_id).await?;
        return Ok((upload, file));
    }
    upload.check_open(state.clock.now())?;
    Err(ApiError::internal(format!(
        "the object of a part of `{id}` is gone"
    )))
}
