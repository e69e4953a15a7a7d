//! The binary: `attune up` from its first line of output to its end, clean or not.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// A running `attune up` and what it printed.
pub(crate) struct Up {
    process: Child,
    base_url: String,
    api_key: String,
}

impl Up {
    pub(crate) fn start(data_dir: &Path) -> Self {
        let mut process = attune(data_dir)
            .args(["up", "--port", "0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut value = |name: &str| {
            let line = lines
                .next()
                .expect("it ended before it was up; see its log above")
                .unwrap();
            let value = line.strip_prefix(&format!("export {name}="));
            value
                .unwrap_or_else(|| panic!("{name} expected: {line}"))
                .to_owned()
        };
        let base_url = value("OPENAI_BASE_URL");
        let api_key = value("OPENAI_API_KEY");
        Self {
            process,
            base_url,
            api_key,
        }
    }

    /// The status code of a GET, once the server listens.
    pub(crate) fn get(&self, path: &str, key: &str) -> u16 {
        let host = self
            .base_url
            .trim_start_matches("http://")
            .trim_end_matches("/v1");
        let mut stream = eventually(|| TcpStream::connect(host).ok());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Of the default project.
    pub(crate) fn api_key(&self) -> &str {
        &self.api_key
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        self.process.wait().unwrap()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The binary, not knowing of models that happen to be in this machine's cache.
pub(crate) fn attune(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attune"));
    command.env("XDG_CACHE_HOME", data_dir.join("no-cache"));
    command
}

fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited a minute in vain");
        sleep(Duration::from_millis(50));
    }
}

/// Processes that mention the data directory in their arguments or environment.
fn processes_of(data_dir: &Path) -> usize {
    let needle = data_dir.to_str().unwrap();
    let mentions = |path: &Path, file: &str| {
        fs::read(path.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(needle))
    };
    let processes = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    processes
        .filter(|path| mentions(path, "cmdline") || mentions(path, "environ"))
        .count()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let folder = folder();
    let up = Up::start(folder.path());
    assert_eq!(up.get("/healthz", ""), 200);
    assert_eq!(up.get("/v1/models", &up.api_key), 200);
    assert_eq!(up.get("/v1/models", "sk-guessed"), 401);

    let env = folder.path().join("attune.env");
    assert_eq!(
        fs::metadata(&env).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&env).unwrap();
    assert!(
        text.contains(&up.base_url) && text.contains(&up.api_key),
        "{text}"
    );
    assert!(
        text.contains("export OPENAI_ADMIN_KEY=sk-attune-admin-"),
        "{text}"
    );

    let status = up.terminate();
    assert!(status.success(), "{status}");
    assert_eq!(processes_of(folder.path()), 0);
}

#[test]
fn a_second_one_on_the_same_directory_is_refused_by_name() {
    let folder = folder();
    let up = Up::start(folder.path());
    let second = attune(folder.path())
        .args(["up", "--port", "0", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(
        message.contains(&format!("in use by process {}", up.process.id())),
        "{message}"
    );
    assert!(up.terminate().success());
}

#[test]
fn what_was_killed_starts_again_with_everything() {
    let folder = folder();
    let first = Up::start(folder.path());
    assert_eq!(first.get("/v1/models", &first.api_key), 200);
    let key = first.api_key.clone();
    first.kill();

    let second = Up::start(folder.path());
    assert_eq!(second.api_key, key);
    assert_eq!(second.get("/v1/models", &key), 200);
    assert!(second.terminate().success());
    eventually(|| (processes_of(folder.path()) == 0).then_some(()));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = attune(folder.path())
        .args(["up", "--port", &port, "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{message}"
    );
}
