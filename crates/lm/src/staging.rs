//! Output that is whole or absent: written beside its place, then renamed to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// Makes the folder `out`, which must not exist yet or be empty, of what `write` leaves in the folder
/// that it is given.
///
/// # Errors
/// When `out` holds something, or whatever `write` raises; nothing is left then.
pub(crate) fn folder(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    refuse_occupied(out)?;
    let staging = beside(out)?;
    fs::create_dir(&staging).map_err(LoadError::io(&staging))?;
    let written = write(&staging)
        // Renaming replaces an empty folder.
        .and_then(|()| fs::rename(&staging, out).map_err(LoadError::io(out)));
    if written.is_err() {
        // The first error is the one to report; what is left behind is named like a leftover.
        drop(fs::remove_dir_all(&staging));
    }
    written
}

/// Makes the file `out`, which must not exist, of the file that `write` makes at the path that it is
/// given.
///
/// # Errors
/// When `out` exists, or whatever `write` raises; nothing is left then.
pub(crate) fn file(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    if out.symlink_metadata().is_ok() {
        return Err(LoadError::Exists(out.to_owned()));
    }
    let staging = beside(out)?;
    let written =
        write(&staging).and_then(|()| fs::rename(&staging, out).map_err(LoadError::io(out)));
    if written.is_err() {
        drop(fs::remove_file(&staging));
    }
    written
}

fn refuse_occupied(out: &Path) -> Result<(), LoadError> {
    match fs::read_dir(out).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(LoadError::Occupied(out.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(LoadError::io(out)(error)),
    }
}

/// A path on the same file system as `out`, so that it can be renamed to it; its folder is made.
fn beside(out: &Path) -> Result<PathBuf, LoadError> {
    let absolute = std::path::absolute(out).map_err(LoadError::io(out))?;
    let parent = absolute.parent().unwrap_or(&absolute);
    fs::create_dir_all(parent).map_err(LoadError::io(parent))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    Ok(parent.join(format!(".{name}.partial-{}", std::process::id())))
}
