//! The data directory: everything of one installation, and the lock that gives it one owner.
//!
//! ```text
//! lock            held by the process that runs storage, with its process id inside
//! secrets.json    made once, 0600
//! attune.env      what a client needs, written at every start, 0600
//! running.json    where the storage of the running process listens, 0600
//! postgres/       the database cluster, owned by the account that runs it
//! run/            its socket
//! s3/             the buckets
//! cache/          models that services have fetched
//! logs/
//! ```

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// A data directory that exists.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

/// The right to run storage in a data directory; given up when dropped, or by the kernel when the
/// process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Where the storage of a running process listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub socket_dir: PathBuf,
    pub s3_endpoint: String,
}

impl DataDir {
    /// The directory given, or the user's default one, made if it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or when there is no home directory to derive it from.
    pub fn open(given: Option<&Path>) -> Result<Self> {
        let root = match given {
            Some(path) => path.to_owned(),
            None => {
                default_root(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?
            }
        };
        let context = || format!("cannot use the data directory `{}`", root.display());
        let root = std::path::absolute(&root).with_context(context)?;
        create(&root).with_context(context)?;
        Ok(Self {
            root: fs::canonicalize(&root).with_context(context)?,
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder of ours in it, closed to others, made if it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn private_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create `{}`", path.display()))?;
        Ok(path)
    }

    /// Writes a file that only we may read, at once or not at all.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_private(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let write = || -> Result<()> {
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            file.write_all(content.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(path)
    }

    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// When another process has it: named with its process id.
    pub fn lock(&self) -> Result<Lock> {
        self.try_lock()?.with_context(|| {
            let holder = fs::read_to_string(self.path("lock")).unwrap_or_default();
            format!(
                "the data directory `{}` is in use by process {}; stop it, or choose another with --data-dir",
                self.root.display(),
                holder.trim(),
            )
        })
    }

    /// Takes the lock unless another process has it.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be used.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let path = self.path("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => bail!("cannot lock `{}`: {error}", path.display()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Lock { _file: file }))
    }

    /// Says where the running storage listens; `None` while none runs or it has not got that far.
    ///
    /// # Errors
    ///
    /// When the file is there but unreadable, for example because another user runs the storage.
    pub fn running(&self) -> Result<Option<Running>> {
        let path = self.path("running.json");
        let mut text = String::new();
        match File::open(&path) {
            Ok(mut file) => file.read_to_string(&mut text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(Some(
            serde_json::from_str(&text).with_context(|| format!("in `{}`", path.display()))?,
        ))
    }

    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_running(&self, running: &Running) -> Result<()> {
        self.write_private("running.json", &serde_json::to_string(running)?)?;
        Ok(())
    }

    /// Forgets what a storage that ended, well or badly, said about itself.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be removed.
    pub fn clear_running(&self) -> Result<()> {
        match fs::remove_file(self.path("running.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn default_root(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/attune"));
    }
    if let Some(data_home) = variable("XDG_DATA_HOME") {
        return Ok(Path::new(&data_home).join("attune"));
    }
    let home = variable("HOME").context("HOME is not set: name a directory with --data-dir")?;
    Ok(Path::new(&home).join(".local/share/attune"))
}

/// As root, others may pass through the directory (not list it): Postgres runs as one of them. What
/// is secret in it is closed by itself.
fn create(root: &Path) -> std::io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let mode = if is_root { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(if is_root { 0o755 } else { 0o700 })
        .create(root.parent().unwrap_or(root))?;
    match fs::DirBuilder::new().mode(mode).create(root) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::metadata(root)?;
    if !metadata.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory));
    }
    // A temporary directory is 0700 at first.
    if is_root && metadata.uid() == 0 && metadata.mode() & 0o011 != 0o011 {
        fs::set_permissions(root, Permissions::from_mode(metadata.mode() | 0o011))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        let lock = dir.lock().unwrap();
        let message = dir.lock().unwrap_err().to_string();
        assert!(
            message.contains(&folder.path().display().to_string()),
            "{message}"
        );
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        drop(lock);
        dir.lock().unwrap();
    }

    #[test]
    fn a_private_file_is_closed_to_others_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(&folder.path().join("new"))).unwrap();
        dir.write_private("attune.env", "a long first content")
            .unwrap();
        let path = dir.write_private("attune.env", "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(Some(file.path())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
