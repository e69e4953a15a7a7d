//! A file that something else is to read: a job its rows, a batch its requests.

use domain::FileId;
use store::TenantTx;
use store::files::{self, File, FileStatus};
use time::OffsetDateTime;

use crate::error::{ApiError, Thing};

/// The file that the request's field `param` names by `id`, if it is the tenant's and there to be read by `reader`, who
/// needs one of the purpose.
///
/// # Errors
/// It is missing, expired, of another purpose, or could not be processed.
pub(crate) async fn find(
    tx: &mut TenantTx,
    (param, id): (&'static str, &str),
    (reader, purpose): (&str, &str),
    now: OffsetDateTime,
) -> Result<File, ApiError> {
    let missing = || ApiError::not_found(Thing::File, id).param(param);
    let file = files::find(tx, id.parse::<FileId>().map_err(|_| missing())?)
        .await?
        .ok_or_else(missing)?;
    if file.expires_at.is_some_and(|end| end <= now) {
        return Err(missing());
    }
    let refused = |message: String| Err(ApiError::invalid(param, message));
    if file.purpose != purpose {
        return refused(format!(
            "The file `{id}` was uploaded with the purpose `{}`; {reader} needs one with `{purpose}`.",
            file.purpose
        ));
    }
    if file.status == FileStatus::Error {
        return refused(format!("The file `{id}` could not be processed."));
    }
    Ok(file)
}
