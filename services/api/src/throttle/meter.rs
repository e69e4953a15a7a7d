//! How many tokens a chat takes: guessed from the request, read from the answer as it passes.
//!
//! Whole answers say it in `usage.total_tokens`, and so do streams that were asked to (`stream_options.include_usage`).
//! A stream that does not say is counted by its events, each of which is about one token, beside what the prompt was
//! guessed to be. An answer that breaks off or cannot be read keeps the guess.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde_json::Value;

use super::TokenHold;

/// Bytes of a prompt that make about one token.
const BYTES_PER_TOKEN: usize = 4;
/// What an answer is guessed to take that has no bound.
const ANSWER_TOKENS: u64 = 256;
/// The most of a whole answer, or of one line of a stream, that is kept to be read. What is longer keeps the guess.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// What a request is expected to take: its prompt, and each of its answers as long as it may get.
pub fn estimate(request: &Value) -> u64 {
    let longest = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|name| request[*name].as_u64())
        .unwrap_or(ANSWER_TOKENS);
    let n = request["n"].as_u64().unwrap_or(1).max(1);
    prompt(request).saturating_add(longest.saturating_mul(n))
}

/// What its prompt is expected to take.
pub(crate) fn prompt(request: &Value) -> u64 {
    let parts = ["messages", "tools"]
        .iter()
        .filter_map(|name| request.get(*name));
    let n_bytes: usize = parts.map(|part| part.to_string().len()).sum();
    (n_bytes / BYTES_PER_TOKEN) as u64
}

/// The answer's bytes, untouched. When they end, or nobody wants more of them, the hold is settled.
pub(crate) fn metered<E>(
    answer: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    hold: TokenHold,
    prompt_tokens: u64,
    is_stream: bool,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static
where
    E: Send + 'static,
{
    let mut settling = Settling {
        meter: Meter::new(is_stream, prompt_tokens),
        hold: Some(hold),
    };
    let mut answer = Box::pin(answer);
    async_stream::stream! {
        while let Some(chunk) = answer.next().await {
            match &chunk {
                Ok(bytes) => settling.meter.see(bytes),
                Err(_) => settling.meter.broken = true,
            }
            yield chunk;
        }
        settling.meter.end();
    }
}

/// Settles when it is dropped, which is what happens to a stream whose client left.
struct Settling {
    meter: Meter,
    hold: Option<TokenHold>,
}

impl Drop for Settling {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let used = self.meter.used().unwrap_or(hold.expected());
            hold.settle(used);
        }
    }
}

/// What is known of an answer so far.
#[derive(Debug)]
struct Meter {
    is_stream: bool,
    prompt_tokens: u64,
    /// A whole answer, or the line of a stream that has not ended.
    kept: Vec<u8>,
    too_long: bool,
    broken: bool,
    n_events: u64,
    total_tokens: Option<u64>,
}

impl Meter {
    fn new(is_stream: bool, prompt_tokens: u64) -> Self {
        Self {
            is_stream,
            prompt_tokens,
            kept: Vec::new(),
            too_long: false,
            broken: false,
            n_events: 0,
            total_tokens: None,
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        if !self.is_stream {
            return self.keep(bytes);
        }
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            self.read_line();
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.len() + bytes.len() > MAX_KEPT_BYTES {
            self.too_long = true;
            self.kept = Vec::new();
        }
        if !self.too_long {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn read_line(&mut self) {
        let line = std::mem::take(&mut self.kept);
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        // `[DONE]` is no JSON.
        let Ok(event) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        if event["choices"]
            .as_array()
            .is_some_and(|choices| !choices.is_empty())
        {
            self.n_events += 1;
        }
        self.read_usage(&event);
    }

    fn read_usage(&mut self, answer: &Value) {
        self.total_tokens = answer["usage"]["total_tokens"]
            .as_u64()
            .or(self.total_tokens);
    }

    fn end(&mut self) {
        if !self.is_stream
            && !self.too_long
            && let Ok(answer) = serde_json::from_slice::<Value>(&std::mem::take(&mut self.kept))
        {
            self.read_usage(&answer);
        }
    }

    /// None if nothing can be told.
    fn used(&self) -> Option<u64> {
        let counted = self.is_stream && !self.too_long && !self.broken && self.n_events > 0;
        self.total_tokens
            .or_else(|| counted.then(|| self.prompt_tokens + self.n_events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn used(is_stream: bool, parts: &[&str]) -> Option<u64> {
        let mut meter = Meter::new(is_stream, 100);
        for part in parts {
            meter.see(part.as_bytes());
        }
        meter.end();
        meter.used()
    }

    #[test]
    fn a_request_is_guessed_by_its_prompt_and_by_how_long_it_may_get() {
        let request = |fields: Value| {
            let mut request = json!({"messages": [{"role": "user", "content": "x".repeat(400)}]});
            request
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            estimate(&request) - prompt(&request)
        };
        assert_eq!(request(json!({})), ANSWER_TOKENS);
        assert_eq!(request(json!({"max_tokens": 5})), 5);
        assert_eq!(
            request(json!({"max_completion_tokens": 7, "max_tokens": 5, "n": 3})),
            21
        );
        // Sizes that add up to more than there are numbers.
        let absurd = json!({"messages": ["hi"], "max_tokens": u64::MAX, "n": u64::MAX});
        assert_eq!(estimate(&absurd), u64::MAX);
    }

    #[test]
    fn a_whole_answer_says_what_it_took() {
        let answer = [r#"{"choices": [], "usage": {"tot"#, r#"al_tokens": 17}}"#];
        assert_eq!(used(false, &answer), Some(17));
        assert_eq!(used(false, &answer[..1]), None);
        assert_eq!(used(false, &["no JSON"]), None);
    }

    #[test]
    fn a_stream_says_it_at_its_end_or_is_counted() {
        let event = "data: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n";
        let last = "data: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\r\n\r\ndata: [DONE]\n\n";
        assert_eq!(used(true, &[event, event, last]), Some(9));
        assert_eq!(used(true, &[event, event, "data: [DONE]\n\n"]), Some(102));
        // Wherever it is cut.
        let whole = [event, last].concat();
        for cut in 0..whole.len() {
            assert_eq!(
                used(true, &[&whole[..cut], &whole[cut..]]),
                Some(9),
                "{cut}"
            );
        }
        assert_eq!(used(true, &[": keep-alive\n\n"]), None);
    }
}
