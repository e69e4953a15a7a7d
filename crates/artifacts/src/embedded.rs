//! An S3 server in process, over a folder, for one machine and for tests.
//!
//! It speaks the same protocol as production, signatures included, so there is one code path for
//! storage. What it does not have: tags, versions, life cycles, and durability beyond the folder's.

mod access;
mod housekeeping;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Connections;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::S3Config;
use access::Access;

/// Free disk space below which the server takes no more data: a database on the same disk survives
/// a full bucket, but not a full disk.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// How long requests under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The one pair of keys that opens the server.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access_key_id = &self.access_key_id;
        f.debug_struct("Credentials")
            .field("access_key_id", access_key_id)
            .finish_non_exhaustive()
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("cannot use `{root}` as the S3 server's folder")]
    Root {
        root: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the S3 server cannot listen on {addr}")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A running server. Dropping it stops it at once; [`Self::shutdown`] lets requests finish.
pub struct EmbeddedS3 {
    addr: SocketAddr,
    credentials: Credentials,
    /// Dropping the sender ends the accept loop, too.
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

/// Serves the folder (created if it is missing) on the address; port 0 takes a free one.
///
/// # Errors
///
/// [`EmbeddedError`] names the folder or the address.
pub async fn serve(
    root: &Path,
    addr: SocketAddr,
    credentials: &Credentials,
) -> Result<EmbeddedS3, EmbeddedError> {
    serve_with_reserve(root, addr, credentials, RESERVE_BYTES).await
}

/// As [`serve`], with another threshold for "no space left".
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_with_reserve(
    root: &Path,
    addr: SocketAddr,
    credentials: &Credentials,
    reserve_bytes: u64,
) -> Result<EmbeddedS3, EmbeddedError> {
    let unusable = |source| EmbeddedError::Root {
        root: root.to_owned(),
        source,
    };
    std::fs::create_dir_all(root).map_err(unusable)?;
    housekeeping::clean(root).map_err(unusable)?;
    let files =
        FileSystem::new(root).map_err(|error| unusable(io::Error::other(format!("{error:?}"))))?;
    let listen = |source| EmbeddedError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;

    let mut service = S3ServiceBuilder::new(files);
    let Credentials {
        access_key_id,
        secret_access_key,
    } = credentials.clone();
    service.set_auth(SimpleAuth::from_single(access_key_id, secret_access_key));
    service.set_access(Access {
        root: root.to_owned(),
        reserve_bytes,
    });

    let (stop, stopped) = oneshot::channel();
    let accepting = tokio::spawn(accept(listener, service.build(), stopped));
    Ok(EmbeddedS3 {
        addr,
        credentials: credentials.clone(),
        stop,
        accepting,
    })
}

impl EmbeddedS3 {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Settings for a client of a bucket on this server.
    pub fn config(&self, bucket: &str) -> S3Config {
        S3Config {
            endpoint: self.endpoint(),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            prefix: String::new(),
            path_style: true,
            access_key_id: self.credentials.access_key_id.clone(),
            secret_access_key: self.credentials.secret_access_key.clone(),
        }
    }

    /// Takes no more connections, waits for requests under way, up to ten seconds.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "The S3 server ended badly");
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service, mut stopped: oneshot::Receiver<()>) {
    let server = Connections::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    // Dropping the set closes connections that outlive the grace period.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                // Small answers would otherwise wait for the peer's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let connection = server.serve_connection(TokioIo::new(stream), service.clone());
                let connection = graceful.watch(connection.into_owned());
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "An S3 connection broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The S3 server could not accept a connection");
                // Out of file descriptors, most likely: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("The S3 server closed connections that were still busy");
    }
}
