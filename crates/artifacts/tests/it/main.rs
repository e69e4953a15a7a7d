//! The object store against the embedded server: the real protocol, no mocks.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod outage;
mod own;
mod reading;
mod refusals;
mod writing;

use artifacts::ObjectStore;
use artifacts::embedded::{self, Credentials, EmbeddedS3};
use tempfile::TempDir;

/// A server over a temporary folder and a client of its one bucket.
struct Bucket {
    root: TempDir,
    server: EmbeddedS3,
    store: ObjectStore,
}

impl Bucket {
    async fn start() -> Self {
        Self::start_with_reserve(0).await
    }

    async fn start_with_reserve(reserve_bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let addr = "127.0.0.1:0".parse().unwrap();
        let server = embedded::serve_with_reserve(root.path(), addr, &credentials(), reserve_bytes)
            .await
            .unwrap();
        let store = ObjectStore::connect(&server.config("attune"));
        store.ensure_bucket().await.unwrap();
        Self {
            root,
            server,
            store,
        }
    }

    /// Files of unfinished uploads in the server's folder.
    fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.root.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".upload") || name.starts_with(".tmp"))
            .collect()
    }
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "AK".to_owned(),
        secret_access_key: "SK".to_owned(),
    }
}
