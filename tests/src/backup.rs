//! Backup and restore as `docs/operations.md` describes them, by the commands that stand there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Installation;

impl Installation {
    /// Writes rows, objects and secrets to `dir`, while everything runs.
    pub fn back_up(&self, dir: &Path) {
        run(postgres("pg_dump")
            .args(["--format=custom", "--file"])
            .arg(dir.join("rows"))
            .arg(self.database("attune")));
        // Objects after rows: what a row names was stored before it.
        let data = self.data.path();
        run(Command::new("cp")
            .arg("-a")
            .args([data.join("s3"), data.join("secrets.json")])
            .arg(dir));
    }

    /// A new installation, each service a process, from what [`Self::back_up`] wrote.
    pub async fn restored(dir: &Path) -> Self {
        let mut installation = Self::new();
        run(Command::new("cp")
            .arg("-a")
            .args([dir.join("s3"), dir.join("secrets.json")])
            .arg(installation.data.path()));
        // Makes the roles, and a database without rows.
        installation.run_storage().await;
        run(postgres("psql")
            .arg(installation.database("postgres"))
            .args([
                "--command",
                "DROP DATABASE attune WITH (FORCE)",
                "--command",
                "CREATE DATABASE attune",
            ]));
        run(postgres("pg_restore")
            .args(["--exit-on-error", "--dbname"])
            .arg(installation.database("attune"))
            .arg(dir.join("rows")));
        installation.run_services().await;
        installation
    }

    pub(crate) fn database(&self, name: &str) -> String {
        let socket = self.data.path().join("run");
        format!("host={} user=attune_admin dbname={name}", socket.display())
    }
}

/// A program of the Postgres that is installed.
pub(crate) fn postgres(program: &str) -> Command {
    let set = std::env::var_os("ATTUNE_PG_BIN").map(|dir| PathBuf::from(dir).join(program));
    let installed = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let paths =
            versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(program)));
        paths.filter(|path| path.exists()).max()
    };
    Command::new(set.or_else(installed).unwrap_or_else(|| program.into()))
}

/// What the command, which must succeed, has to say.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
