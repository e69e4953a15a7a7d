//! A stream that breaks off says so: the status was sent long ago, so the error is an event, which makes clients raise.

use async_stream::stream;
use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};

use super::is_stream;
use crate::answer;
use crate::error::ApiError;

const END_OF_EVENT: &[u8] = b"\n\n";
/// An event that is longer is passed on in pieces.
const MAX_HELD_BYTES: usize = 1 << 20;

/// The same answer, with an error in place of what is missing if it is a stream and breaks off.
pub(super) fn told(response: Response) -> Response {
    if !is_stream(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let events = whole_events(body.into_data_stream(), answer::request_id());
    Response::from_parts(parts, Body::from_stream(events))
}

/// Events are passed on when they are whole, so that no half of one stands before the error.
fn whole_events(
    mut answer: BodyDataStream,
    request_id: String,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let span = tracing::Span::current();
    stream! {
        let mut held = BytesMut::new();
        while let Some(chunk) = answer.next().await {
            match chunk {
                Ok(chunk) => {
                    held.extend_from_slice(&chunk);
                    if let Some(n) = whole(&held) {
                        yield Ok(held.split_to(n).freeze());
                    }
                }
                Err(error) => {
                    let error = ApiError::unavailable(error);
                    let body = span.in_scope(|| error.into_body_of(&request_id));
                    yield Ok(format!("data: {body}\n\n").into());
                    return;
                }
            }
        }
        if !held.is_empty() {
            yield Ok(held.freeze());
        }
    }
}

/// How many of these bytes can go.
fn whole(held: &[u8]) -> Option<usize> {
    let mut windows = held.windows(END_OF_EVENT.len());
    let end = windows.rposition(|window| window == END_OF_EVENT);
    let end = end.map(|start| start + END_OF_EVENT.len());
    end.or_else(|| (held.len() > MAX_HELD_BYTES).then_some(held.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_events_go() {
        for (held, n) in [
            ("", None),
            ("data: 1\n", None),
            ("data: 1\n\n", Some(9)),
            ("data: 1\n\ndata", Some(9)),
            ("a\n\nb\n\nc", Some(6)),
        ] {
            assert_eq!(whole(held.as_bytes()), n, "{held:?}");
        }
        assert_eq!(
            whole(&vec![b'x'; MAX_HELD_BYTES + 1]),
            Some(MAX_HELD_BYTES + 1)
        );
    }
}
