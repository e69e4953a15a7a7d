//! `attune up`: the whole system on one machine, from one data directory.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tokio::net::{TcpListener, TcpSocket};

use crate::data_dir::DataDir;
use crate::secrets::Secrets;
use crate::services;
use crate::shutdown::Shutdown;
use crate::storage::{Storage, export, exports};
use crate::supervisor::Supervised;
use crate::{models, print};

/// Clients that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Arguments of `attune up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where everything is kept [default: /var/lib/attune as root, else ~/.local/share/attune]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Arguments of `attune storage`.
#[derive(Debug, Args)]
pub struct StorageArgs {
    /// Where everything is kept [default: /var/lib/attune as root, else ~/.local/share/attune]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The port of the S3 server, on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    s3_port: u16,
}

/// Runs everything until a signal.
///
/// # Errors
///
/// When a part cannot start, or the API fails; everything is stopped then.
pub async fn up(args: &UpArgs) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let dir = DataDir::open(args.data_dir.as_deref())?;
    let lock = dir.lock()?;
    // A port that is taken is better known before anything else starts.
    let socket = bind(SocketAddr::from((args.host, args.port)))?;
    let storage = Storage::start(&dir, lock, 0).await?;
    let served = serve(&dir, &storage, socket, &shutdown).await;
    storage.stop().await;
    served
}

/// Runs the embedded Postgres and S3 alone until a signal.
///
/// # Errors
///
/// When one of them cannot start.
pub async fn storage(args: &StorageArgs) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let dir = DataDir::open(args.data_dir.as_deref())?;
    let lock = dir.lock()?;
    let storage = Storage::start(&dir, lock, args.s3_port).await?;
    let text = storage_env(&storage);
    let path = dir.write_private("storage.env", &text)?;
    print::line(&format!("{text}# also in {}", path.display()));
    shutdown.requested().await;
    storage.stop().await;
    Ok(())
}

async fn serve(
    dir: &DataDir,
    storage: &Storage,
    socket: TcpSocket,
    shutdown: &Shutdown,
) -> Result<()> {
    models::import_first(&storage.reach()).await?;
    let inference_port = services::free_port()?;
    let inference_addr = format!("127.0.0.1:{inference_port}");
    let mut environment = storage.api_environment();
    environment.insert("ATTUNE_INFERENCE_URL", format!("http://{inference_addr}"));

    let addr = socket.local_addr()?;
    announce(dir, storage.secrets(), addr)?;
    let listener = socket
        .listen(BACKLOG)
        .with_context(|| format!("cannot listen on {addr}"))?;
    let children = start_children(storage, inference_addr).await?;
    let served = serve_api(environment, storage, listener, shutdown).await;
    stop(children).await;
    served
}

async fn start_children(storage: &Storage, inference_addr: String) -> Result<[Supervised; 2]> {
    let mut environment = storage.inference_environment();
    environment.insert("ATTUNE_LISTEN", inference_addr);
    let inference = services::supervise("inference", environment).await?;
    let worker = services::supervise("worker", storage.worker_environment()).await?;
    Ok([inference, worker])
}

async fn serve_api(
    environment: crate::storage::Environment,
    storage: &Storage,
    listener: TcpListener,
    shutdown: &Shutdown,
) -> Result<()> {
    let s3 = storage.reach().s3;
    services::serve_api(&environment, s3, listener, shutdown.requested())
        .await
        .context("the API")
}

/// At the same time: each may need its whole grace period.
async fn stop(children: [Supervised; 2]) {
    let [inference, worker] = children;
    tokio::join!(inference.stop(), worker.stop());
}

/// Bound but not listening yet: the port is ours, and no client gets in before it can be told how.
fn bind(addr: SocketAddr) -> Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr).with_context(|| {
        format!("cannot listen on {addr}: choose another address with --host and --port")
    })?;
    Ok(socket)
}

/// Tells how to use the server, on the terminal and in `attune.env`.
fn announce(dir: &DataDir, secrets: &Secrets, addr: SocketAddr) -> Result<()> {
    let text = client_env(secrets, addr);
    let path = dir.write_private("attune.env", &text)?;
    print::line(&format!("{text}# also in {}", path.display()));
    Ok(())
}

fn client_env(secrets: &Secrets, addr: SocketAddr) -> String {
    // A server that listens on every address is reached on this machine by the loopback one.
    let host = match addr.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    [
        export(
            "OPENAI_BASE_URL",
            &format!("http://{host}:{}/v1", addr.port()),
        ),
        client_keys(secrets),
    ]
    .concat()
}

fn client_keys(secrets: &Secrets) -> String {
    export("OPENAI_API_KEY", &secrets.api_key) + &export("OPENAI_ADMIN_KEY", &secrets.admin_key)
}

/// What each service needs to run beside this storage, where they differ in their login, and what a client needs.
fn storage_env(storage: &Storage) -> String {
    let mut api = storage.api_environment();
    let mut text = String::new();
    for (service, url) in [
        ("api", api.remove("DATABASE_URL")),
        (
            "worker",
            storage.worker_environment().remove("DATABASE_URL"),
        ),
        (
            "inference",
            storage.inference_environment().remove("DATABASE_URL"),
        ),
    ] {
        let line = export("DATABASE_URL", &url.unwrap_or_default());
        let _ = write!(text, "# for `attune {service}`:\n# {line}");
    }
    text.push_str(&export("ATTUNE_MIGRATE_URL", &storage.reach().admin_url));
    text.push_str(&exports(&api));
    text.push_str(&client_keys(storage.secrets()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_url(addr: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        let text = client_env(&Secrets::open(&dir).unwrap(), addr.parse().unwrap());
        text.lines().next().unwrap().to_owned()
    }

    #[test]
    fn the_printed_address_is_one_that_a_client_can_use() {
        assert_eq!(
            base_url("127.0.0.1:80"),
            "export OPENAI_BASE_URL=http://127.0.0.1:80/v1"
        );
        assert_eq!(
            base_url("0.0.0.0:80"),
            "export OPENAI_BASE_URL=http://127.0.0.1:80/v1"
        );
        assert_eq!(
            base_url("[::]:80"),
            "export OPENAI_BASE_URL='http://[::1]:80/v1'"
        );
    }
}
