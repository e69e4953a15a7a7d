//! A device that this build or this machine does not have.
//!
//! By default the build has no CUDA. With the feature `cuda` it has, and must be told by the driver's absence: opening a
//! device that is not there panics inside burn.

use std::process::{Command, Output};

fn attune(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attune"))
        .args(arguments)
        .env("ATTUNE_DEVICE", "cuda:4000")
        .env(
            "DATABASE_URL",
            "postgres://attune_worker@127.0.0.1:1/attune",
        )
        .env("ATTUNE_S3_ENDPOINT", "http://127.0.0.1:1")
        .env("ATTUNE_S3_BUCKET", "attune")
        .env("ATTUNE_S3_ACCESS_KEY_ID", "key")
        .env("ATTUNE_S3_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap()
}

#[test]
fn a_device_that_is_not_there_ends_the_worker_with_a_reason_and_no_panic() {
    let train = ["train", "--model", "m", "--train", "t", "--out", "o"];
    for arguments in [&["worker"][..], &train] {
        let output = attune(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        let reasons: &[&str] = if cfg!(feature = "cuda") {
            &["no CUDA device found", "there is no CUDA device 4000"]
        } else {
            &["this build has no CUDA"]
        };
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
    }
}
