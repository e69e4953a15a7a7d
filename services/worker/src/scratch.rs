//! Folders that attempts work in. One that a killed worker left behind is removed by the next to start.

use std::fs;
use std::io;
use std::path::Path;

use domain::JobId;
use tempfile::TempDir;

/// A new folder below `parent` for one attempt. It goes when it is dropped; its name says whose it is.
pub(crate) fn create(parent: &Path, job: JobId) -> io::Result<TempDir> {
    fs::create_dir_all(parent)?;
    tempfile::Builder::new()
        .prefix(&format!("{}-{job}-", std::process::id()))
        .tempdir_in(parent)
}

/// Removes the folders below `parent` whose process is gone. What cannot be removed stays, and costs only space.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().split('-').next().map(str::to_owned);
        let is_pid =
            |pid: &String| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(pid) = owner.filter(is_pid)
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_removed() {
        let parent = TempDir::new().unwrap();
        let mine = create(parent.path(), JobId::new()).unwrap();
        // Above the largest process id that Linux gives out.
        let dead = parent.path().join("4194305-ftjob-1-x");
        let foreign = parent.path().join("notes");
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&foreign).unwrap();
        sweep(parent.path());
        assert!(mine.path().exists() && foreign.exists() && !dead.exists());
    }
}
