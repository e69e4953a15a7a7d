//! A streamed answer: one `data:` per chunk, `[DONE]` at the end.
//!
//! The status is sent before generation can fail. A failure is then a `data:` with a top-level `error`, which makes
//! clients raise, and no `[DONE]`, so that nobody takes the answer for a whole one.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;

use crate::chat::broke_off;
use crate::engine::{Event, Generation};
use crate::error::ChatError;
use crate::request::StreamOptions;
use crate::request_id::RequestId;
use crate::response::{Chunks, Envelope, Logprobs, Usage};

/// A long prompt is silent for a while; proxies close what is silent for longer than this many times over.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the chunks look like.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What they have in common.
    pub(crate) envelope: Envelope,
    /// What the client asked for.
    pub(crate) options: StreamOptions,
    /// For the usage.
    pub(crate) prompt_tokens: usize,
    /// How many choices there will be.
    pub(crate) n: usize,
    /// Whether chunks carry log probabilities.
    pub(crate) with_logprobs: bool,
}

/// Streams the generation. When the client goes away the stream is dropped, and the generation with it.
pub(crate) fn respond(generation: Generation, shape: Shape, request_id: RequestId) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events(generation, shape, request_id))
        .keep_alive(keep_alive)
        .into_response()
}

fn events(
    mut generation: Generation,
    shape: Shape,
    request_id: RequestId,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let Shape {
        envelope,
        options,
        prompt_tokens,
        n,
        with_logprobs,
    } = shape;
    let chunks = Chunks::new(envelope, options.include_usage);
    stream! {
        let mut progress = Progress::default();
        while let Some(event) = generation.next().await {
            for event in progress.chunks_of(event, &chunks, with_logprobs, &request_id) {
                yield Ok(event);
            }
        }
        if progress.failed {
            return;
        }
        if progress.n_finished < n {
            yield Ok(failure(&broke_off(), &request_id));
            return;
        }
        if let Some(usage) = chunks.usage(Usage::new(prompt_tokens, progress.completion_tokens)) {
            yield Ok(data(&usage));
        }
        yield Ok(SseEvent::default().data("[DONE]"));
    }
}

/// How far the stream is.
#[derive(Debug, Default)]
struct Progress {
    n_begun: usize,
    n_finished: usize,
    completion_tokens: usize,
    failed: bool,
}

impl Progress {
    /// What an event puts on the wire. The first of a choice also says who speaks.
    fn chunks_of(
        &mut self,
        event: Event,
        chunks: &Chunks,
        with_logprobs: bool,
        request_id: &RequestId,
    ) -> Vec<SseEvent> {
        let mut out = Vec::with_capacity(2);
        if let Event::Text { index, .. } | Event::Finished { index, .. } = &event
            && *index >= self.n_begun
        {
            self.n_begun = index + 1;
            out.push(data(&chunks.role(*index)));
        }
        match event {
            Event::Text {
                index,
                text,
                logprobs,
            } => {
                let logprobs = Logprobs::of(with_logprobs, logprobs);
                out.push(data(&chunks.text(index, text, logprobs)));
            }
            Event::Finished {
                index,
                reason,
                n_tokens,
            } => {
                self.n_finished += 1;
                self.completion_tokens += n_tokens;
                out.push(data(&chunks.finish(index, reason)));
            }
            Event::Failed(error) => {
                self.failed = true;
                out.push(failure(&error, request_id));
            }
        }
        out
    }
}

fn failure(error: &ChatError, request_id: &RequestId) -> SseEvent {
    error.log(request_id.as_str());
    data(&error.body(request_id.as_str()))
}

fn data(object: &impl Serialize) -> SseEvent {
    SseEvent::default()
        .json_data(object)
        .expect("our objects have string keys only")
}
