//! The training thread's side of the conversation: it tells, and asks only whether to go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use tokio::sync::mpsc;
use training::{CheckpointReport, Estimate, Evaluation, Next, Observer, StepReport};

use crate::heart::Signal;

/// What the training thread tells.
#[derive(Debug)]
pub(crate) enum Message {
    /// What the run will take.
    Estimated(Box<Estimate>),
    /// The validation file before the first step.
    Started(Option<Evaluation>),
    /// A step is done.
    Step(Box<StepReport>),
    /// A checkpoint is on disk, and stays there until `done` is answered or dropped.
    Checkpoint {
        step: u64,
        dir: PathBuf,
        report: Box<StepReport>,
        done: std_mpsc::Sender<()>,
    },
}

/// Passes a run's reports on to the task that stores them.
pub(crate) struct Reporter {
    pub(crate) messages: mpsc::UnboundedSender<Message>,
    pub(crate) signal: Arc<Signal>,
}

impl Reporter {
    /// A receiver that is gone means that the attempt is over, whatever the reason.
    pub(crate) fn tell(&self, message: Message) {
        if self.messages.send(message).is_err() {
            self.signal.lose();
        }
    }
}

impl Observer for Reporter {
    fn on_start(&mut self, valid: Option<Evaluation>) {
        self.tell(Message::Started(valid));
    }

    fn on_micro_batch(&mut self) -> Next {
        self.signal.next()
    }

    fn on_step(&mut self, report: &StepReport) -> Next {
        self.tell(Message::Step(Box::new(report.clone())));
        self.signal.next()
    }

    fn on_checkpoint(&mut self, checkpoint: &CheckpointReport<'_>) -> Next {
        let (done, answered) = std_mpsc::channel();
        self.tell(Message::Checkpoint {
            step: checkpoint.step,
            dir: checkpoint.dir.to_owned(),
            report: Box::new(checkpoint.report.clone()),
            done,
        });
        // Waiting bounds how far training runs ahead of what is safe, and keeps the folder until it is uploaded.
        let _ = answered.recv();
        self.signal.next()
    }
}
