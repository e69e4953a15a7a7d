//! Keeps a child process running until it is told to stop.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::child;

/// How long a child may take to finish what it is doing.
const GRACE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LAST_DELAY: Duration = Duration::from_secs(30);
/// A child that ran this long was well: its next failure is a new one.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// A child process that is started again whenever it ends.
pub struct Supervised {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts the child; later starts go through the same function.
    ///
    /// # Errors
    ///
    /// When the first start fails. Later failures are logged and tried again, ever more slowly.
    pub async fn start<F, R>(name: &'static str, stop_signal: Signal, mut start: F) -> Result<Self>
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = Result<Child>> + Send + 'static,
    {
        let child = start().await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep_running(name, stop_signal, child, start, stopped));
        Ok(Self { stop, task })
    }

    /// Sends the child its stop signal and waits for its end, up to 30 seconds; then kills it.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            error!(%error, "A supervising task ended badly");
        }
    }
}

async fn keep_running<F, R>(
    name: &'static str,
    stop_signal: Signal,
    mut child: Child,
    mut start: F,
    mut stopped: oneshot::Receiver<()>,
) where
    F: FnMut() -> R + Send,
    R: Future<Output = Result<Child>> + Send,
{
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        tokio::select! {
            ended = child.wait() => match ended {
                Ok(status) => error!("`{name}` {}", child::describe(status)),
                Err(error) => error!(%error, "Lost sight of `{name}`"),
            },
            _ = &mut stopped => return end(name, child, stop_signal).await,
        }
        if started.elapsed() > WELL_AFTER {
            delay = FIRST_DELAY;
        }
        let restarted = async {
            loop {
                sleep(delay).await;
                delay = (delay * 2).min(LAST_DELAY);
                match start().await {
                    Ok(child) => return child,
                    Err(error) => error!("`{name}` does not start: {error:#}"),
                }
            }
        };
        tokio::select! {
            new = restarted => child = new,
            // A child that was being started is killed when it is dropped.
            _ = &mut stopped => return,
        }
        info!("`{name}` runs again");
    }
}

async fn end(name: &str, mut child: Child, stop_signal: Signal) {
    match child::stop(&mut child, stop_signal, GRACE).await {
        Ok(status) if status.success() => info!("`{name}` has stopped"),
        Ok(status) => warn!(
            "`{name}` {} when it was told to stop",
            child::describe(status)
        ),
        Err(error) => warn!(%error, "Lost sight of `{name}` when it was told to stop"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_stops_when_told() {
        let n_starts = Arc::new(AtomicUsize::new(0));
        let counter = n_starts.clone();
        let start = move || {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            let script = if n < 2 {
                "kill -9 $$"
            } else {
                "exec sleep 600"
            };
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(script);
            async move { Ok(child::spawn(command, Signal::KILL).await?) }
        };
        let supervised = Supervised::start("test", Signal::TERM, start)
            .await
            .unwrap();
        while n_starts.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        supervised.stop().await;
        assert_eq!(n_starts.load(Ordering::SeqCst), 3);
    }
}
