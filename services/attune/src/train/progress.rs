//! What a person sees of `attune train`: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use training::{CheckpointReport, Evaluation, Next, Observer, StepReport};

use super::output::Output;

/// Shows and stores a run's reports.
pub(super) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    started: Instant,
    tokens: u64,
    /// The first report that could not be stored. It ends the run.
    error: Option<anyhow::Error>,
}

impl Progress {
    pub(super) fn new(output: Output, first_step: u64, total_steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:30} {pos}/{len} steps  {msg}  {elapsed} of about {duration}",
            )
            .expect("the template is well-formed");
            ProgressBar::new(total_steps)
                .with_style(style)
                .with_position(first_step)
        });
        Self {
            output,
            bar,
            started: Instant::now(),
            tokens: 0,
            error: None,
        }
    }

    /// Ends the display. Gives back the output, and the tokens trained on with the time that took.
    ///
    /// # Errors
    /// The report that could not be stored, if there was one.
    pub(super) fn finish(self) -> anyhow::Result<(Output, (u64, Duration))> {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        match self.error {
            Some(error) => Err(error),
            None => Ok((self.output, (self.tokens, self.started.elapsed()))),
        }
    }

    fn show(&self, line: impl Into<String>) {
        let line = line.into();
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn tokens_per_sec(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "token counts stay below 2^52")]
        let tokens = self.tokens as f64;
        tokens / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Observer for Progress {
    fn on_start(&mut self, valid: Option<Evaluation>) {
        if let Some(valid) = valid {
            self.show(format!("before: validation loss {:.4}", valid.loss));
        }
        self.started = Instant::now();
    }

    fn on_step(&mut self, report: &StepReport) -> Next {
        self.tokens += report.n_tokens;
        let rate = self.tokens_per_sec();
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(format!("loss {:.4}  {rate:.0} tokens/s", report.train_loss));
        } else {
            self.show(format!(
                "step {}/{}  loss {:.4}  {rate:.0} tokens/s",
                report.step, report.total_steps, report.train_loss
            ));
        }
        if let Some(valid) = report.valid {
            self.show(format!(
                "step {}: validation loss {:.4}",
                report.step, valid.loss
            ));
        }
        match self.output.step(report) {
            Ok(()) => Next::Continue,
            Err(error) => {
                self.error.get_or_insert(error);
                Next::Abandon
            }
        }
    }

    fn on_checkpoint(&mut self, _checkpoint: &CheckpointReport<'_>) -> Next {
        Next::Continue
    }
}
