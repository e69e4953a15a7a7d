//! `GET /v1/files/{id}/content`.

use std::fmt::Write as _;

use artifacts::{ArtifactError, ObjectBody, keys};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use domain::FileId;
use store::files::{self, File};

use super::range::{Wanted, wanted};
use crate::AppState;
use crate::auth::Tenant;
use crate::error::{ApiError, Thing};
use crate::extract::PathId;
use crate::openapi::ErrorBody;

/// Download a file, or a range of its bytes.
#[utoipa::path(
    get,
    path = "/v1/files/{id}/content",
    tag = "Files",
    params(
        ("id" = String, Path, description = "The file's id, `file-…`."),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "The whole file."),
        (status = 206, content_type = "application/octet-stream", description = "The range that `range` asks for."),
        (status = 416, body = ErrorBody, description = "The range lies beyond the file's end; `content-range` says where that is."),
    )
)]
pub async fn retrieve_file_content(
    State(state): State<AppState>,
    tenant: Tenant,
    PathId(id): PathId<FileId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let file = files::find(&mut tx, id).await?;
    let objects = state.buckets.of(&mut tx).await?;
    // A download may take minutes; the transaction must not.
    tx.commit().await?;
    let file = file.ok_or_else(|| ApiError::not_found(Thing::File, &id.to_string()))?;
    let key = keys::file(tenant.project_id, id);
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let size_bytes = file.size_bytes;
    let (status, body, content_range) = match wanted(range, size_bytes) {
        Wanted::Outside => {
            let all = [(CONTENT_RANGE, format!("bytes */{size_bytes}"))];
            return Ok((all, ApiError::range_not_satisfiable(size_bytes)).into_response());
        }
        Wanted::Whole => (StatusCode::OK, objects.get_stream(&key).await, None),
        Wanted::Part(part) => {
            let shown = format!("bytes {}-{}/{size_bytes}", part.start, part.end - 1);
            (
                StatusCode::PARTIAL_CONTENT,
                objects.get_range(&key, part).await,
                Some(shown),
            )
        }
    };
    let body = body.map_err(|error| match error {
        // Deleted between our look at the row and now.
        ArtifactError::NotFound { .. } => ApiError::not_found(Thing::File, &id.to_string()),
        error => error.into(),
    })?;
    Ok(download(status, &file, body, content_range))
}

fn download(
    status: StatusCode,
    file: &File,
    body: ObjectBody,
    content_range: Option<String>,
) -> Response {
    let text = |value: String| HeaderValue::try_from(value).expect("printable ASCII");
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.size_bytes));
    headers.insert(ETAG, text(format!("\"{}\"", file.sha256)));
    headers.insert(CONTENT_DISPOSITION, text(disposition(&file.filename)));
    if let Some(range) = content_range {
        headers.insert(CONTENT_RANGE, text(range));
    }
    (status, headers, Body::from_stream(body.stream)).into_response()
}

/// Always a download, never a page: the content is a tenant's and may be anything. The name is in RFC 5987's
/// form, which is plain ASCII whatever the name.
fn disposition(filename: &str) -> String {
    let mut text = "attachment; filename*=UTF-8''".to_owned();
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        assert_eq!(
            disposition("ä\"; x=\r\n.js"),
            "attachment; filename*=UTF-8''%C3%A4%22%3B%20x%3D%0D%0A.js"
        );
    }
}
