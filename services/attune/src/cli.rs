//! The command line.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::admin::{self, AdminCommand};
use crate::export::{self, ExportArgs};
use crate::migrate;
use crate::models::{self, ModelsCommand};
use crate::print;
use crate::services;
use crate::train::{self, TrainArgs};
use crate::up::{self, StorageArgs, UpArgs};

/// Turn your own examples into your own model, behind an API you already use.
#[derive(Debug, Parser)]
#[command(name = "attune", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: database, storage, API, worker, inference
    Up(UpArgs),
    /// Run the embedded Postgres and S3 alone
    Storage(StorageArgs),
    /// Run the API, configured by environment variables
    Api,
    /// Run a worker, configured by environment variables
    Worker,
    /// Run the inference service, configured by environment variables
    Inference,
    /// Prepare the database of a production installation, once per release
    Migrate,
    /// Train an adapter on this machine, without a server
    Train(TrainArgs),
    /// Write a trained model for other programs: merged, or as GGUF
    Export(ExportArgs),
    /// Print the API's description as OpenAPI 3.1, in YAML
    Openapi,
    /// Make, list and revoke organizations, projects, users and keys
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Import, export and list base models
    #[command(subcommand)]
    Models(ModelsCommand),
}

/// Does what the arguments of this process say.
///
/// # Errors
///
/// Whatever went wrong.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    log_to_stderr();
    match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Up(args) => block_on(up::up(&args)),
        Command::Storage(args) => block_on(up::storage(&args)),
        Command::Api => block_on(services::run_api()),
        Command::Worker => work(),
        Command::Inference => block_on(services::run_inference()),
        Command::Migrate => block_on(migrate::run()),
        Command::Openapi => {
            print::line(api::openapi::yaml().trim_end());
            Ok(())
        }
        Command::Admin(command) => block_on(admin::run(command)),
        Command::Models(command) => block_on(models::run(command)),
    }
}

/// Training runs on a thread of its own and needs no runtime, so not every command has one.
fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    runtime()?.block_on(command)
}

/// A worker that leaves does not wait for what it computes: after its grace period the job is another's, and the step that
/// it is at may take longer than whoever asked it to leave has patience.
fn work() -> Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(services::run_worker());
    runtime.shutdown_background();
    result
}

fn runtime() -> Result<Runtime> {
    Runtime::new().context("cannot start a runtime")
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ATTUNE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,aws=warn,s3s=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
