//! One answer, token by token.

use lm::Session;
use lm::sample::{Sampled, Sampler, SamplingConfig};
use text::DecodeStream;

use super::stop::StopFilter;
use super::{Event, GenerationJob, Interruption, Output};
use crate::response::{FinishReason, Logprob, TokenLogprob};

/// Prompt tokens between two looks at whether anyone still waits.
const PREFILL_TOKENS: usize = 512;
/// What OpenAI sends for a probability too small to tell, and JSON has no infinity.
const LEAST_LOGPROB: f64 = -9999.0;
/// What a decoder puts where bytes are no character.
const REPLACEMENT: char = '\u{FFFD}';

/// Generates the choice and reports it.
pub(super) fn generate(
    job: &GenerationJob,
    index: usize,
    output: &Output,
) -> Result<(), Interruption> {
    let mut choice = Choice::new(job, index, output);
    let mut logits = choice.prefill()?;
    let reason = loop {
        output.check()?;
        let sampled = choice.sampler.sample(logits);
        choice.n_tokens += 1;
        if job.base.text.eos_ids().contains(&sampled.id) {
            break FinishReason::Stop;
        }
        choice.take(&sampled)?;
        if choice.filter.stopped() {
            break FinishReason::Stop;
        }
        if choice.n_tokens >= job.max_tokens {
            break FinishReason::Length;
        }
        logits = choice.session.feed(&[sampled.id], job.adapter.as_deref())?;
    };
    choice.finish(reason)
}

struct Choice<'a> {
    job: &'a GenerationJob,
    index: usize,
    output: &'a Output,
    session: Session,
    sampler: Sampler,
    decoder: DecodeStream,
    filter: StopFilter,
    /// Log probabilities of tokens whose text is held back, with where that text begins and ends.
    held_logprobs: Vec<(std::ops::Range<usize>, TokenLogprob)>,
    decoded_bytes: usize,
    n_tokens: usize,
}

impl<'a> Choice<'a> {
    fn new(job: &'a GenerationJob, index: usize, output: &'a Output) -> Self {
        // Choices must differ from each other, and be the same when the request is repeated.
        let seed = job.sampling.seed.wrapping_add(index as u64);
        Self {
            job,
            index,
            output,
            session: job.base.model.session(),
            sampler: Sampler::new(SamplingConfig {
                seed,
                ..job.sampling.clone()
            }),
            decoder: job.base.text.tokenizer().decode_stream(),
            filter: StopFilter::new(&job.stop),
            held_logprobs: Vec::new(),
            decoded_bytes: 0,
            n_tokens: 0,
        }
    }

    /// Runs the prompt through the model; gives the scores of the first token.
    fn prefill(&mut self) -> Result<Vec<f32>, Interruption> {
        let mut logits = Vec::new();
        for ids in self.job.prompt.chunks(PREFILL_TOKENS) {
            self.output.check()?;
            logits = self.session.feed(ids, self.job.adapter.as_deref())?;
        }
        Ok(logits)
    }

    /// Takes a token in and reports the text that is certain now.
    fn take(&mut self, sampled: &Sampled) -> Result<(), Interruption> {
        let text = self.decoder.step(sampled.id)?.unwrap_or_default();
        let start = self.decoded_bytes;
        self.decoded_bytes += text.len();
        if let Some(logprob) = self.token_logprob(sampled)? {
            self.held_logprobs
                .push((start..self.decoded_bytes, logprob));
        }
        let text = self.filter.push(&text);
        let (released, stopped) = (self.filter.released_bytes(), self.filter.stopped());
        // A token that a stop sequence cuts in two still said something; one inside it did not.
        let is_out =
            |at: &std::ops::Range<usize>| at.end <= released || (stopped && at.start < released);
        let n_out = self
            .held_logprobs
            .iter()
            .take_while(|(at, _)| is_out(at))
            .count();
        let logprobs = self
            .held_logprobs
            .drain(..n_out)
            .map(|(_, logprob)| logprob)
            .collect();
        self.report(text, logprobs);
        Ok(())
    }

    /// Reports what was still held back, and the end.
    fn finish(mut self, reason: FinishReason) -> Result<(), Interruption> {
        if !self.filter.stopped() {
            let rest = self.decoder.finish()?.unwrap_or_default();
            // A character that the end cut off in the middle is not worth showing.
            let mut text = self.filter.push(rest.trim_end_matches(REPLACEMENT));
            text.push_str(&self.filter.finish());
            let logprobs = self
                .held_logprobs
                .drain(..)
                .map(|(_, logprob)| logprob)
                .collect();
            send_text(self.output, self.index, text, logprobs);
        }
        let (index, n_tokens) = (self.index, self.n_tokens);
        metrics::counter!("attune_inference_completion_tokens_total").increment(n_tokens as u64);
        self.output.send(Event::Finished {
            index,
            reason,
            n_tokens,
        });
        Ok(())
    }

    fn report(&self, text: String, logprobs: Vec<TokenLogprob>) {
        send_text(self.output, self.index, text, logprobs);
    }

    fn token_logprob(&self, sampled: &Sampled) -> Result<Option<TokenLogprob>, Interruption> {
        let Some(logprobs) = &sampled.logprobs else {
            return Ok(None);
        };
        let chosen = self.logprob(sampled.id, logprobs.chosen)?;
        let top = logprobs
            .top
            .iter()
            .map(|(id, logprob)| self.logprob(*id, *logprob));
        Ok(Some(TokenLogprob {
            chosen,
            top_logprobs: top.collect::<Result<_, _>>()?,
        }))
    }

    fn logprob(&self, id: u32, logprob: f64) -> Result<Logprob, Interruption> {
        let token = self
            .job
            .base
            .text
            .tokenizer()
            .decode_with_special_tokens(&[id])?;
        let bytes = (!token.contains(REPLACEMENT)).then(|| token.as_bytes().to_vec());
        Ok(Logprob {
            token,
            logprob: logprob.max(LEAST_LOGPROB),
            bytes,
        })
    }
}

fn send_text(output: &Output, index: usize, text: String, logprobs: Vec<TokenLogprob>) {
    if !text.is_empty() || !logprobs.is_empty() {
        output.send(Event::Text {
            index,
            text,
            logprobs,
        });
    }
}
