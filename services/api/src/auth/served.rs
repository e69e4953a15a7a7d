//! Whose organization a request was answered for: OpenAI's `openai-organization`, on every answer to somebody who was let in.

use std::cell::OnceCell;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use domain::OrgId;

const HEADER: HeaderName = HeaderName::from_static(super::ORGANIZATION_HEADER);

tokio::task_local! {
    static ORGANIZATION: OnceCell<OrgId>;
}

/// The organization that a request's credentials belong to, noted for the answer.
pub(super) fn noted(org_id: OrgId) -> OrgId {
    // Outside of a request there is no answer to show it in.
    let _ = ORGANIZATION.try_with(|noted| noted.set(org_id));
    org_id
}

/// The layer that shows it.
pub(crate) async fn show(request: Request, next: Next) -> Response {
    let answered = ORGANIZATION.scope(OnceCell::new(), async {
        let response = next.run(request).await;
        (response, ORGANIZATION.with(|noted| noted.get().copied()))
    });
    let (mut response, org_id) = answered.await;
    if let Some(org_id) = org_id {
        let value = HeaderValue::try_from(org_id.to_string()).expect("letters and digits");
        response.headers_mut().insert(HEADER, value);
    }
    response
}
