//! `attune train` and `attune export`: the worker's training without a server, killed, resumed, continued, and taken
//! elsewhere.

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
        self.command_on(self.0.path(), out, more)
    }

    fn command_on(&self, model: &Path, out: &str, more: &[&str]) -> Command {
        let mut command = attune();
        command.arg("train").arg("--model").arg(model);
        command.arg("--train").arg(self.path("rows.jsonl"));
        command.arg("--config").arg(self.path("job.json"));
        command.arg("--out").arg(self.path(out)).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn train(&self, out: &str, more: &[&str]) {
        succeed(&mut self.command(out, more));
    }

    /// `attune export` of the base with the adapter of the run in `run`.
    fn export(&self, run: &str, out: &str, more: &[&str]) -> Command {
        let mut command = attune();
        command.arg("export").arg("--model").arg(self.0.path());
        command.arg("--adapter").arg(self.path(run));
        command.arg("--out").arg(self.path(out)).args(more);
        command
    }

    fn losses(&self, out: &str) -> Vec<(u64, f64)> {
        let steps: Vec<Value> = lines(&self.path(out));
        steps.iter().map(loss).collect()
    }

    fn adapter(&self, out: &str) -> Vec<u8> {
        fs::read(self.path(out).join("adapter_model.safetensors")).unwrap()
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
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
fn settings_for_another_device_are_refused() {
    let files = Files::new();
    fs::write(files.path("job.json"), r#"{"device": "cuda"}"#).unwrap();
    let output = files.command("refused", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("`device` is `cuda`"), "{said}");
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

#[test]
fn a_run_on_an_exported_model_begins_where_the_adapter_was() {
    let files = Files::new();
    files.train("first", &[]);
    let first = files.losses("first");
    for (format, out) in [("--merged", "merged"), ("--gguf", "merged.gguf")] {
        succeed(&mut files.export("first", out, &[format]));
        let run = format!("on-{out}");
        succeed(&mut files.command_on(&files.path(out), &run, &[]));
        let again = files.losses(&run);
        assert!(
            again[0].1 < 0.8 * first[0].1,
            "{format}: the first loss, {}, is nearer to that of the untrained model, {}",
            again[0].1,
            first[0].1
        );
    }
}

#[test]
fn an_estimate_is_printed_trains_nothing_and_is_beside_the_outcome_in_the_report() {
    let files = Files::new();
    let mut command = files.command("out", &["--estimate"]);
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let estimate: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(estimate["steps"], 400);
    assert!(!files.path("out").join("metrics.jsonl").exists());

    let output = files.command("out", &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("estimated: 400 steps, "), "{said}");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(files.path("out").join(name)).unwrap()).unwrap()
    };
    let (report, summary) = (read("report.json"), read("summary.json"));
    assert_eq!(report["estimate"]["train_tokens"], summary["train_tokens"]);
    assert_eq!(report["estimate"]["flops"], estimate["flops"]);
    assert_eq!(report["config"], summary["config"]);
    assert_eq!(report["curve"].as_array().unwrap().len(), 400);
    assert!(report["outcome"]["peak_memory_bytes"].as_u64().unwrap() > 0);
    assert!(!report["code"]["commit"].as_str().unwrap().is_empty());
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_the_numbers() {
    let files = Files::new();
    let output = files.command("out", &["--max-memory-mb", "1"]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in [
        "would need at least",
        "may take 1 MB",
        "keep the base in 4 bits",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(!files.path("out").join("metrics.jsonl").exists());
}

#[test]
fn an_export_that_cannot_be_leaves_nothing_and_says_why() {
    let files = Files::new();
    for (more, why) in [
        (&["--merged"][..], "adapter_config.json"),
        (&["--merged", "--dtype", "q8_0"], "goes with --gguf"),
    ] {
        let output = files.export("nothing", "out", more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(!files.path("out").exists());
    }
}
