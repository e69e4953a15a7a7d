//! `attune train`: the worker's training without a server, killed, resumed and continued.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::attune;

use crate::{loss, rows, settings, tiny_base};

/// A base model, rows and settings in a folder, and the output folders beside them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tiny_base());
        fs::write(files.path("rows.jsonl"), rows(40)).unwrap();
        let mut settings = settings();
        settings["seed"] = 5.into();
        fs::write(files.path("job.json"), settings.to_string()).unwrap();
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = attune();
        command.arg("train").arg("--model").arg(self.0.path());
        command.arg("--train").arg(self.path("rows.jsonl"));
        command.arg("--config").arg(self.path("job.json"));
        command.arg("--out").arg(self.path(out)).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn train(&self, out: &str, more: &[&str]) {
        let output = self.command(out, more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    fn losses(&self, out: &str) -> Vec<(u64, f64)> {
        let steps: Vec<Value> = lines(&self.path(out));
        steps.iter().map(loss).collect()
    }

    fn adapter(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("adapter_model.safetensors")).unwrap()
    }
}

/// The whole lines of `metrics.jsonl` so far.
fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_killed_run_that_is_resumed_ends_as_if_nothing_had_happened() {
    let files = Files::new();
    files.train("unkilled", &[]);

    let mut killed = files.command("killed", &[]).spawn().unwrap();
    let started = Instant::now();
    while lines(&files.path("killed")).len() < 20 {
        assert!(started.elapsed() < Duration::from_mins(2), "no step 20");
        sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!files.path("killed").join("summary.json").exists());
    files.train("killed", &["--resume"]);

    assert_eq!(files.losses("unkilled").len(), 400);
    assert_eq!(files.losses("killed"), files.losses("unkilled"));
    assert_eq!(files.adapter("killed"), files.adapter("unkilled"));
}

#[test]
fn a_run_that_starts_from_an_adapter_begins_where_that_one_was() {
    let files = Files::new();
    files.train("first", &[]);
    let adapter = files.path("first");
    files.train("second", &["--init-adapter", adapter.to_str().unwrap()]);

    let (first, second) = (files.losses("first"), files.losses("second"));
    assert!(
        second[0].1 < 0.8 * first[0].1,
        "the first loss, {}, is nearer to that of an untrained adapter, {}",
        second[0].1,
        first[0].1
    );
}
