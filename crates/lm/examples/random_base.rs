//! Writes a base model with random weights, to measure on: `random_base llama-1b|llama-8b|tiny DIRECTORY`.

use std::path::Path;
use std::process::ExitCode;

use lm::testing::random_base::{shape, write_random_base};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, dir] = arguments.as_slice() else {
        eprintln!("usage: random_base llama-1b|llama-8b|tiny DIRECTORY");
        return ExitCode::from(2);
    };
    let Some(config) = shape(name) else {
        eprintln!("there is no shape `{name}` (llama-1b, llama-8b, tiny)");
        return ExitCode::from(2);
    };
    if let Err(error) = write_random_base(Path::new(dir), &config, 1) {
        eprintln!("cannot write {dir}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
