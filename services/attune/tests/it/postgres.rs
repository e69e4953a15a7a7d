//! The private Postgres, from its first start to its crashes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use attune::child;
use attune::data_dir::{DataDir, Lock};
use attune::postgres::{Cluster, STOP_SIGNAL};
use tempfile::TempDir;
use tokio::process::Child;

struct Installation {
    _folder: TempDir,
    dir: DataDir,
    _lock: Lock,
}

impl Installation {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(Some(folder.path())).unwrap();
        let lock = dir.lock().unwrap();
        Self {
            _folder: folder,
            dir,
            _lock: lock,
        }
    }
}

fn takes_connections(cluster: &Cluster) -> bool {
    UnixStream::connect(cluster.socket_dir().join(".s.PGSQL.5432")).is_ok()
}

async fn stop(mut server: Child) {
    let status = child::stop(&mut server, STOP_SIGNAL, Duration::from_secs(30))
        .await
        .unwrap();
    assert!(status.success(), "{}", child::describe(status));
}

#[tokio::test]
async fn a_cluster_is_made_once_and_stops_in_order() {
    let installation = Installation::new();
    let cluster = Cluster::open(&installation.dir).unwrap();
    let server = cluster.start().await.unwrap();
    assert!(takes_connections(&cluster));
    stop(server).await;
    assert!(!takes_connections(&cluster));

    let made = fs::metadata(installation.dir.path("postgres/PG_VERSION")).unwrap();
    let again = Cluster::open(&installation.dir).unwrap();
    stop(again.start().await.unwrap()).await;
    let now = fs::metadata(installation.dir.path("postgres/PG_VERSION")).unwrap();
    assert_eq!(
        made.ino(),
        now.ino(),
        "the second start must find the first one's cluster"
    );
}

#[tokio::test]
async fn other_accounts_reach_neither_data_nor_socket() {
    let installation = Installation::new();
    let cluster = Cluster::open(&installation.dir).unwrap();
    for path in [
        installation.dir.path("postgres"),
        cluster.socket_dir().to_owned(),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o700, "{}", path.display());
        assert_ne!(
            metadata.uid(),
            0,
            "{}: Postgres does not run as root",
            path.display()
        );
    }
}

#[tokio::test]
async fn a_killed_server_starts_again() {
    let installation = Installation::new();
    let cluster = Cluster::open(&installation.dir).unwrap();
    let mut server = cluster.start().await.unwrap();
    server.start_kill().unwrap();
    server.wait().await.unwrap();
    assert!(installation.dir.path("postgres/postmaster.pid").exists());
    let server = cluster.start().await.unwrap();
    assert!(takes_connections(&cluster));
    stop(server).await;
}

#[tokio::test]
async fn a_pid_file_that_names_someone_else_is_no_obstacle() {
    let installation = Installation::new();
    let cluster = Cluster::open(&installation.dir).unwrap();
    // In a container the same process id comes back at every start.
    let pid_file = installation.dir.path("postgres/postmaster.pid");
    fs::write(&pid_file, format!("{}\n/elsewhere\n", std::process::id())).unwrap();
    stop(cluster.start().await.unwrap()).await;
}

#[tokio::test]
async fn a_deep_data_directory_has_its_socket_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(100));
    // Postgres must be able to pass through the temporary folder, too.
    DataDir::open(Some(folder.path())).unwrap();
    let dir = DataDir::open(Some(&deep)).unwrap();
    let _lock = dir.lock().unwrap();
    let cluster = Cluster::open(&dir).unwrap();
    assert!(
        cluster.socket_dir().starts_with("/tmp"),
        "{:?}",
        cluster.socket_dir()
    );
    stop(cluster.start().await.unwrap()).await;
    let again = Cluster::open(&dir).unwrap();
    assert_eq!(again.socket_dir(), cluster.socket_dir());
    fs::remove_dir_all(cluster.socket_dir()).unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_come_up_shows_its_log() {
    let installation = Installation::new();
    let cluster = Cluster::open(&installation.dir).unwrap();
    fs::write(
        installation.dir.path("postgres/postgresql.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    let message = format!("{:#}", cluster.start().await.unwrap_err());
    assert!(message.contains("no_such_setting"), "{message}");
}
