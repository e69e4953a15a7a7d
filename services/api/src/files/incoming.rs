//! A multipart form on its way in, and what makes the client read the refusal of one.

mod pieces;

use std::sync::Arc;
use std::time::Duration;

use artifacts::ArtifactError;
use async_stream::stream;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use bytes::Bytes;
use futures::Stream;
use store::quotas::Room;

use crate::error::{ApiError, ErrorCode};
use pieces::Pieces;

/// What a form adds to its file: boundaries, headers, small fields.
const FORM_OVERHEAD_BYTES: u64 = 64 << 10;
/// How long a refused upload is still read, so that the client gets to read why.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A form that is being read.
pub(crate) struct Incoming {
    form: Multipart,
    pieces: Arc<Pieces>,
    /// The name of the large field, which errors name.
    large: &'static str,
    may_drain: bool,
    declared_bytes: u64,
}

/// A field of a form. It is to be read to its end, or skipped, and dropped before the next one.
pub(crate) struct FormField<'a> {
    field: Field<'a>,
    pieces: Arc<Pieces>,
    large: &'static str,
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
        let (parts, body) = request.into_parts();
        let pieces = Pieces::of(body);
        let body = Body::from_stream(pieces.clone().one_by_one());
        let form = Multipart::from_request(Request::from_parts(parts, body), &())
            .await
            .map_err(|error| not_a_form(&error))?;
        let incoming = Self {
            form,
            pieces,
            large: field,
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

    /// The next field. The one before must have been read or skipped to its end.
    ///
    /// # Errors
    /// The form cannot be read any further.
    pub(crate) async fn next_field(&mut self) -> Result<Option<FormField<'_>>, ApiError> {
        match self.form.next_field().await {
            Ok(field) => {
                self.pieces.was_read(0);
                Ok(field.map(|field| FormField {
                    field,
                    pieces: self.pieces.clone(),
                    large: self.large,
                }))
            }
            Err(error) => Err(fault(&self.pieces, self.large, &error)),
        }
    }

    /// After a refusal, reads what is left. Answering while the client still sends would close the connection on
    /// it, and it would see a broken pipe instead of the reason.
    pub(crate) async fn settle<T>(self, received: Result<T, ApiError>) -> Result<T, ApiError> {
        // It may be waiting for the body's next piece, and lets nobody else wait for it meanwhile.
        drop(self.form);
        if received.is_err() && self.may_drain {
            // A client that goes on for longer than this has to live with the broken pipe.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.pieces.drain()).await;
        }
        received
    }
}

impl FormField<'_> {
    pub(crate) fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    pub(crate) fn file_name(&self) -> &str {
        self.field.file_name().unwrap_or_default()
    }

    /// Its content as it comes.
    pub(crate) fn chunks(mut self) -> impl Stream<Item = Result<Bytes, MultipartError>> {
        stream! {
            while let Some(chunk) = self.chunk().await.transpose() {
                yield chunk;
            }
        }
    }

    /// The next bytes of its content.
    async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        let chunk = self.field.chunk().await?;
        self.pieces.was_read(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// Its whole content, if that is no longer than `max_bytes`.
    ///
    /// # Errors
    /// The form cannot be read any further.
    pub(crate) async fn short(mut self, max_bytes: usize) -> Result<Option<Vec<u8>>, ApiError> {
        let mut content = Vec::new();
        while let Some(chunk) = self.chunk_or_fault().await? {
            if content.len() + chunk.len() > max_bytes {
                return Ok(None);
            }
            content.extend_from_slice(&chunk);
        }
        Ok(Some(content))
    }

    /// Reads it to its end and keeps nothing.
    ///
    /// # Errors
    /// The form cannot be read any further.
    pub(crate) async fn skip(mut self) -> Result<(), ApiError> {
        while self.chunk_or_fault().await?.is_some() {}
        Ok(())
    }

    async fn chunk_or_fault(&mut self) -> Result<Option<Bytes>, ApiError> {
        let chunk = self.chunk().await;
        chunk.map_err(|error| fault(&self.pieces, self.large, &error))
    }
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

/// The error for a form whose large field is called `large` and that cannot be read to its end.
fn fault(pieces: &Pieces, large: &'static str, error: &MultipartError) -> ApiError {
    if pieces.hold_too_much() {
        return ApiError::invalid_request(format!(
            "The form cannot be read: more than {FORM_OVERHEAD_BYTES} bytes of it belong to no field."
        ));
    }
    match error.status().as_u16() {
        // A body that ends early is the commonest fault, and the parser's words for it are many.
        400 if error.body_text().to_lowercase().contains("incomplete") => cut_short(large),
        400 => {
            ApiError::invalid_request(format!("The form cannot be read: {}.", error.body_text()))
        }
        _ => cut_short(large),
    }
}

/// The error for a large field's content that was not stored. `what` is its name to people, `field` in the form, and `room`
/// what was left of what the project may store.
pub(crate) fn not_stored(
    error: ArtifactError,
    room: Option<Room>,
    what: &'static str,
    field: &'static str,
) -> ApiError {
    match error {
        ArtifactError::TooLarge { max_bytes, .. } => match room {
            Some(room) if room.bytes() <= max_bytes => ApiError::quota_exceeded(&room.exceeded()),
            _ => ApiError::too_large(what, max_bytes).param(field),
        },
        ArtifactError::Source { .. } => cut_short(field),
        error => error.into(),
    }
}

/// The connection broke.
fn cut_short(field: &'static str) -> ApiError {
    ApiError::invalid(
        field,
        format!("The upload broke off before its end; nothing was stored. Send the {field} again."),
    )
    .code(ErrorCode::UploadIncomplete)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{Stream, StreamExt as _, stream};

    use super::*;

    const PIECE: &[u8] = &[b'x'; 16 << 10];
    const HEAD: &str = "--edge\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n";
    const END: &str = "\r\n--edge--\r\n";

    fn text(text: &'static str) -> impl Stream<Item = Bytes> + Send {
        stream::iter([Bytes::from(text)])
    }

    /// A body, and how many of its bytes were taken.
    fn counted(pieces: impl Stream<Item = Bytes> + Send + 'static) -> (Request, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let body = pieces.map(move |piece| {
            count.fetch_add(piece.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let request = Request::builder()
            .header("content-type", "multipart/form-data; boundary=edge")
            .body(Body::from_stream(body));
        (request.unwrap(), taken)
    }

    fn many() -> impl Stream<Item = Bytes> + Send {
        stream::iter((0..100).map(|_| Bytes::from_static(PIECE)))
    }

    async fn open(request: Request) -> Incoming {
        Incoming::open(request, "file", 1 << 30).await.unwrap()
    }

    #[tokio::test]
    async fn a_form_is_not_read_ahead_of_what_is_taken_from_it() {
        let (request, given) = counted(text(HEAD).chain(many()).chain(text(END)));
        let mut incoming = open(request).await;
        let mut field = incoming.next_field().await.unwrap().unwrap();
        let mut n_taken = 0;
        while let Some(chunk) = field.chunk().await.unwrap() {
            let ahead = given.load(Ordering::Relaxed) - n_taken;
            assert!(ahead <= 4 * PIECE.len(), "{ahead} bytes wait in memory");
            n_taken += chunk.len();
        }
        assert_eq!(n_taken, 100 * PIECE.len());
    }

    #[tokio::test]
    async fn a_form_may_come_in_any_pieces() {
        let whole = format!("{HEAD}abc{END}");
        for n_bytes in [1, 7, 100, whole.len()] {
            let pieces: Vec<_> = whole
                .as_bytes()
                .chunks(n_bytes)
                .map(Bytes::copy_from_slice)
                .collect();
            let (request, _) = counted(stream::iter(pieces));
            let mut incoming = open(request).await;
            let mut field = incoming.next_field().await.unwrap().unwrap();
            let mut content = Vec::new();
            while let Some(chunk) = field.chunk().await.unwrap() {
                content.extend_from_slice(&chunk);
            }
            drop(field);
            assert_eq!(content, b"abc");
            assert!(incoming.next_field().await.unwrap().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_after_a_refusal_is_read_while_the_client_still_sends_it() {
        let pause = stream::once(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Bytes::from_static(PIECE)
        });
        let sent = text(HEAD)
            .chain(many().take(1))
            .chain(pause)
            .chain(text(END));
        let (request, taken) = counted(sent);
        let mut incoming = open(request).await;
        let mut field = incoming.next_field().await.unwrap().unwrap();
        field.chunk().await.unwrap().unwrap();
        drop(field);
        let refused = Err::<(), _>(ApiError::too_large("file", 1));
        assert!(incoming.settle(refused).await.is_err());
        let n_sent = HEAD.len() + 2 * PIECE.len() + END.len();
        assert_eq!(taken.load(Ordering::Relaxed), n_sent);
    }

    #[tokio::test]
    async fn what_never_becomes_a_field_is_not_kept() {
        let without_boundary = many().boxed();
        let without_end_of_headers = text("--edge\r\na: ").chain(many()).boxed();
        let small = "--edge\r\ncontent-disposition: form-data; name=\"n\"\r\n\r\n1\r\n";
        let only_small = stream::iter((0..4096).map(move |_| Bytes::from(small))).boxed();
        for form in [without_boundary, without_end_of_headers, only_small] {
            let (request, taken) = counted(form);
            let mut incoming = open(request).await;
            let error = loop {
                let skipped = match incoming.next_field().await {
                    Ok(field) => field.expect("the form has no end").skip().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = skipped {
                    break error;
                }
            };
            assert!(format!("{error:?}").contains("65536 bytes"), "{error:?}");
            let taken = taken.load(Ordering::Relaxed);
            assert!(taken <= 96 << 10, "{taken} bytes were read");
        }
    }
}
