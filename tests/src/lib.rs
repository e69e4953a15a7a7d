//! A whole installation as processes: what the end-to-end tests start, talk to and kill.

#![expect(clippy::unwrap_used, reason = "test support fails by panicking")]

mod api;
mod backup;
mod gate;
mod older;
mod process;

use std::collections::BTreeSet;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use api::Api;
pub use gate::Gate;
pub use process::attune;

/// How long anything in these tests may take on a slow, busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
/// Short, so that a killed worker is missed soon.
const LEASE_SECS: &str = "3";

/// A data directory, and the processes that run on it.
pub struct Installation {
    data: TempDir,
    port: u16,
    api: Api,
    /// `attune up`, or `attune storage` with the services beside it.
    running: Vec<(&'static str, Child)>,
    inference_port: u16,
    s3_port: u16,
    /// What `attune up` and the services are told besides.
    variables: Vec<(&'static str, &'static str)>,
    /// Through which services that run apart reach S3.
    pub s3: Gate,
}

impl Deref for Installation {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Installation {
    fn new() -> Self {
        // Below /var/tmp because Postgres runs as a user of its own when the tests run as root.
        let data = tempfile::Builder::new()
            .prefix("attune-e2e.")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let [port, inference_port, s3_port, gate_port] = free_ports();
        Self {
            data,
            port,
            api: Api::new(port),
            running: Vec::new(),
            inference_port,
            s3_port,
            variables: Vec::new(),
            s3: Gate::new(gate_port, s3_port),
        }
    }

    /// Starts `attune up` in a new data directory and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with more environment variables.
    pub async fn start_with(variables: &[(&'static str, &'static str)]) -> Self {
        let mut installation = Self::new();
        installation.variables = variables.to_vec();
        installation.up().await;
        installation
    }

    /// Starts `attune up` on the data directory as it is.
    pub async fn up(&mut self) {
        let mut command = attune();
        command
            .args(["up", "--port", &self.port.to_string(), "--data-dir"])
            .arg(self.data.path())
            .env("ATTUNE_LEASE_SECS", LEASE_SECS)
            .envs(self.variables.iter().copied());
        let process = process::spawn(command, &self.log_path());
        self.running.push(("up", process));
        self.wait_for("the server", async |this| {
            this.is_ready().await.then_some(())
        })
        .await;
        let key = self.exported("attune.env", "OPENAI_API_KEY");
        self.api.set_key(&key);
    }

    /// Starts each service as a process of its own over `attune storage`, and waits until they are ready.
    pub async fn start_apart() -> Self {
        Self::start_apart_with(&[]).await
    }

    /// As [`Self::start_apart`], with more environment variables for the services.
    pub async fn start_apart_with(variables: &[(&'static str, &'static str)]) -> Self {
        let mut installation = Self::new();
        installation.variables = variables.to_vec();
        installation.run_storage().await;
        installation.run_services().await;
        installation
    }

    async fn run_services(&mut self) {
        self.s3.open().await;
        for service in ["api", "inference", "worker"] {
            self.run_service(service);
        }
        self.wait_for("the API", async |this| this.is_ready().await.then_some(()))
            .await;
        let key = self.exported("storage.env", "OPENAI_API_KEY");
        self.api.set_key(&key);
    }

    /// Starts `attune storage` on the data directory as it is.
    pub async fn run_storage(&mut self) {
        let env = self.data.path().join("storage.env");
        let _ = fs::remove_file(&env);
        let mut command = attune();
        command
            .args(["storage", "--s3-port", &self.s3_port.to_string()])
            .arg("--data-dir")
            .arg(self.data.path());
        let process = process::spawn(command, &self.log_path());
        self.running.push(("storage", process));
        self.wait_for("storage", async |_| env.exists().then_some(()))
            .await;
    }

    /// Starts a service over `attune storage`: one that is there already gets another beside it.
    pub fn run_service(&mut self, service: &'static str) {
        let mut command = attune();
        command.arg(service).env("ATTUNE_LEASE_SECS", LEASE_SECS);
        for (name, value) in self.exports_for(service) {
            command.env(name, value);
        }
        command.envs(self.variables.iter().copied());
        command.env("ATTUNE_S3_ENDPOINT", self.s3.address());
        let inference = format!("127.0.0.1:{}", self.inference_port);
        command.env("ATTUNE_INFERENCE_URL", format!("http://{inference}"));
        command.env(
            "ATTUNE_LISTEN",
            match service {
                "api" => format!("127.0.0.1:{}", self.port),
                _ => inference,
            },
        );
        let process = process::spawn(command, &self.log_path());
        self.running.push((service, process));
    }

    /// What `storage.env` tells a service: lines for all, and the address that a comment says is this one's.
    fn exports_for(&self, service: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.data.path().join("storage.env")).unwrap();
        let (_, own) = text
            .split_once(&format!("# for `attune {service}`:\n# "))
            .unwrap();
        let own = own.lines().next().unwrap();
        let lines = text.lines().chain([own]);
        lines.filter_map(export).collect()
    }

    /// What a file of the data directory exports under `name`.
    pub fn exported(&self, file: &str, name: &str) -> String {
        let text = fs::read_to_string(self.data.path().join(file)).unwrap();
        let found = text.lines().filter_map(export).find(|(key, _)| key == name);
        found.unwrap().1
    }

    /// Takes a file's content away behind the service's back, as a disk does.
    pub fn lose_content(&self, file: &str) {
        let found = self.objects().into_iter().find(|path| path.ends_with(file));
        fs::remove_file(found.unwrap_or_else(|| panic!("`{file}` has no content"))).unwrap();
    }

    /// The file of every object in the bucket, and what the server keeps beside it.
    pub fn objects(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.data.path().join("s3")];
        while let Some(folder) = folders.pop() {
            // A sweeper may be faster.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Ends everything that runs with `signal` and waits for it.
    pub fn end(&mut self, signal: Signal) {
        // Storage began first and goes last.
        for (_, process) in self.running.drain(..).rev() {
            process::end(process, signal);
        }
    }

    /// Kills `attune storage`, its Postgres and its S3, without warning.
    pub fn kill_storage(&mut self) {
        let index = self.running.iter().position(|(name, _)| *name == "storage");
        let (_, process) = self.running.remove(index.expect("it runs"));
        process::end(process, Signal::KILL);
    }

    /// Kills the child process of `attune up` that runs `attune SERVICE`, without warning.
    pub fn kill_service(&self, service: &str) {
        process::kill_child(self.running[0].1.id(), service, |arguments| {
            arguments.get(1).is_some_and(|argument| argument == service)
        });
    }

    /// Sends a signal to the process that runs the service, the first if there are several.
    pub fn signal_service(&self, service: &str, signal: Signal) {
        let found = self.running.iter().find(|(name, _)| *name == service);
        process::send(&found.expect("it runs").1, signal);
    }

    /// Sends a signal to the process that runs the service, the first if there are several, and waits for its end. S3 is
    /// reached meanwhile.
    pub async fn end_service(&mut self, service: &str, signal: Signal) -> ExitStatus {
        let index = self.running.iter().position(|(name, _)| *name == service);
        let (_, mut process) = self.running.remove(index.expect("it runs"));
        process::send(&process, signal);
        self.wait_for("its end", async |_| process.try_wait().unwrap())
            .await
    }

    /// Kills the private Postgres, without warning.
    pub fn kill_postgres(&self) {
        process::kill_child(self.running[0].1.id(), "postgres", |arguments| {
            arguments[0].ends_with("/postgres")
        });
    }

    /// Imports a base model beside the running server.
    pub fn import(&self, base: &Path, name: &str) {
        self.import_from(base.to_str().unwrap(), name, &[]);
    }

    /// As [`Self::import`], from any source, with more environment variables.
    pub fn import_from(&self, source: &str, name: &str, variables: &[(&str, &str)]) {
        let output = attune()
            .args(["models", "import", source, "--name", name, "--data-dir"])
            .arg(self.data.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What `attune admin` prints, beside what runs; or what it says when it fails.
    ///
    /// # Errors
    /// The command's last words.
    pub fn admin(&self, arguments: &[&str]) -> Result<String, String> {
        let output = attune()
            .arg("admin")
            .args(arguments)
            .args(["--json", "--data-dir"])
            .arg(self.data.path())
            .env_remove("DATABASE_URL")
            .env_remove("ATTUNE_MIGRATE_URL")
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// The folders of projects in the installation's bucket.
    pub fn projects_in_bucket(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data.path().join("s3/attune")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("proj_")).collect()
    }

    /// Waits until the job has ended, and returns it.
    pub async fn finished(&self, job: &str) -> Value {
        let path = format!("/fine_tuning/jobs/{job}");
        self.wait_for("the job", async |this| {
            let answer = this.send(Method::GET, &path, None).await;
            // While storage is away there is no answer worth reading.
            let job: Value = answer.error_for_status().ok()?.json().await.ok()?;
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
            assert!(
                started.elapsed() < PATIENCE,
                "still waiting for {what}:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the processes have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("log")
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

/// The name and value of a line `export NAME=VALUE`.
fn export(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
}

/// Taken together, so that no two are the same.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
