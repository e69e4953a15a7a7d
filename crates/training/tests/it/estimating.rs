//! What is said of a run before it starts, and of one that is over.

use domain::config::Keep;
use lm::{Adapter, profile};
use serde_json::json;
use tempfile::TempDir;
use training::memory::Room;
use training::report::{Code, Draft, Hashes, Point};
use training::{Estimate, Report, Run, TrainError, Trained, estimate};

use crate::support::{
    Recorder, bits, config, example, rows, rows_of, run_of, tiny_model, train_on, watch,
};

/// A gigabyte on top of one.
const ROOM: Room = Room {
    held_bytes: Some(1_000_000_000),
    free_bytes: Some(1_000_000_000),
    max_bytes: None,
};

#[test]
fn steps_and_tokens_are_those_of_the_run() {
    let (model, rows, valid) = (tiny_model(), rows(9), rows(4));
    for asked in [
        json!({"n_epochs": 2, "batch_size": 2, "grad_accum": 2, "checkpoint_every": 2}),
        json!({"n_epochs": 3, "batch_size": 4, "max_steps": 5, "recompute": true}),
        json!({"n_epochs": 1, "tuning": "full", "batch_size": 1}),
    ] {
        let config = config(&asked);
        let dir = TempDir::new().unwrap();
        let run = Run {
            valid: Some(&valid),
            ..run_of(&model, &config, &rows, dir.path())
        };
        let estimate = estimate(&run, ROOM).unwrap();
        let (trained, _) = watch(run, Recorder::default());
        let trained = trained.unwrap();
        assert_eq!(
            (estimate.steps, estimate.train_tokens, estimate.loss_tokens),
            (trained.steps, trained.train_tokens, trained.loss_tokens),
        );
        assert_eq!(estimate.flops, trained.flops);
        assert!(estimate.seconds > 0.0 && estimate.measuring_flops.total() > 0.0);
    }
}

#[test]
fn an_estimate_leaves_the_run_as_it_was_to_the_bit() {
    let (model, rows) = (tiny_model(), rows(24));
    for asked in [
        json!({"n_epochs": 2, "batch_size": 2, "lora": {"rank": 4, "dropout": 0.1}}),
        json!({"n_epochs": 2, "batch_size": 2, "lora": {"rank": 4, "use_dora": true}}),
        json!({"n_epochs": 2, "batch_size": 2, "tuning": "full"}),
    ] {
        let config = config(&asked);
        let (alone, seen_alone) = train_on(&model, &config, &rows);
        let dir = TempDir::new().unwrap();
        let run = run_of(&model, &config, &rows, dir.path());
        estimate(&run, ROOM).unwrap();
        let nothing = profile::take().parts().all(|(_, time)| time.is_zero());
        assert!(nothing, "the trial counts as the run's time");
        let (trained, seen) = watch(run, Recorder::default());
        assert_eq!(seen.losses(), seen_alone.losses());
        assert_eq!(bits(&trained.unwrap()), bits(&alone));
    }
}

#[test]
fn a_resumed_run_is_estimated_from_where_it_goes_on() {
    let (model, rows) = (tiny_model(), rows(12));
    let config = config(&json!({"n_epochs": 1, "batch_size": 2, "checkpoint_every": 2}));
    let dir = TempDir::new().unwrap();
    let recorder = Recorder {
        stop_after: Some((2, training::Next::SaveAndStop)),
        ..Recorder::default()
    };
    let (stopped, _) = watch(run_of(&model, &config, &rows, dir.path()), recorder);
    let stopped = stopped.unwrap();
    let (checkpoint, _) = training::checkpoint::latest(dir.path(), &model);
    let run = Run {
        resume: checkpoint.map(Box::new),
        ..run_of(&model, &config, &rows, dir.path())
    };
    let estimate = estimate(&run, ROOM).unwrap();
    let (ended, _) = watch(run, Recorder::default());
    let ended = ended.unwrap();
    assert_eq!((estimate.steps, ended.first_step), (4, 2));
    assert_eq!(
        estimate.train_tokens,
        ended.train_tokens - stopped.train_tokens
    );
    assert_eq!(estimate.flops, ended.flops);
}

#[test]
fn a_run_that_does_not_fit_is_refused_with_the_numbers_before_it_computes() {
    let (model, rows) = (tiny_model(), rows(8));
    let config = config(&json!({"batch_size": 4}));
    let dir = TempDir::new().unwrap();
    let run = run_of(&model, &config, &rows, dir.path());
    let needed = estimate(&run, ROOM).unwrap().memory.to_come();
    let room = |free| Room {
        free_bytes: Some(free),
        max_bytes: None,
        ..ROOM
    };
    estimate(&run, room(needed)).unwrap();
    let _ = profile::take();
    let error = estimate(&run, room(needed - 1)).unwrap_err();
    let nothing = profile::take().parts().all(|(_, time)| time.is_zero());
    assert!(nothing, "something was computed before the refusal");
    let TrainError::DoesNotFit(misfit) = &error else {
        panic!("another error: {error}");
    };
    assert_eq!(misfit.memory.to_come(), needed);
    assert_eq!(misfit.limit_bytes, 1_000_000_000 + needed - 1);
    let said = error.to_string();
    assert!(said.contains("lower `batch_size` (4)"), "{said}");
}

#[test]
fn longer_rows_are_expected_to_need_more() {
    let model = tiny_model();
    let config = config(&json!({"batch_size": 1}));
    let dir = TempDir::new().unwrap();
    let of = |length: u32| {
        let ids: Vec<u32> = (0..length).map(|id| 10 + id % 40).collect();
        let rows = rows_of(&[example(&ids, 5)]);
        estimate(&run_of(&model, &config, &rows, dir.path()), ROOM).unwrap()
    };
    let (short, long) = (of(16), of(64));
    assert_eq!(
        long.memory.activation_bytes,
        4 * short.memory.activation_bytes
    );
    assert!(long.flops.attention > 10.0 * short.flops.attention);
    assert!((long.flops.matmul - 4.0 * short.flops.matmul).abs() < 1.0);
}

fn report_of(run: Run<'_>) -> (Report, Trained) {
    let code = Code {
        version: "1.2.3".to_owned(),
        commit: "abc".to_owned(),
    };
    let estimated: Estimate = estimate(&run, ROOM).unwrap();
    let draft = Draft::new(&run, code, estimated);
    let (trained, seen) = watch(run, Recorder::default());
    let trained = trained.unwrap();
    let curve = seen.steps.iter().map(Point::from).collect();
    (draft.finish(&trained, curve, Some(1)), trained)
}

#[test]
fn a_report_survives_json_and_says_what_was_seen() {
    let (model, rows, valid) = (tiny_model(), rows(10), rows(3));
    let mut config = config(&json!({"n_epochs": 1, "batch_size": 2, "checkpoint_every": 2}));
    config.care.keep = Keep::Best;
    let dir = TempDir::new().unwrap();
    let (report, trained) = report_of(Run {
        valid: Some(&valid),
        ..run_of(&model, &config, &rows, dir.path())
    });
    let text = report.to_json().unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back.to_json().unwrap(), text);
    assert_eq!(report.config, config);
    assert_eq!(report.curve.len(), 5);
    let measured = report.curve.iter().filter(|p| p.valid_loss.is_some());
    assert_eq!(measured.count(), 3, "steps 2, 4 and 5");
    assert_eq!((report.steps, report.chosen_step), (5, trained.chosen_step));
    let outcome = &report.outcome;
    assert!((outcome.flops - report.estimate.flops.total()).abs() < 1.0);
    assert!(outcome.flops_per_second > 0.0 && outcome.step_seconds <= outcome.seconds);
    assert!(outcome.seconds_by_part["matmul"] > 0.0);
    // The tests' rows all carry one hash, so every row measured on is one learned from.
    assert!(
        report
            .warnings
            .iter()
            .any(|said| said.contains("also in the training file"))
    );
}

#[test]
fn a_hash_changes_with_what_it_is_of_and_with_nothing_else() {
    let (model, rows) = (tiny_model(), rows(4));
    let config = config(&json!({"max_steps": 1, "batch_size": 2}));
    let dir = TempDir::new().unwrap();
    let run = || run_of(&model, &config, &rows, dir.path());
    let hashes = |run: Run<'_>| report_of(run).0.hashes;
    let before = hashes(run());
    assert_eq!(before, hashes(run()));

    let other_config = domain::TrainingConfig {
        learning_rate: config.learning_rate * 2.0,
        ..config.clone()
    };
    let mut other_rows = crate::support::rows(4);
    other_rows.report.fingerprint = "others".to_owned();
    let lora = training::settings::lora_config(config.lora().unwrap());
    let adapter = Adapter::init(&lora, &model, 77);
    let changed = [
        hashes(Run {
            config: &other_config,
            ..run()
        }),
        hashes(Run {
            train: &other_rows,
            ..run()
        }),
        hashes(Run {
            base_fingerprint: "another",
            ..run()
        }),
        hashes(Run {
            valid: Some(&other_rows),
            ..run()
        }),
        hashes(Run {
            initial: Some(adapter),
            ..run()
        }),
    ];
    for (index, after) in changed.iter().enumerate() {
        let differs = [
            after.config != before.config,
            after.data != before.data,
            after.base != before.base,
            after.valid != before.valid,
            after.initial != before.initial,
        ];
        let expected: Vec<bool> = (0..differs.len()).map(|of| of == index).collect();
        assert_eq!(differs[..], expected[..], "the {index}th");
    }
    let tuned = hashes(Run {
        tuned_weights: Some("weights"),
        ..run()
    });
    let expected = Hashes {
        initial: Some("weights".to_owned()),
        ..before
    };
    assert_eq!(tuned, expected);
}
