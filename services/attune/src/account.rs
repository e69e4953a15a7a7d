//! The unprivileged account that Postgres runs as when we are root (it refuses to be root).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Tried in this order. An account without a name does not do: Postgres looks its name up.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// A named account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The account to drop to: `None` when we are not root and stay who we are.
///
/// # Errors
///
/// When we are root and the machine has none of the usual accounts.
pub fn unprivileged() -> Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let account = CANDIDATES.iter().find_map(|name| find(&passwd, name));
    account.map(Some).context("neither `postgres` nor `nobody` exists on this machine; Postgres does not run as root: create one of them (`useradd --system postgres`)")
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (uid != 0).then(|| Account {
        name: name.to_owned(),
        uid,
        gid,
    })
}

impl Account {
    /// The first folder on the way to `path` that this account cannot pass through.
    ///
    /// # Errors
    ///
    /// When a folder on the way cannot be looked at.
    pub fn blocked_by(&self, path: &Path) -> Result<Option<PathBuf>> {
        let path = fs::canonicalize(path).with_context(|| format!("{}", path.display()))?;
        let mut ancestors: Vec<_> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        for folder in ancestors {
            let metadata = fs::metadata(folder).with_context(|| format!("{}", folder.display()))?;
            let bit = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & bit == 0 {
                return Ok(Some(folder.to_owned()));
            }
        }
        Ok(None)
    }

    /// # Errors
    ///
    /// When the account cannot reach `path`: names the folder in the way, and the way out.
    pub fn check_reaches(&self, path: &Path) -> Result<()> {
        let Some(folder) = self.blocked_by(path)? else {
            return Ok(());
        };
        bail!(
            "Postgres runs as `{}` (not as root), but `{}` is closed to others, on the way to `{}`; choose another place with --data-dir, for example /var/lib/attune, or open the way with `chmod o+x {}`",
            self.name,
            folder.display(),
            path.parent().unwrap_or(path).display(),
            folder.display(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/bin/false\npostgres2:x:7:7::/:/bin/sh\n";

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let nobody = Account {
            name: "nobody".to_owned(),
            uid: 65534,
            gid: 65533,
        };
        assert_eq!(find(PASSWD, "nobody"), Some(nobody));
        assert_eq!(find(PASSWD, "postgres"), None);
        assert_eq!(
            find(PASSWD, "root"),
            None,
            "root is no way to stop being root"
        );
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        let inside = closed.join("inside");
        fs::create_dir_all(&inside).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account {
            name: "stranger".to_owned(),
            uid: 54_321,
            gid: 54_321,
        };
        let message = stranger.check_reaches(&inside).unwrap_err().to_string();
        assert!(
            message.contains("/closed` is closed to others"),
            "{message}"
        );
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        stranger.check_reaches(&inside).unwrap();
    }
}
