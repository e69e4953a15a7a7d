//! What tests start from: two tenants, a base model, jobs.

use std::time::Duration;

use domain::{
    BaseModelId, DeviceKind, FileId, Job, JobId, JobStatus, OrgId, ProjectId, TrainingConfig,
    WebhookEventType, WorkerKind,
};
use serde_json::json;
use sqlx::PgPool;
use store::base_models::{self, BaseModel};
use store::jobs::JobRequest;
use store::organizations::{self, Organization};
use store::projects::{self, Project};
use store::queue::{self, Claimed};
use store::sealed::Keyring;
use store::webhooks::{self, Settings};
use store::{Store, TenantTx, jobs};
use time::OffsetDateTime;

pub(crate) const BASE: &str = "smollm2-135m-instruct";
/// One that can take what tests make.
pub(crate) const ANY_WORKER: WorkerKind = WorkerKind {
    device: DeviceKind::Cpu,
    memory_bytes: 1 << 40,
};
pub(crate) const LEASE: Duration = Duration::from_mins(1);

#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) org_id: OrgId,
    pub(crate) project_id: ProjectId,
}

/// 2026-11-24, to the second.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_795_478_400).unwrap()
}

/// A store over the test's database, with a base model and two tenants.
pub(crate) async fn two_tenants(pool: &PgPool) -> (Store, [Tenant; 2]) {
    let store = with_base(pool).await;
    let tenants = [
        tenant(&store, "acme").await,
        tenant(&store, "umbrella").await,
    ];
    (store, tenants)
}

/// The same with any number of tenants.
pub(crate) async fn some_tenants(pool: &PgPool, n: usize) -> (Store, Vec<Tenant>) {
    let store = with_base(pool).await;
    let mut tenants = Vec::new();
    for index in 0..n {
        tenants.push(tenant(&store, &format!("tenant-{index}")).await);
    }
    (store, tenants)
}

async fn with_base(pool: &PgPool) -> Store {
    let store = Store::from_pool(pool.clone());
    let mut tx = store.operator_tx().await.unwrap();
    base_models::register(&mut tx, &base_model()).await.unwrap();
    tx.commit().await.unwrap();
    store
}

pub(crate) fn base_model() -> BaseModel {
    BaseModel {
        id: BaseModelId::new(),
        name: BASE.to_owned(),
        fingerprint: "f".repeat(64),
        architecture: "llama".to_owned(),
        n_params: 135_000_000,
        context_length: 2048,
        d_model: 576,
        n_layers: 30,
        n_heads: 9,
        n_kv_heads: 3,
        d_ff: 1536,
        vocab_size: 49_152,
        size_bytes: 98_362_432,
        files: vec![],
        created_at: now(),
    }
}

async fn tenant(store: &Store, slug: &str) -> Tenant {
    let tenant = Tenant {
        org_id: OrgId::new(),
        project_id: ProjectId::new(),
    };
    let mut tx = store.operator_tx().await.unwrap();
    let organization = Organization {
        id: tenant.org_id,
        name: slug.to_owned(),
        slug: slug.to_owned(),
        created_at: now(),
    };
    organizations::create(&mut tx, &organization).await.unwrap();
    let project = Project {
        id: tenant.project_id,
        org_id: tenant.org_id,
        name: "Main".to_owned(),
        slug: "main".to_owned(),
        created_at: now(),
    };
    projects::create(&mut tx, &project).await.unwrap();
    tx.commit().await.unwrap();
    tenant
}

pub(crate) fn job(tenant: Tenant) -> Job {
    let id = JobId::new();
    Job {
        id,
        project_id: tenant.project_id,
        org_id: tenant.org_id,
        status: JobStatus::ValidatingFiles,
        model: BASE.to_owned(),
        base_model: BASE.to_owned(),
        training_file: FileId::new(),
        validation_file: None,
        suffix: None,
        config: TrainingConfig::default(),
        metadata: None,
        model_name: format!("ft:{BASE}:acme::{}", id.0.simple()),
        trained_tokens: None,
        result_file: None,
        error: None,
        attempt: 0,
        created_at: now(),
        finished_at: None,
        estimated_finish: None,
        data: None,
    }
}

pub(crate) fn request() -> JobRequest {
    JobRequest {
        hyperparameters: json!({"n_epochs": "auto"}),
        method: json!({"type": "supervised"}),
        integrations: json!([]),
    }
}

pub(crate) async fn stored(store: &Store, job: Job) -> Job {
    let mut tx = store.tenant_tx(job.project_id).await.unwrap();
    jobs::create(&mut tx, &job, &request()).await.unwrap();
    tx.commit().await.unwrap();
    job
}

pub(crate) async fn found(store: &Store, job: &Job) -> Job {
    let mut tx = store.tenant_tx(job.project_id).await.unwrap();
    jobs::find(&mut tx, job.id).await.unwrap().unwrap().job
}

pub(crate) async fn claimed(store: &Store) -> Option<Claimed> {
    let mut tx = store.worker_tx().await.unwrap();
    let claimed = queue::claim(&mut tx, "worker-1", ANY_WORKER, LEASE)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// What this test's secrets are sealed with.
pub(crate) fn keyring() -> Keyring {
    Keyring::parse(&format!("k:{}", "ab".repeat(32))).unwrap()
}

/// An endpoint of the project that is told of such events.
pub(crate) async fn listen(tx: &mut TenantTx, event_type: WebhookEventType) {
    let settings = Settings {
        name: "hook".to_owned(),
        url: "https://example.com/".to_owned(),
        event_types: vec![event_type],
    };
    let keyring = keyring();
    let endpoint = webhooks::create(tx, &keyring, &settings, "secret", now());
    endpoint.await.unwrap().expect("there is room for one");
}

/// A job that this test's worker holds and trains.
pub(crate) async fn running(store: &Store, tenant: Tenant) -> Claimed {
    stored(store, job(tenant)).await;
    let mut claimed = claimed(store).await.unwrap();
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    claimed.job = claimed.job.start().unwrap();
    store::lease::save(&mut tx, &claimed.lease, &claimed.job)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    claimed
}

/// Every lease ran out a second ago, and a reaper came by.
pub(crate) async fn expire_and_reap(store: &Store, pool: &PgPool) -> Vec<queue::Reaped> {
    sqlx::query(
        "UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE lease_token IS NOT NULL",
    )
    .execute(pool)
    .await
    .unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    let reaped = queue::reap(&mut tx, 100).await.unwrap();
    tx.commit().await.unwrap();
    reaped
}
