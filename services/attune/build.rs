//! Tells the program which commit it was built from.
//!
//! Only this crate asks, so a commit makes cargo build this one again and no other.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ATTUNE_COMMIT");
    // Where there is no checkout, as in a container's build, whoever builds may say.
    let given = std::env::var("ATTUNE_COMMIT").ok();
    let given = given.filter(|commit| !commit.is_empty());
    // Grows with every commit and with every checkout of another.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let commit = given.or_else(|| git(&["rev-parse", "HEAD"]));
    let commit = commit.as_deref().unwrap_or("unknown");
    println!("cargo::rustc-env=ATTUNE_COMMIT={commit}");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !said.trim().is_empty()).then(|| said.trim().to_owned())
}
