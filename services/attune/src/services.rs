//! The services, each started the way production starts it: from environment variables.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use artifacts::S3Config;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::child;
use crate::shutdown::Shutdown;
use crate::storage::Environment;
use crate::supervisor::Supervised;

/// Serves the API as the environment says, until a signal.
///
/// # Errors
///
/// Names the setting that is missing or wrong.
pub async fn run_api() -> Result<()> {
    let config = api::Config::from_env()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!("The API listens on {}", listener.local_addr()?);
    let shutdown = Shutdown::listen()?;
    api::serve(config, listener, shutdown.requested()).await
}

/// Works on jobs as the environment says, until a signal.
///
/// # Errors
///
/// Names the setting that is missing or wrong.
pub async fn run_worker() -> Result<()> {
    let shutdown = Shutdown::listen()?;
    worker::run(
        worker::Config::from_env(crate::code::code())?,
        shutdown.requested(),
    )
    .await
}

/// Serves the inference service as the environment says, until a signal.
///
/// # Errors
///
/// Names the setting that is missing or wrong.
pub async fn run_inference() -> Result<()> {
    let config = inference::Config::from_env()?;
    let listen = std::env::var("ATTUNE_LISTEN").unwrap_or_else(|_| "127.0.0.1:8081".to_owned());
    let listener = TcpListener::bind(&listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (ATTUNE_LISTEN)"))?;
    tracing::info!(
        "The inference service listens on {}",
        listener.local_addr()?
    );
    let shutdown = Shutdown::listen()?;
    inference::serve(config, listener, shutdown.requested()).await
}

/// Serves the API in this process. What `environment` does not say, our own does.
///
/// # Errors
///
/// As [`run_api`].
pub async fn serve_api(
    environment: &Environment,
    s3: S3Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let variable = |name: &str| {
        let own = || std::env::var(name).ok().filter(|value| !value.is_empty());
        environment.get(name).cloned().or_else(own)
    };
    let config = api::Config {
        listen: listener.local_addr()?,
        ..api::Config::from_variables(s3, variable)?
    };
    api::serve(config, listener, shutdown).await
}

/// Starts a service as a child of this process, from the same binary, and keeps it running.
///
/// # Errors
///
/// When the binary cannot be executed.
pub async fn supervise(name: &'static str, environment: Environment) -> Result<Supervised> {
    let start = move || {
        let command = command(name, &environment);
        async move { spawn(name, command).await }
    };
    Supervised::start(name, Signal::TERM, start).await
}

/// With us its storage dies, so a service has nothing left to finish: the next start recovers.
async fn spawn(name: &str, command: Command) -> Result<Child> {
    child::spawn(command, Signal::KILL)
        .await
        .with_context(|| format!("cannot start `{name}`"))
}

fn command(name: &str, environment: &BTreeMap<&'static str, String>) -> Command {
    // Not the path of our binary, which an upgrade may have replaced under us.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("attune").arg(name).envs(environment);
    command
}

/// A free port of this machine, for a child that will listen on it.
///
/// # Errors
///
/// When there is none.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(listener.local_addr()?.port())
}
