//! The private Postgres: one cluster in the data directory, reachable only through a socket that no
//! other account can open.

mod binaries;
mod leftover;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::account::{self, Account};
use crate::child;
use crate::data_dir::DataDir;
use binaries::Binaries;

/// The database of the installation.
const DATABASE: &str = "attune";
/// The cluster's superuser. Services have logins of their own.
const SUPERUSER: &str = "attune_admin";
/// A socket's path must fit into 108 bytes, with the name that Postgres gives it and a final zero.
const MAX_SOCKET_DIR_BYTES: usize = 107 - "/.s.PGSQL.5432".len();
/// Recovery after a crash replays the log before the server takes connections.
const START_TIMEOUT: Duration = Duration::from_mins(5);
/// How often we look whether it is ready.
const POLL: Duration = Duration::from_millis(20);
/// Logs are kept up to this size, and as much again in a second file.
const MAX_LOG_BYTES: u64 = 10 << 20;

/// What stops Postgres at once but in order: clients are disconnected, data is written.
pub const STOP_SIGNAL: Signal = Signal::INT;

/// A cluster that exists, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    binaries: Binaries,
    /// Whom Postgres runs as, if not as us.
    account: Option<Account>,
    data: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
}

impl Cluster {
    /// Finds the server's programs and makes the cluster where there is none. The caller holds the
    /// data directory's lock.
    ///
    /// # Errors
    ///
    /// When Postgres is not installed, the account that it runs as cannot reach the directory, or
    /// `initdb` fails.
    pub fn open(dir: &DataDir) -> Result<Self> {
        let account = account::unprivileged()?;
        let data = dir.path("postgres");
        let version = fs::read_to_string(data.join("PG_VERSION")).ok();
        let version = version.as_deref().map(str::trim);
        let binaries = Binaries::find(dir.root(), account.as_ref(), version)?;
        let logs = dir.private_dir("logs")?;
        if let Some(account) = &account {
            // All that is on the way to the logs is on the way to the cluster.
            account.check_reaches(&logs)?;
        }
        let log = logs.join("postgres.log");
        let socket_dir = socket_dir(dir, account.as_ref())?;
        let cluster = Self {
            binaries,
            account,
            data,
            socket_dir,
            log,
        };
        if version.is_none() {
            cluster
                .initialize()
                .context("cannot create the database cluster")?;
        }
        Ok(cluster)
    }

    /// The folder of the server's socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Starts the server and waits until it takes connections. What an earlier one left behind when
    /// it was killed is waited for and cleared away.
    ///
    /// # Errors
    ///
    /// When it does not come up: with the end of its log.
    pub async fn start(&self) -> Result<Child> {
        leftover::wait_and_clear(&self.data).await?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data);
        for setting in [
            // No network at all: the socket's folder decides who may connect.
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", quoted(&self.socket_dir)),
            "unix_socket_permissions=0700".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "log_line_prefix=%m [%p] ".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let log = self.open_log()?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut server = child::spawn(command, STOP_SIGNAL)
            .await
            .context("cannot start Postgres")?;
        self.wait_until_ready(&mut server).await?;
        Ok(server)
    }

    async fn wait_until_ready(&self, server: &mut Child) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = server.try_wait()? {
                bail!("Postgres {}; {}", child::describe(status), self.log_tail());
            }
            if self.is_ready(server.id()) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        bail!(
            "Postgres was not ready after {START_TIMEOUT:?}; {}",
            self.log_tail()
        )
    }

    /// The server says so in its pid file, for the tools that start it: line 1 is its process id,
    /// line 8 its state.
    fn is_ready(&self, pid: Option<u32>) -> bool {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        lines.next().and_then(|line| line.parse().ok()) == pid && lines.nth(6) == Some("ready")
    }

    /// Makes the cluster under another name first: after a crash in between there is none.
    fn initialize(&self) -> Result<()> {
        let draft = self.data.with_extension("new");
        if draft.exists() {
            fs::remove_dir_all(&draft)?;
        }
        self.private_dir(&draft)?;
        let mut initdb = self.command("initdb");
        initdb
            .arg("-D")
            .arg(&draft)
            .args(["-U", SUPERUSER, "--encoding=UTF8", "--locale=C"]);
        // Whoever can open the socket is trusted: its folder is closed to all other accounts.
        initdb.args([
            "--auth-local=trust",
            "--auth-host=reject",
            "--no-instructions",
        ]);
        check("initdb", &initdb.output().context("cannot run initdb")?)?;
        self.create_database(&draft)?;
        fs::rename(&draft, &self.data)?;
        tracing::info!("Created a database cluster in `{}`", self.data.display());
        Ok(())
    }

    /// In single-user mode, since a cluster without a server has no client either.
    fn create_database(&self, data: &Path) -> Result<()> {
        let mut single = self.command("postgres");
        single.arg("--single").arg("-D").arg(data).arg("postgres");
        single
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = single.spawn().context("cannot run postgres --single")?;
        let mut stdin = process
            .stdin
            .take()
            .context("postgres --single has no input")?;
        writeln!(stdin, "CREATE DATABASE {DATABASE};")?;
        drop(stdin);
        let output = process.wait_with_output()?;
        check("postgres --single", &output)?;
        // It exits with 0 whatever the statement came to.
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !errors.contains("ERROR:"),
            "CREATE DATABASE failed: {}",
            errors.trim()
        );
        Ok(())
    }

    /// One of the server's programs, as the right account, knowing nothing of our environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.path(program));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    fn private_dir(&self, path: &Path) -> Result<()> {
        private_dir(path, self.account.as_ref())
    }

    fn open_log(&self) -> Result<File> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&self.log, self.log.with_extension("log.1"))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .with_context(|| format!("cannot write `{}`", self.log.display()))
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        format!("the end of `{}`:\n{tail}", self.log.display())
    }

    /// Where the superuser connects: for migrations and for whoever runs the installation.
    pub fn admin_url(&self) -> String {
        self.url(SUPERUSER)
    }

    /// Where this login connects.
    pub fn url(&self, login: &str) -> String {
        url(&self.socket_dir, login)
    }
}

/// Where the superuser of the cluster with this socket connects.
pub fn admin_url(socket_dir: &Path) -> String {
    url(socket_dir, SUPERUSER)
}

fn url(socket_dir: &Path, login: &str) -> String {
    let mut host = String::new();
    for byte in socket_dir.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                host.push(char::from(*byte));
            }
            _ => host.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]),
        }
    }
    format!("postgres:///{DATABASE}?host={host}&user={login}")
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(value)])
}

/// The folder of the socket: in the data directory, or where paths are short when that is too deep.
fn socket_dir(dir: &DataDir, account: Option<&Account>) -> Result<PathBuf> {
    let own = dir.path("run");
    if own.as_os_str().len() <= MAX_SOCKET_DIR_BYTES {
        private_dir(&own, account)?;
        return Ok(own);
    }
    // The folder of the last start, if it is still there and ours, or a new one under a name that
    // nobody could have taken before us.
    let note = dir.path("socket_dir");
    if let Ok(earlier) = fs::read_to_string(&note) {
        let earlier = PathBuf::from(earlier);
        if is_private_dir(&earlier, account) {
            return Ok(earlier);
        }
    }
    let short = tempfile::Builder::new()
        .prefix("attune-")
        .tempdir_in("/tmp")?
        .keep();
    private_dir(&short, account)?;
    let text = short
        .to_str()
        .context("a temporary directory has a plain name")?;
    dir.write_private("socket_dir", text)?;
    Ok(short)
}

fn is_private_dir(path: &Path, account: Option<&Account>) -> bool {
    let owner = account.map_or_else(
        || rustix::process::geteuid().as_raw(),
        |account| account.uid,
    );
    // Not following links: in /tmp anyone may put one.
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == owner && found.mode() & 0o777 == 0o700)
}

/// A folder that only the account which runs Postgres may open.
fn private_dir(path: &Path, account: Option<&Account>) -> Result<()> {
    let make = || -> std::io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        match account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    };
    make().with_context(|| format!("cannot prepare `{}` for Postgres", path.display()))
}

/// As a value in Postgres' own notation: a comma would otherwise begin another folder.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn check(program: &str, output: &Output) -> Result<()> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        child::describe(output.status),
        errors.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_survives_odd_folder_names() {
        assert_eq!(
            admin_url(Path::new("/var/lib/my data&more/run")),
            "postgres:///attune?host=/var/lib/my%20data%26more/run&user=attune_admin"
        );
    }
}
