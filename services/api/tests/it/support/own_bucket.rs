//! A second S3 server with a bucket that a project is given.

use std::net::SocketAddr;

use artifacts::embedded::{self, Credentials, EmbeddedS3};
use artifacts::{ObjectStore, S3Config};
use domain::ProjectId;
use store::buckets::{self, Change, Settings};
use tempfile::TempDir;
use testkit::database::keyring;

use super::{START, TestApp};

/// What goes before every key in it.
const PREFIX: &str = "ours/";

pub(crate) struct OwnBucket {
    server: Option<EmbeddedS3>,
    addr: SocketAddr,
    config: S3Config,
    folder: TempDir,
}

impl OwnBucket {
    pub(crate) const NAME: &'static str = "acme-models";

    /// A bucket that is the project's own from now on.
    pub(crate) async fn given_to(app: &TestApp, project_id: ProjectId) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let server = serve(&folder, free, "first").await;
        let config = S3Config {
            prefix: PREFIX.to_owned(),
            ..server.config(Self::NAME)
        };
        let addr = server.addr();
        let own = Self {
            server: Some(server),
            addr,
            config,
            folder,
        };
        own.objects().ensure_bucket().await.unwrap();
        assert_eq!(own.give(app, project_id).await, Change::Moved);
        own
    }

    /// What the operator's command does.
    async fn give(&self, app: &TestApp, project_id: ProjectId) -> Change {
        let S3Config {
            endpoint,
            region,
            bucket,
            prefix,
            path_style,
            access_key_id,
            secret_access_key,
        } = self.config.clone();
        let settings = Settings {
            endpoint,
            region,
            bucket,
            prefix,
            path_style,
            access_key_id,
        };
        let tx = app.database.store().operator_tx().await.unwrap();
        let ring = keyring();
        let set = buckets::set(tx, &ring, project_id, &settings, &secret_access_key, START);
        let (tx, change) = set.await.unwrap();
        tx.commit().await.unwrap();
        change
    }

    /// Everything in the bucket, below the prefix.
    fn objects(&self) -> ObjectStore {
        ObjectStore::connect(&self.config)
    }

    /// Every key below the prefix.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let listed = self.objects().list("").await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// An object of four bytes.
    pub(crate) async fn put(&self, key: &str) {
        self.objects().put_bytes(key, b"data").await.unwrap();
    }

    /// From here on it cannot be reached.
    pub(crate) async fn stop(&mut self) {
        self.server.take().expect("it runs").shutdown().await;
    }

    /// It is back, with what it had.
    pub(crate) async fn start(&mut self) {
        let secret = self.config.secret_access_key.clone();
        self.server = Some(serve(&self.folder, self.addr, &secret).await);
    }

    /// Its server wants another secret from now on; the installation is not told.
    pub(crate) async fn change_secret(&mut self, secret: &str) {
        self.stop().await;
        secret.clone_into(&mut self.config.secret_access_key);
        self.start().await;
    }

    /// The installation is told the secret that the server wants now.
    pub(crate) async fn tell_secret(&self, app: &TestApp, project_id: ProjectId) {
        assert_eq!(self.give(app, project_id).await, Change::Updated);
    }
}

async fn serve(folder: &TempDir, addr: SocketAddr, secret: &str) -> EmbeddedS3 {
    let credentials = Credentials {
        access_key_id: "ACME".to_owned(),
        secret_access_key: secret.to_owned(),
    };
    embedded::serve_with_reserve(folder.path(), addr, &credentials, 0)
        .await
        .unwrap()
}
