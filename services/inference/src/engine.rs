//! Who generates when: a bounded number of requests at once, a bounded number that wait, the rest turned away.
//!
//! Generation holds a thread for seconds, so it runs on blocking threads and speaks to the request through a channel.
//! A request that goes away drops its end, and generation stops before the next token.

mod choice;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use lm::Adapter;
use lm::sample::SamplingConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::cache::LoadedBase;
use crate::config::Limits;
use crate::error::ChatError;
use crate::response::{FinishReason, TokenLogprob};

/// Everything one request wants generated.
pub(crate) struct GenerationJob {
    /// The model.
    pub(crate) base: Arc<LoadedBase>,
    /// What it was tuned with.
    pub(crate) adapter: Option<Arc<Adapter>>,
    /// The rendered messages. Shorter than the context.
    pub(crate) prompt: Vec<u32>,
    /// How to choose tokens. The seed is the first choice's; the others' follow from it.
    pub(crate) sampling: SamplingConfig,
    /// How many answers.
    pub(crate) n: usize,
    /// Each answer ends before any of these.
    pub(crate) stop: Vec<String>,
    /// The most tokens of one answer, at least 1; prompt and answer fit the context.
    pub(crate) max_tokens: usize,
}

/// What generation reports. The choices come one after the other.
#[derive(Debug)]
pub(crate) enum Event {
    /// More of a choice. The text may be empty when only log probabilities are new.
    Text {
        /// The choice.
        index: usize,
        /// Final: no stop sequence can begin in it.
        text: String,
        /// Of the tokens the text is made of; empty unless asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// A choice is complete.
    Finished {
        /// The choice.
        index: usize,
        /// Why.
        reason: FinishReason,
        /// Tokens that were generated for it.
        n_tokens: usize,
    },
    /// Nothing more will come.
    Failed(ChatError),
}

/// Generation under way. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Generation {
    // Unbounded, so that a client who does not read cannot hold up the others. The context bounds what piles up.
    events: mpsc::UnboundedReceiver<Event>,
}

impl Generation {
    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Hands out turns.
#[derive(Clone)]
pub(crate) struct Engine {
    /// Requests that run or wait.
    places: Arc<Semaphore>,
    /// Requests that run.
    turns: Arc<Semaphore>,
    stopping: Arc<AtomicBool>,
}

/// The right to wait for a turn.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Engine {
    /// An engine that runs and queues this many requests.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.concurrency + limits.queue_depth)),
            turns: Arc::new(Semaphore::new(limits.concurrency)),
            stopping: Arc::default(),
        }
    }

    /// A place in the queue, at once or not at all. Taken before anything is loaded, so that a flood is turned away
    /// before it costs memory.
    ///
    /// # Errors
    ///
    /// [`ChatError::Overloaded`]: the queue is full.
    pub(crate) fn admit(&self) -> Result<Place, ChatError> {
        let permit = self.places.clone().try_acquire_owned();
        permit
            .map(|permit| Place { _permit: permit })
            .map_err(|_| ChatError::Overloaded)
    }

    /// Waits for a turn and begins.
    ///
    /// # Errors
    ///
    /// [`ChatError::Unavailable`]: the service is stopping.
    pub(crate) async fn start(
        &self,
        place: Place,
        job: GenerationJob,
    ) -> Result<Generation, ChatError> {
        let waiting = Gauge::raise("attune_inference_waiting");
        let turn = self
            .turns
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| stopping())?;
        drop(waiting);
        let (sender, events) = mpsc::unbounded_channel();
        let output = Output {
            events: sender,
            stopping: self.stopping.clone(),
        };
        let running = Gauge::raise("attune_inference_running");
        tokio::task::spawn_blocking(move || {
            run(&job, &output);
            drop((running, turn, place));
        });
        Ok(Generation { events })
    }

    /// Ends what runs before its next token, and lets nothing begin.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.turns.close();
    }
}

/// The generating thread's end of the channel.
struct Output {
    events: mpsc::UnboundedSender<Event>,
    stopping: Arc<AtomicBool>,
}

impl Output {
    fn send(&self, event: Event) {
        // A request that is gone is noticed by `check`.
        let _ = self.events.send(event);
    }

    /// Whether to go on.
    fn check(&self) -> Result<(), Interruption> {
        if self.events.is_closed() {
            return Err(Interruption::Cancelled);
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Interruption::Failed(stopping()));
        }
        Ok(())
    }
}

/// Why generation ends before the model does.
#[derive(Debug)]
enum Interruption {
    /// Nobody listens any more.
    Cancelled,
    /// It cannot go on.
    Failed(ChatError),
}

impl<E: Into<anyhow::Error>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Failed(ChatError::Internal(error.into()))
    }
}

fn run(job: &GenerationJob, output: &Output) {
    for index in 0..job.n {
        match choice::generate(job, index, output) {
            Ok(()) => {}
            Err(Interruption::Cancelled) => {
                metrics::counter!("attune_inference_cancelled_total").increment(1);
                return;
            }
            Err(Interruption::Failed(error)) => return output.send(Event::Failed(error)),
        }
    }
}

fn stopping() -> ChatError {
    ChatError::Unavailable(anyhow!("the service is stopping"))
}

/// A gauge that is up by one until this is dropped, however that comes about.
struct Gauge(&'static str);

impl Gauge {
    fn raise(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_turns_the_next_one_away_until_a_place_is_free() {
        let engine = Engine::new(&Limits {
            concurrency: 1,
            queue_depth: 1,
            ..Limits::default()
        });
        let running = engine.admit().unwrap();
        let _waiting = engine.admit().unwrap();
        assert!(matches!(engine.admit(), Err(ChatError::Overloaded)));
        drop(running);
        assert!(engine.admit().is_ok());
    }
}
