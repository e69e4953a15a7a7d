//! A secret that the command line names by its file, so that it is in no shell's history and no list of processes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The word that the file of `option` holds, which `what` describes and `is_one` knows. Nothing of it is in an error.
pub(super) fn read(
    option: &str,
    path: &Path,
    what: &str,
    is_one: impl Fn(&str) -> bool,
) -> Result<String> {
    let name = path.display();
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {option} `{name}`"))?;
    let word = text.trim();
    ensure!(
        !word.is_empty() && is_one(word),
        "{option} `{name}` must hold {what} and nothing else"
    );
    Ok(word.to_owned())
}
