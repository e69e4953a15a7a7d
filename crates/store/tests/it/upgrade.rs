//! Installations that exist when a migration comes keep what they have.

use std::borrow::Cow;

use domain::{JobStatus, OrgId, ProjectId};
use sqlx::migrate::Migrator;
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Executor, PgPool};
use store::jobs::{JobListing, MetadataFilter};
use store::queue::{self, Reaped};
use store::quotas::{self, Quotas};
use store::{MIGRATOR, Store, api_keys, checkpoints, events, files, jobs, metrics, models};
use time::OffsetDateTime;

use crate::given::{ANY_WORKER, LEASE};

/// The last migration before the rows were written.
const BEFORE: i64 = 5;
const ROWS: &str = include_str!("../../../../tests/data/migrations/0005.sql");
/// Of the rows' API key, and the pepper that it is hashed under.
const SECRET: &str = "sk-attune-0000000000000000000000000000000000000000000000000000000000000000";

fn up_to(last: i64) -> Migrator {
    those(|version| version <= last)
}

fn those(is_there: impl Fn(i64) -> bool) -> Migrator {
    let migrations = MIGRATOR.migrations.iter();
    let there = migrations.filter(|migration| is_there(migration.version));
    Migrator {
        migrations: Cow::Owned(there.cloned().collect()),
        ..Migrator::DEFAULT
    }
}

#[sqlx::test(migrations = false)]
async fn an_installation_keeps_its_jobs_models_and_keys(pool: PgPool) {
    up_to(BEFORE).run(&pool).await.unwrap();
    pool.execute(AssertSqlSafe(ROWS)).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();

    let store = Store::from_pool(pool);
    let mut tx = store.auth_tx().await.unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_795_600_000).unwrap();
    let pepper = api_keys::Pepper::new([0x5a; 32]);
    let caller = api_keys::authenticate(&mut tx, &pepper, SECRET, now).await;
    let project_id = caller
        .unwrap()
        .expect("the key opens it")
        .project_id
        .unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.tenant_tx(project_id).await.unwrap();
    let listing = JobListing {
        after: None,
        limit: 100,
        metadata: MetadataFilter::Any,
    };
    let page = jobs::list(&mut tx, &listing).await.unwrap();
    let mut statuses: Vec<JobStatus> = page.data.iter().map(|stored| stored.job.status).collect();
    statuses.sort_by_key(|status| status.as_str());
    assert_eq!(
        statuses,
        [
            JobStatus::Cancelled,
            JobStatus::Failed,
            JobStatus::Running,
            JobStatus::Succeeded,
            JobStatus::ValidatingFiles,
        ]
    );
    for stored in &page.data {
        let seen = events::list(&mut tx, stored.job.id, None, 100)
            .await
            .unwrap();
        assert!(
            !seen.data.is_empty(),
            "{} has lost its events",
            stored.job.id
        );
    }
    let of = |status| {
        page.data
            .iter()
            .find(|stored| stored.job.status == status)
            .unwrap()
    };
    let done = &of(JobStatus::Succeeded).job;
    let model = models::resolve(&mut tx, done.fine_tuned_model().unwrap())
        .await
        .unwrap();
    let model = model.expect("the model answers");
    assert_eq!(model.tuned.unwrap().job_id, done.id);
    let steps = metrics::list(&mut tx, done.id, 0, 100).await.unwrap();
    assert_eq!(steps.data.len(), 4);
    assert_eq!(
        checkpoints::list(&mut tx, done.id, None, 10)
            .await
            .unwrap()
            .data
            .len(),
        2
    );
    let result = files::find(&mut tx, done.result_file.unwrap())
        .await
        .unwrap();
    assert!(result.is_some(), "the result file is listed");
    tx.commit().await.unwrap();

    // The job that was at a worker is missed, and both are taken up: the queue has counted them.
    let running = of(JobStatus::Running).job.id;
    let mut tx = store.worker_tx().await.unwrap();
    let reaped = queue::reap(&mut tx, 10).await.unwrap();
    assert!(matches!(reaped[..], [Reaped { job_id, failed: false, .. }] if job_id == running));
    tx.commit().await.unwrap();
    let mut claimed = Vec::new();
    for _ in 0..2 {
        let mut tx = store.worker_tx().await.unwrap();
        let next = queue::claim(&mut tx, "new", ANY_WORKER, LEASE)
            .await
            .unwrap();
        claimed.push(next.expect("a job waits").job.id);
        tx.commit().await.unwrap();
    }
    assert_eq!(claimed, [running, of(JobStatus::ValidatingFiles).job.id]);
    let mut tx = store.worker_tx().await.unwrap();
    assert_eq!(
        queue::claim(&mut tx, "new", ANY_WORKER, LEASE)
            .await
            .unwrap(),
        None
    );
}

/// Numbers are given out before the work is done, so a release may bring a lower one than an earlier release did.
#[sqlx::test(migrations = false)]
async fn a_migration_with_a_lower_number_may_come_later(pool: PgPool) {
    const LATE: i64 = 13;
    let migrations = MIGRATOR.migrations.iter();
    let without = migrations.filter(|migration| migration.version != LATE);
    let without = Migrator {
        migrations: Cow::Owned(without.cloned().collect()),
        ..Migrator::DEFAULT
    };
    without.run(&pool).await.unwrap();
    let is_there = async || -> bool {
        sqlx::query_scalar("SELECT to_regclass('project_buckets') IS NOT NULL")
            .fetch_one(&pool)
            .await
            .unwrap()
    };
    assert!(!is_there().await);
    MIGRATOR.run(&pool).await.unwrap();
    assert!(is_there().await);
}

#[sqlx::test(migrations = false)]
async fn parts_that_were_there_count_toward_the_storage_from_then_on(pool: PgPool) {
    up_to(BEFORE).run(&pool).await.unwrap();
    pool.execute(AssertSqlSafe(ROWS)).await.unwrap();
    up_to(13).run(&pool).await.unwrap();
    pool.execute(
        "INSERT INTO uploads (id, project_id, filename, purpose, size_bytes, status, created_at, expires_at)
         SELECT gen_random_uuid(), id, 'a', 'fine-tune', 50, 'pending', now(), now() FROM projects;
         INSERT INTO upload_parts (id, project_id, upload_id, size_bytes, created_at)
         SELECT gen_random_uuid(), project_id, id, n, now() FROM uploads, (VALUES (20), (30)) AS part (n)",
    )
    .await
    .unwrap();
    let stored = async || -> Vec<(sqlx::types::Uuid, i64)> {
        sqlx::query_as("SELECT project_id, storage_bytes FROM project_usage ORDER BY project_id")
            .fetch_all(&pool)
            .await
            .unwrap()
    };
    let before = stored().await;
    MIGRATOR.run(&pool).await.unwrap();
    let with_parts: Vec<_> = before.iter().map(|(id, n)| (*id, n + 50)).collect();
    assert_eq!(stored().await, with_parts);
    assert!(!with_parts.is_empty());
    pool.execute("DELETE FROM uploads").await.unwrap();
    assert_eq!(stored().await, before);
}

#[sqlx::test(migrations = false)]
async fn a_migration_that_came_after_a_later_one_is_made_up_for(pool: PgPool) {
    const LATE: i64 = 12;
    up_to(BEFORE).run(&pool).await.unwrap();
    pool.execute(AssertSqlSafe(ROWS)).await.unwrap();
    those(|version| version != LATE).run(&pool).await.unwrap();
    MIGRATOR.run(&pool).await.unwrap();
    let newest: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(newest > LATE);

    // Jobs that were there move as before; they report to nobody.
    let moved = pool
        .execute("UPDATE jobs SET status = 'cancelled', lease_token = NULL, lease_expires_at = NULL WHERE status = 'running'")
        .await
        .unwrap();
    assert_eq!(moved.rows_affected(), 1);
    let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM wandb_runs")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(runs, 0);
}

/// Which limits the operator had set is not known; the number of running jobs was the operator's alone.
#[sqlx::test(migrations = false)]
async fn limits_that_were_there_hold_as_before(pool: PgPool) {
    const LIMITS: i64 = 21;
    up_to(BEFORE).run(&pool).await.unwrap();
    pool.execute(AssertSqlSafe(ROWS)).await.unwrap();
    up_to(LIMITS - 1).run(&pool).await.unwrap();
    pool.execute(
        "INSERT INTO project_quotas (org_id, project_id, max_queued_jobs) SELECT org_id, id, 4 FROM projects;
         UPDATE project_queues SET max_running_jobs = 3",
    )
    .await
    .unwrap();
    MIGRATOR.run(&pool).await.unwrap();
    let (org_id, project_id): (Uuid, Uuid) = sqlx::query_as(
        "SELECT p.org_id, p.id FROM projects p JOIN project_queues q ON q.project_id = p.id LIMIT 1",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let (org_id, project_id) = (OrgId(org_id), ProjectId(project_id));
    let store = Store::from_pool(pool.clone());
    let mut tx = store.tenant_tx(project_id).await.unwrap();
    let queued = Quotas {
        max_queued_jobs: Some(4),
        ..Quotas::default()
    };
    let running = Quotas {
        max_running_jobs: Some(3),
        ..Quotas::default()
    };
    assert_eq!(quotas::own(&mut tx).await.unwrap(), queued.least(running));
    drop(tx);
    let mut tx = store.org_tx(org_id).await.unwrap();
    let set = quotas::find(&mut tx, org_id, project_id).await.unwrap();
    assert_eq!(set, queued);
    let ceiling = quotas::ceiling(&mut tx, org_id, project_id).await.unwrap();
    assert_eq!(ceiling, running);
    // An administrator may still take away what they may have set.
    quotas::set(&mut tx, org_id, project_id, &Quotas::default())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let claimed_by: Option<i32> =
        sqlx::query_scalar("SELECT max_running_jobs FROM project_queues WHERE project_id = $1")
            .bind(project_id.0)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(claimed_by, Some(3));
}
