//! A multipart form on its way in, and what makes the client read the refusal of one.

use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures::StreamExt as _;

use crate::error::{ApiError, ErrorCode};

/// What a form adds to its file: boundaries, headers, small fields.
const FORM_OVERHEAD_BYTES: u64 = 64 << 10;
/// How long a refused upload is still read, so that the client gets to read why.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A form that is being read.
pub(crate) struct Incoming {
    pub(crate) form: Multipart,
    may_drain: bool,
    declared_bytes: u64,
}

impl Incoming {
    /// Begins to read a form whose large field is called `field`.
    ///
    /// # Errors
    /// It is none, or declares itself longer than the field may be.
    pub(crate) async fn open(
        request: Request,
        field: &'static str,
        max_bytes: u64,
    ) -> Result<Self, ApiError> {
        let declared_bytes = declared_length(request.headers());
        let may_drain = !request.headers().contains_key(EXPECT);
        let form = Multipart::from_request(request.map(piece_by_piece), &())
            .await
            .map_err(|error| not_a_form(&error))?;
        let incoming = Self {
            form,
            may_drain,
            declared_bytes,
        };
        if declared_bytes > max_bytes.saturating_add(FORM_OVERHEAD_BYTES) {
            return incoming
                .settle(Err(ApiError::too_large(field, max_bytes).param(field)))
                .await;
        }
        Ok(incoming)
    }

    /// How long its large field is at least, as far as it was declared.
    pub(crate) fn least_bytes(&self) -> u64 {
        self.declared_bytes.saturating_sub(FORM_OVERHEAD_BYTES)
    }

    /// After a refusal, reads what is left. Answering while the client still sends would close the connection on
    /// it, and it would see a broken pipe instead of the reason.
    pub(crate) async fn settle<T>(mut self, received: Result<T, ApiError>) -> Result<T, ApiError> {
        if received.is_err() && self.may_drain {
            let rest = async { while let Ok(Some(_)) = self.form.next_field().await {} };
            // A client that goes on for longer than this has to live with the broken pipe.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
        }
        received
    }
}

/// The same body, which lets go of the thread before each piece.
///
/// The reader of forms takes what the body has until there is nothing at the moment. A client on a fast network always has
/// more, so that tens of megabytes of one upload would wait in its buffer while we hash and send the first.
fn piece_by_piece(body: Body) -> Body {
    Body::from_stream(body.into_data_stream().then(|piece| async {
        tokio::task::yield_now().await;
        piece
    }))
}

fn declared_length(headers: &HeaderMap) -> u64 {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn not_a_form(rejection: &MultipartRejection) -> ApiError {
    match rejection {
        MultipartRejection::InvalidBoundary(_) => {
            ApiError::unsupported_media_type("multipart/form-data; boundary=…")
        }
        _ => ApiError::invalid_request("The form cannot be read."),
    }
}

/// The error for a form whose large field is called `field` and that cannot be read to its end.
pub(crate) fn broken(field: &'static str, error: &MultipartError) -> ApiError {
    match error.status().as_u16() {
        // A body that ends early is the commonest fault, and the parser's words for it are many.
        400 if error.body_text().to_lowercase().contains("incomplete") => cut_short(field),
        400 => {
            ApiError::invalid_request(format!("The form cannot be read: {}.", error.body_text()))
        }
        _ => cut_short(field),
    }
}

/// The connection broke.
pub(crate) fn cut_short(field: &'static str) -> ApiError {
    ApiError::invalid(
        field,
        format!("The upload broke off before its end; nothing was stored. Send the {field} again."),
    )
    .code(ErrorCode::UploadIncomplete)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_form_is_not_read_ahead_of_what_is_taken_from_it() {
        const PIECE: &[u8] = &[b'x'; 16 << 10];
        let given = Arc::new(AtomicUsize::new(0));
        let counted = given.clone();
        let pieces = stream::iter((0..100).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(PIECE))
        }));
        let around = |text: &'static str| stream::iter([Ok(Bytes::from(text))]);
        let head = around("--edge\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n");
        let form = head.chain(pieces).chain(around("\r\n--edge--\r\n"));
        let request = Request::builder()
            .header("content-type", "multipart/form-data; boundary=edge")
            .body(Body::from_stream(form))
            .unwrap();
        let mut incoming = Incoming::open(request, "file", 1 << 30).await.unwrap();
        let mut field = incoming.form.next_field().await.unwrap().unwrap();
        let mut n_taken = 0;
        while let Some(chunk) = field.chunk().await.unwrap() {
            let ahead = given.load(Ordering::Relaxed) * PIECE.len() - n_taken;
            assert!(ahead <= 4 * PIECE.len(), "{ahead} bytes wait in memory");
            n_taken += chunk.len();
        }
        assert_eq!(n_taken, 100 * PIECE.len());
    }
}
