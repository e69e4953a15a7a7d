//! A whole installation as a process: what the end-to-end tests start, talk to and kill.

#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything in these tests may take on a slow, busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// A data directory, and the `attune up` that runs on it while it runs.
pub struct Installation {
    data: TempDir,
    port: u16,
    lease_secs: u64,
    process: Option<Child>,
    key: String,
    http: Client,
}

impl Installation {
    /// Starts `attune up` in a new data directory and waits until it is ready.
    pub async fn start() -> Self {
        // Below /var/tmp because Postgres runs as a user of its own when the tests run as root.
        let data = tempfile::Builder::new()
            .prefix("attune-e2e.")
            .tempdir_in("/var/tmp")
            .unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(data.path(), open).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut installation = Self {
            data,
            port,
            lease_secs: 3,
            process: None,
            key: String::new(),
            http: Client::new(),
        };
        installation.up().await;
        installation
    }

    /// Starts `attune up` on the data directory as it is.
    pub async fn up(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let process = Command::new(attune())
            .arg("up")
            .arg("--data-dir")
            .arg(self.data.path())
            .args(["--port", &self.port.to_string()])
            .env("ATTUNE_LEASE_SECS", self.lease_secs.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        self.wait_for("the server", async |this| {
            this.http
                .get(&url)
                .send()
                .await
                .ok()
                .filter(|answer| answer.status().is_success())
        })
        .await;
        let env = fs::read_to_string(self.data.path().join("attune.env")).unwrap();
        let line = env
            .lines()
            .find_map(|line| line.strip_prefix("export OPENAI_API_KEY="))
            .unwrap();
        line.trim_matches(['\'', '"']).clone_into(&mut self.key);
    }

    /// Ends `attune up` with `signal` and waits for it.
    pub fn end(&mut self, signal: Signal) {
        let mut process = self.process.take().expect("it runs");
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap();
    }

    /// Kills the child process that runs `attune SERVICE`, without warning.
    pub fn kill_service(&self, service: &str) {
        self.kill_child(service, |arguments| {
            arguments.get(1).is_some_and(|argument| argument == service)
        });
    }

    /// Kills the private Postgres, without warning.
    pub fn kill_postgres(&self) {
        self.kill_child("postgres", |arguments| arguments[0].ends_with("/postgres"));
    }

    fn kill_child(&self, name: &str, is_it: impl Fn(&[String]) -> bool) {
        let parent = self.process.as_ref().expect("it runs").id();
        let pid = children_of(parent)
            .into_iter()
            .find(|pid| is_it(&arguments_of(*pid)))
            .unwrap_or_else(|| panic!("no {name} runs"));
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    /// Imports a base model beside the running server.
    pub fn import(&self, base: &Path, name: &str) {
        let output = Command::new(attune())
            .args(["models", "import"])
            .arg(base)
            .args(["--name", name, "--data-dir"])
            .arg(self.data.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// One request of the API.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let url = format!("http://127.0.0.1:{}/v1{path}", self.port);
        let request = self.http.request(method, url).bearer_auth(&self.key);
        match body {
            Some(body) => request.json(&body).send().await.unwrap(),
            None => request.send().await.unwrap(),
        }
    }

    /// One request that must succeed; its JSON answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Uploads a dataset and returns its id.
    pub async fn upload(&self, rows: &str) -> String {
        let boundary = "a-boundary-that-no-row-holds";
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"rows.jsonl\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{rows}\r\n--{boundary}--\r\n"
        );
        let answer = self
            .http
            .post(format!("http://127.0.0.1:{}/v1/files", self.port))
            .bearer_auth(&self.key)
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .body(body)
            .send()
            .await
            .unwrap();
        let value: Value = answer.json().await.unwrap();
        value["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .to_owned()
    }

    /// The job's events, oldest first.
    pub async fn events(&self, job: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/fine_tuning/jobs/{job}/events?limit=100{after}");
            let page = self.call(Method::GET, &path, None).await;
            let data = page["data"].as_array().unwrap();
            events.extend(data.iter().cloned());
            if page["has_more"] == false {
                events.reverse();
                return events;
            }
            after = format!("&after={}", data[data.len() - 1]["id"].as_str().unwrap());
        }
    }

    /// Waits until the job has ended, and returns it.
    pub async fn finished(&self, job: &str) -> Value {
        let path = format!("/fine_tuning/jobs/{job}");
        self.wait_for("the job", async |this| {
            let job = this.call(Method::GET, &path, None).await;
            let status = job["status"].as_str().unwrap();
            ["succeeded", "failed", "cancelled"]
                .contains(&status)
                .then_some(job)
        })
        .await
    }

    /// Asks again and again until there is an answer.
    pub async fn wait_for<T>(&self, what: &str, mut ask: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask(self).await {
                return answer;
            }
            let log = || fs::read_to_string(self.log_path()).unwrap_or_default();
            assert!(
                started.elapsed() < PATIENCE,
                "still waiting for {what}:\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("up.log")
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.end(Signal::TERM);
        }
    }
}

/// The binary that was built together with these tests.
fn attune() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("attune");
    assert!(
        path.is_file(),
        "{} is missing; build the whole workspace first",
        path.display()
    );
    path
}

fn children_of(parent: u32) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name in parentheses may hold spaces; the parent is the second field after it.
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            fields.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .collect()
}

fn arguments_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}
