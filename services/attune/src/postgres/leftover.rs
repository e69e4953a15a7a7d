//! What a Postgres leaves behind when it, or we, are killed: processes for a moment, its pid file
//! for ever.
//!
//! Postgres refuses to start over a pid file whose process id is in use, even if by now it is
//! another program's. Nobody else may run the cluster while we hold the data directory's lock, so we
//! need only make sure that no process of the old one is left, and can then remove the file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

/// A fast shutdown writes a checkpoint, which takes its time on a slow disk.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until no process works in the cluster any more, and removes its pid file.
///
/// # Errors
///
/// When a process does not go: it is named.
pub(super) async fn wait_and_clear(data: &Path) -> Result<()> {
    let pid_file = data.join("postmaster.pid");
    if !pid_file.exists() {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut asked = false;
    loop {
        let processes = processes_in(data);
        if processes.is_empty() {
            break;
        }
        // Usually its own parent-death signal has told it already.
        if !asked {
            tracing::info!("Waiting for the last run's Postgres to stop");
            for pid in &processes {
                stop(*pid);
            }
            asked = true;
        }
        ensure!(
            Instant::now() < deadline,
            "another Postgres (process {}) still runs in `{}`",
            processes[0],
            data.display(),
        );
        sleep(Duration::from_millis(20)).await;
    }
    match fs::remove_file(&pid_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", pid_file.display()))
        }
        _ => Ok(()),
    }
}

/// Every process of a cluster, server and backends, has its folder as working directory.
fn processes_in(data: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn stop(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::INT);
    }
}
