//! A form's body, given to the reader of forms no faster than fields are taken from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_stream::stream;
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::Mutex;

use super::FORM_OVERHEAD_BYTES;

/// The body, and what became of its pieces.
///
/// The reader of forms (multer) takes what the body has until there is nothing at the moment, and keeps all of it until it
/// has found the next boundary or the end of a field's headers. So it gets one piece at a time, the next one only when it
/// asks again without having found anything, and no more at all once it holds more than the parts of a form that are no
/// content can be long.
pub(super) struct Pieces {
    body: Mutex<BodyDataStream>,
    /// Bytes that were given and that no field's content was made of.
    n_held: AtomicUsize,
    /// The reader has something that it did not look at yet.
    has_news: AtomicBool,
}

impl Pieces {
    pub(super) fn of(body: Body) -> Arc<Self> {
        Arc::new(Self {
            body: Mutex::new(body.into_data_stream()),
            n_held: AtomicUsize::new(0),
            has_news: AtomicBool::new(false),
        })
    }

    /// Something was read: a field's beginning or end, or so many bytes of its content. There may be more in the same piece.
    pub(super) fn was_read(&self, n_bytes: usize) {
        self.n_held.fetch_sub(n_bytes, Ordering::Relaxed);
        self.has_news.store(true, Ordering::Relaxed);
    }

    pub(super) fn hold_too_much(&self) -> bool {
        self.n_held.load(Ordering::Relaxed) as u64 > FORM_OVERHEAD_BYTES
    }

    /// For the reader of forms.
    pub(super) fn one_by_one(self: Arc<Self>) -> impl Stream<Item = Result<Bytes, axum::Error>> {
        stream! {
            loop {
                while self.has_news.swap(false, Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
                if self.hold_too_much() {
                    yield Err(axum::Error::new("too much of the form is no field"));
                    return;
                }
                let Some(piece) = self.body.lock().await.next().await else {
                    return;
                };
                if let Ok(piece) = &piece {
                    self.n_held.fetch_add(piece.len(), Ordering::Relaxed);
                }
                self.has_news.store(true, Ordering::Relaxed);
                yield piece;
            }
        }
    }

    /// Reads the body to its end and keeps nothing.
    pub(super) async fn drain(&self) {
        let mut body = self.body.lock().await;
        while let Some(Ok(_)) = body.next().await {}
    }
}
