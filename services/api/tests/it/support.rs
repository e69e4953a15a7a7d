//! A running API with two tenants, a bucket, a clock that stands still, and clients for it all.

mod client;
mod document;
mod form;
mod issuer;
mod own_bucket;
mod redact;
mod work;

pub(crate) use client::{Answer, Client};
pub(crate) use form::Form;
pub(crate) use issuer::{Issuer, SigningKey};
pub(crate) use own_bucket::OwnBucket;
pub(crate) use redact::redacted;
use work::register_base;
pub(crate) use work::{ANY_WORKER, Wordy, tokenizer};

use std::net::SocketAddr;
use std::sync::Arc;

use api::auth::Callers;
use api::auth::oidc::{Oidc, OidcConfig};
use api::outbound::target::{Lookup, Policy};
use api::throttle::Throttle;
use api::{AppState, Config, Feed, InferenceClient, Limits, TextModels, webhooks};
use artifacts::ObjectStore;
use artifacts::embedded::{self, Credentials, EmbeddedS3};
use buckets::Buckets;
use domain::{Clock, ManualClock, OrgId, ProjectId};
use store::Store;
use tempfile::TempDir;
use testkit::database::{Tenant, TestDatabase, keyring, pepper, seed_tenants};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// When every test begins.
pub(crate) const START: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
/// Small enough to be exceeded by a test.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 10;
/// What comes in parts may be larger.
pub(crate) const MAX_UPLOAD_BYTES: u64 = 4 * MAX_FILE_BYTES;
/// Two rows to train on.
pub(crate) const ROWS: &str = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n\
                        {\"messages\": [{\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}\n";

/// Receivers of tests are on this machine.
pub(crate) const OPEN: Policy = Policy {
    allow_http: true,
    allow_private: true,
};

/// Everything one test needs; dropping it stops everything.
pub(crate) struct TestApp {
    pub(crate) alice: Client,
    pub(crate) bob: Client,
    pub(crate) admin: Client,
    pub(crate) bobs_admin: Client,
    pub(crate) anonymous: Client,
    pub(crate) alice_org: OrgId,
    pub(crate) alice_project: ProjectId,
    pub(crate) bob_project: ProjectId,
    pub(crate) clock: Arc<ManualClock>,
    /// The installation's bucket, all of it.
    pub(crate) objects: ObjectStore,
    pub(crate) buckets: Buckets,
    pub(crate) database: TestDatabase,
    server: JoinHandle<()>,
    s3: Option<EmbeddedS3>,
    _folder: TempDir,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        // Nobody listens at this address.
        Self::start_with_inference("http://127.0.0.1:9").await
    }

    pub(crate) async fn start_with_inference(inference_url: &str) -> Self {
        Self::start_with(inference_url, "tiny", |_| None, false).await
    }

    pub(crate) async fn start_with_base(base_model: &str) -> Self {
        Self::start_with("http://127.0.0.1:9", base_model, |_| None, false).await
    }

    /// An app that every request reaches through a proxy of the operator's.
    pub(crate) async fn start_behind_proxy() -> Self {
        Self::start_with("http://127.0.0.1:9", "tiny", |_| None, true).await
    }

    /// An app that believes an identity provider, with settings that may name alice's and bob's projects.
    pub(crate) async fn start_with_oidc(settings: impl FnOnce(&[Tenant; 2]) -> OidcConfig) -> Self {
        let oidc = |tenants: &[Tenant; 2]| Some(settings(tenants));
        Self::start_with("http://127.0.0.1:9", "tiny", oidc, false).await
    }

    async fn start_with(
        inference_url: &str,
        base_model: &str,
        oidc: impl FnOnce(&[Tenant; 2]) -> Option<OidcConfig>,
        trusts_proxy: bool,
    ) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let operator = database.store();
        register_base(&operator, base_model).await;
        let tenants = seed_tenants(&operator, START).await.unwrap();
        let oidc = oidc(&tenants).map(|settings| Oidc::new(settings).unwrap());
        let [alice, bob] = tenants;
        let (folder, s3, objects) = bucket().await;
        let buckets = Buckets::new(&s3.config("attune"), Some(keyring()));
        let clock = ManualClock::new(START);
        let store = Store::connect(&database.url_as(store::migrate::API_LOGIN))
            .await
            .unwrap();
        let state = AppState {
            feed: Feed::new(store.clone()),
            callers: Callers::new(store.clone(), Clock::from(clock.clone())),
            texts: TextModels::new(buckets.shared().clone()),
            store,
            buckets: buckets.clone(),
            clock: Clock::from(clock.clone()),
            pepper: pepper(),
            keyring: Some(keyring()),
            oidc,
            inference: InferenceClient::new(inference_url, "internal".to_owned()).unwrap(),
            webhooks: webhooks::Sender::new(OPEN, Lookup::system()).unwrap(),
            throttle: Throttle::new(Clock::from(clock.clone()), 1),
            trusts_proxy,
            limits: Limits {
                max_file_bytes: MAX_FILE_BYTES,
                max_upload_bytes: MAX_UPLOAD_BYTES,
                max_part_bytes: MAX_FILE_BYTES,
                max_batch_bytes: MAX_FILE_BYTES,
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let service = api::router(state).into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        });
        Self {
            alice: Client::new(&url, Some(&alice.api_key)),
            bob: Client::new(&url, Some(&bob.api_key)),
            admin: Client::new(&url, Some(&alice.admin_key)),
            bobs_admin: Client::new(&url, Some(&bob.admin_key)),
            anonymous: Client::new(&url, None),
            alice_org: alice.org_id,
            alice_project: alice.project_id,
            bob_project: bob.project_id,
            clock,
            objects,
            buckets,
            database,
            server,
            s3: Some(s3),
            _folder: folder,
        }
    }

    /// A store with the worker's login: what workers and the sweeper do.
    pub(crate) async fn worker_store(&self) -> Store {
        Store::connect(&self.database.url_as(store::migrate::WORKER_LOGIN))
            .await
            .unwrap()
    }

    /// The settings under which this service could be started a second time.
    pub(crate) fn config(&self) -> Config {
        Config {
            database_url: self.database.url_as(store::migrate::API_LOGIN),
            sweep_database_url: Some(self.database.url_as(store::migrate::WORKER_LOGIN)),
            s3: self.s3.as_ref().expect("it runs").config("attune"),
            key_pepper: pepper(),
            keyring: Some(keyring()),
            oidc: None,
            webhook_targets: OPEN,
            wandb_targets: OPEN,
            inference_url: "http://127.0.0.1:9".to_owned(),
            internal_token: "internal".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            replicas: 1,
            trusts_proxy: false,
            max_file_bytes: MAX_FILE_BYTES,
            max_upload_bytes: MAX_UPLOAD_BYTES,
        }
    }

    /// From here on the bucket cannot be reached.
    pub(crate) async fn stop_storage(&mut self) {
        self.s3.take().expect("it runs").shutdown().await;
    }

    /// Every key in the bucket.
    pub(crate) async fn object_keys(&self) -> Vec<String> {
        self.objects
            .list("")
            .await
            .unwrap()
            .into_iter()
            .map(|object| object.key)
            .collect()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn bucket() -> (TempDir, EmbeddedS3, ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials {
        access_key_id: "AK".to_owned(),
        secret_access_key: "SK".to_owned(),
    };
    let addr = "127.0.0.1:0".parse().unwrap();
    let s3 = embedded::serve_with_reserve(folder.path(), addr, &credentials, 0)
        .await
        .unwrap();
    let objects = ObjectStore::connect(&s3.config("attune"));
    objects.ensure_bucket().await.unwrap();
    (folder, s3, objects)
}
