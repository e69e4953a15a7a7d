//! A run that was stopped and resumed is the run that was not.

use std::fs;

use serde_json::json;
use tempfile::TempDir;
use training::train::Start;
use training::{Next, TrainError, checkpoint};

use crate::support::{Recorder, bits, config, rows, run, tiny_model};

fn settings() -> serde_json::Value {
    json!({
        "n_epochs": 4, "batch_size": 2, "grad_accum": 2, "learning_rate": 1e-2, "seed": 3,
        "checkpoint_every": 100, "lora": {"rank": 2, "dropout": 0.1},
    })
}

#[test]
fn stopping_after_any_step_and_resuming_changes_no_bit() {
    let (model, rows, config) = (tiny_model(), rows(12), config(&settings()));
    let whole = TempDir::new().unwrap();
    let (trained, seen) = run(
        &model,
        &config,
        &rows,
        Start::Fresh,
        whole.path(),
        Recorder::default(),
    );
    let trained = trained.unwrap();
    assert_eq!(seen.steps.len(), 12);

    for stop in 1..12 {
        let dir = TempDir::new().unwrap();
        let stopping = Recorder {
            stop_after: Some((stop, Next::SaveAndStop)),
            ..Recorder::default()
        };
        let (first, before) = run(&model, &config, &rows, Start::Fresh, dir.path(), stopping);
        assert!(!first.unwrap().finished);

        let (found, passed_over) = checkpoint::latest(dir.path(), &model);
        assert!(passed_over.is_empty());
        let start = Start::Resume(Box::new(found.unwrap()));
        let (second, after) = run(
            &model,
            &config,
            &rows,
            start,
            dir.path(),
            Recorder::default(),
        );
        let second = second.unwrap();

        assert_eq!([before.losses(), after.losses()].concat(), seen.losses());
        assert_eq!(bits(&second), bits(&trained), "stopped after step {stop}");
        assert_eq!(second.train_tokens, trained.train_tokens);
    }
}

#[test]
fn a_torn_checkpoint_is_passed_over_for_the_one_before() {
    let (model, rows) = (tiny_model(), rows(8));
    let mut settings = settings();
    settings["checkpoint_every"] = json!(1);
    let config = config(&settings);
    for torn in [
        "optimizer.safetensors",
        "adapter_model.safetensors",
        "state.json",
    ] {
        let dir = TempDir::new().unwrap();
        run(
            &model,
            &config,
            &rows,
            Start::Fresh,
            dir.path(),
            Recorder::default(),
        )
        .0
        .unwrap();
        let newest = dir.path().join("step-00000008").join(torn);
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();

        let (found, passed_over) = checkpoint::latest(dir.path(), &model);
        assert_eq!(found.unwrap().step, 7, "{torn}");
        assert_eq!(passed_over.len(), 1, "{torn}");
    }
}

#[test]
fn a_folder_that_was_being_written_is_no_checkpoint() {
    let (model, rows, config) = (tiny_model(), rows(4), config(&settings()));
    let dir = TempDir::new().unwrap();
    run(
        &model,
        &config,
        &rows,
        Start::Fresh,
        dir.path(),
        Recorder::default(),
    )
    .0
    .unwrap();
    fs::rename(
        dir.path().join("step-00000004"),
        dir.path().join(".writing-step-00000004"),
    )
    .unwrap();
    assert!(checkpoint::latest(dir.path(), &model).0.is_none());
}

#[test]
fn another_runs_checkpoint_is_refused_by_what_differs() {
    let (model, rows) = (tiny_model(), rows(8));
    let dir = TempDir::new().unwrap();
    run(
        &model,
        &config(&settings()),
        &rows,
        Start::Fresh,
        dir.path(),
        Recorder::default(),
    )
    .0
    .unwrap();
    let found = checkpoint::latest(dir.path(), &model).0.unwrap();
    let mut other = settings();
    other["learning_rate"] = json!(1e-3);
    let start = Start::Resume(Box::new(found));
    let (refused, _) = run(
        &model,
        &config(&other),
        &rows,
        start,
        dir.path(),
        Recorder::default(),
    );
    let Err(TrainError::Resume(error)) = refused else {
        panic!("it was not refused")
    };
    assert!(error.to_string().contains("its config differs"), "{error}");
}

#[test]
fn a_checkpoint_of_other_kernels_says_so_and_is_resumed() {
    let (model, rows, config) = (tiny_model(), rows(8), config(&settings()));
    let dir = TempDir::new().unwrap();
    let stopping = Recorder {
        stop_after: Some((3, Next::SaveAndStop)),
        ..Recorder::default()
    };
    run(&model, &config, &rows, Start::Fresh, dir.path(), stopping)
        .0
        .unwrap();
    let mut found = checkpoint::latest(dir.path(), &model).0.unwrap();
    assert_eq!(found.other_kernels(&model), None);

    found.identity.kernels = "another-machine's".to_owned();
    let said = found.other_kernels(&model).unwrap();
    assert!(
        said.contains("another-machine's") && said.contains(&model.kernels()),
        "{said}"
    );
    let start = Start::Resume(Box::new(found));
    let (resumed, after) = run(
        &model,
        &config,
        &rows,
        start,
        dir.path(),
        Recorder::default(),
    );
    assert!(resumed.unwrap().finished);
    assert_eq!(after.steps[0].step, 4);
}
