//! A project that is archived stops, whatever it has under way and whoever is at it.

use std::time::Duration;

use domain::{BatchStatus, JobStatus, ProjectId, UploadId, UploadStatus, WebhookEventType};
use sqlx::PgPool;
use store::archiving::{self, Stopped};
use store::audit::{self, Act, Actor};
use store::{AdminTx, Store, StoreError, batches, events, jobs, queue, quotas, uploads};
use tokio::time::{sleep, timeout};

use crate::batches::batch;
use crate::given::{
    LEASE, Tenant, claimed, found, job, listen, now, request, running, stored, two_tenants,
};
use crate::uploads::{part, upload};

fn prefix(project_id: ProjectId, upload_id: UploadId) -> String {
    format!("{project_id}/uploads/{upload_id}/")
}

pub(crate) async fn archived<Tx: AdminTx>(tx: Tx, tenant: Tenant) -> (Tx, Option<Stopped>) {
    archiving::archive(tx, tenant.org_id, tenant.project_id, prefix, now())
        .await
        .unwrap()
}

async fn archive(store: &Store, tenant: Tenant) -> Option<Stopped> {
    let tx = store.org_tx(tenant.org_id).await.unwrap();
    let (tx, stopped) = archived(tx, tenant).await;
    tx.commit().await.unwrap();
    stopped
}

/// A batch and an upload with one part, both under way.
async fn begun(store: &Store, tenant: Tenant) -> (domain::Batch, domain::Upload) {
    let (batch, upload) = (batch(tenant, 0), upload(tenant));
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    batches::create(&mut tx, &batch).await.unwrap();
    uploads::create(&mut tx, &upload).await.unwrap();
    uploads::add_part(&mut tx, &part(&upload)).await.unwrap();
    tx.commit().await.unwrap();
    (batch, upload)
}

async fn add_job(store: &Store, tenant: Tenant) -> Result<(), StoreError> {
    let mut tx = store.tenant_tx(tenant.project_id).await?;
    jobs::create(&mut tx, &job(tenant), &request()).await?;
    tx.commit().await
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_a_project_has_under_way_stops_with_it_and_nothing_else_does(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let held = running(&store, acme).await;
    let waiting = stored(&store, job(acme)).await;
    let paused = stored(&store, job(acme)).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    jobs::save(&mut tx, &paused.clone().pause().unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let (batch, upload) = begun(&store, acme).await;
    let theirs = stored(&store, job(umbrella)).await;
    begun(&store, umbrella).await;

    let stopped = Stopped {
        n_jobs: 3,
        n_batches: 1,
        n_uploads: 1,
    };
    assert_eq!(archive(&store, acme).await, Some(stopped));
    for job in [held.job, waiting, paused] {
        let ended = found(&store, &job).await;
        assert_eq!(ended, job.cancel(now()).unwrap());
        let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
        let told = events::list(&mut tx, ended.id, None, 10).await.unwrap();
        assert!(
            told.data[0].message.ends_with("its project was archived"),
            "{:?}",
            told.data[0]
        );
    }
    let mut tx = store.worker_tx().await.unwrap();
    let beat = queue::heartbeat(&mut tx, &held.lease, LEASE).await;
    assert!(matches!(beat, Err(StoreError::LeaseLost)), "{beat:?}");
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let batch = batches::find(&mut tx, batch.id).await.unwrap().unwrap();
    assert_eq!(batch.status, BatchStatus::Cancelling);
    let upload = uploads::find(&mut tx, upload.id).await.unwrap().unwrap();
    assert_eq!(upload.status, UploadStatus::Cancelled);
    assert_eq!(quotas::storage_bytes(&mut tx).await.unwrap(), 0);

    assert_eq!(
        found(&store, &theirs).await.status,
        JobStatus::ValidatingFiles
    );
    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert_eq!(quotas::storage_bytes(&mut tx).await.unwrap(), 8);
    assert_eq!(archive(&store, acme).await, None, "it was archived before");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_administrator_comes_back_with_the_rights_they_had(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    stored(&store, job(acme)).await;
    let tx = store.org_tx(acme.org_id).await.unwrap();
    let (mut tx, _) = archived(tx, acme).await;
    let actor = |tenant: Tenant| Actor {
        org_id: tenant.org_id,
        kind: "operator".to_owned(),
        id: "root".to_owned(),
        name: "root".to_owned(),
        key_id: None,
        address: None,
        request_id: None,
    };
    let act = Act::new("project.archived", "organization.project", acme.project_id);
    audit::record(
        &mut tx,
        &actor(acme),
        &act.clone().project(acme.project_id),
        now(),
    )
    .await
    .unwrap();
    // Of no project: the tenant's role would have written its own.
    audit::record(&mut tx, &actor(acme), &act, now())
        .await
        .unwrap();
    let (org, of_project): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(project_id) FROM audit_log")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(
        (org, of_project),
        (0, 0),
        "nothing counts before the commit"
    );
    let refused = audit::record(&mut tx, &actor(umbrella), &act, now()).await;
    assert!(refused.is_err(), "another organization's chain");
    drop(tx);
    // Nothing of it happened, the cancelled job included.
    assert!(add_job(&store, acme).await.is_ok());
    assert_eq!(archive(&store, acme).await.unwrap().n_jobs, 2);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_was_let_in_a_moment_before_is_refused_or_stopped(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    // The job is there, but nobody sees it yet: archiving waits for it.
    let mut creating = store.tenant_tx(acme.project_id).await.unwrap();
    jobs::create(&mut creating, &job(acme), &request())
        .await
        .unwrap();
    let archiving = tokio::spawn({
        let store = store.clone();
        async move { archive(&store, acme).await }
    });
    sleep(Duration::from_millis(100)).await;
    assert!(!archiving.is_finished());
    creating.commit().await.unwrap();
    let stopped = timeout(Duration::from_secs(10), archiving).await;
    assert_eq!(stopped.unwrap().unwrap().unwrap().n_jobs, 1);

    // The other way round: the job waits to learn whether the project is archived.
    let tx = store.org_tx(umbrella.org_id).await.unwrap();
    let (tx, _) = archived(tx, umbrella).await;
    let creating = tokio::spawn({
        let store = store.clone();
        async move { add_job(&store, umbrella).await }
    });
    sleep(Duration::from_millis(100)).await;
    assert!(!creating.is_finished());
    tx.commit().await.unwrap();
    let refused = timeout(Duration::from_secs(10), creating).await;
    let refused = refused.unwrap().unwrap();
    assert!(matches!(refused, Err(StoreError::Archived)), "{refused:?}");

    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let refused = batches::create(&mut tx, &batch(acme, 0)).await;
    assert!(matches!(refused, Err(StoreError::Archived)), "{refused:?}");
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let refused = uploads::create(&mut tx, &upload(acme)).await;
    assert!(matches!(refused, Err(StoreError::Archived)), "{refused:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn thousands_of_jobs_end_with_their_project_and_write_its_queue_once(pool: PgPool) {
    const MANY: usize = 2_500;
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    listen(&mut tx, WebhookEventType::JobCancelled).await;
    for _ in 0..MANY {
        jobs::create(&mut tx, &job(acme), &request()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let held = claimed(&store).await.unwrap();
    let theirs = stored(&store, job(umbrella)).await;
    let number = async |query: &'static str| -> i64 {
        sqlx::query_scalar(query).fetch_one(&pool).await.unwrap()
    };
    // What making so many in one transaction left there.
    sqlx::query("VACUUM FULL project_queues")
        .execute(&pool)
        .await
        .unwrap();
    let size = "SELECT pg_relation_size('project_queues')";
    let before = number(size).await;

    assert_eq!(archive(&store, acme).await.unwrap().n_jobs, MANY);

    for (query, expected) in [
        ("SELECT count(*) FROM jobs WHERE status = 'cancelled'", MANY),
        ("SELECT count(DISTINCT job_id) FROM job_events", MANY),
        (
            "SELECT count(DISTINCT object_id) FROM webhook_deliveries",
            MANY,
        ),
        (
            "SELECT count(DISTINCT event_id) FROM webhook_deliveries",
            MANY,
        ),
        (
            "SELECT count(*) FROM project_queues WHERE closed_at IS NOT NULL AND n_waiting = 0 AND n_running = 0",
            1,
        ),
    ] {
        let found = number(query).await;
        assert_eq!(usize::try_from(found).unwrap(), expected, "{query}");
    }
    // A version of its row for each job would be several hundred thousand bytes.
    let grown = number(size).await - before;
    assert!(
        grown <= 8192,
        "the queue's row was written again and again: {grown} bytes"
    );
    let mut tx = store.worker_tx().await.unwrap();
    let beat = queue::heartbeat(&mut tx, &held.lease, LEASE).await;
    assert!(matches!(beat, Err(StoreError::LeaseLost)), "{beat:?}");
    drop(tx);
    assert_eq!(claimed(&store).await.unwrap().job.id, theirs.id);
    assert!(claimed(&store).await.is_none());
}
