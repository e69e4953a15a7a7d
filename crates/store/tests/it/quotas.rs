//! Limits hold to the last place, also when many ask for it at once.

use domain::FineTunedModelId;
use sqlx::PgPool;
use store::quotas::{self, QuotaExceeded, Quotas};
use store::{Store, StoreError, checkpoints, files, jobs, lease, models};
use time::OffsetDateTime;

use crate::given::{Tenant, claimed, job, now, request, running, two_tenants};
use crate::isolation::file;
use crate::leases::{checkpoint, step};

pub(crate) async fn limit(store: &Store, tenant: Tenant, quotas: Quotas) {
    let mut tx = store.operator_tx().await.unwrap();
    quotas::set(&mut tx, tenant.org_id, tenant.project_id, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn create(
    store: &Store,
    tenant: Tenant,
    n_tokens: u64,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut tx = store.tenant_tx(tenant.project_id).await?;
    let job = job(tenant);
    jobs::create(&mut tx, &job, &request()).await?;
    quotas::admit_job(&mut tx, &job, n_tokens, now).await?;
    tx.commit().await
}

async fn upload(store: &Store, tenant: Tenant) -> Result<(), StoreError> {
    let mut tx = store.tenant_tx(tenant.project_id).await?;
    let file = file(tenant);
    files::create(&mut tx, &file).await?;
    quotas::admit_bytes(&mut tx, file.size_bytes).await?;
    tx.commit().await
}

fn refusal(result: Result<(), StoreError>) -> QuotaExceeded {
    match result {
        Err(StoreError::Quota(exceeded)) => exceeded,
        other => panic!("not refused: {other:?}"),
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_hundred_at_once_make_as_many_jobs_as_may_wait(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let ten = Quotas {
        max_queued_jobs: Some(10),
        ..Quotas::default()
    };
    limit(&store, acme, ten).await;
    let creates = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { create(&store, acme, 0, now()).await })
    });
    let mut made = 0;
    for created in creates.collect::<Vec<_>>() {
        match created.await.unwrap() {
            Ok(()) => made += 1,
            refused => assert_eq!(
                refusal(refused),
                QuotaExceeded::QueuedJobs {
                    max: 10,
                    waiting: 10
                }
            ),
        }
    }
    assert_eq!(made, 10);
    // One that a worker has no longer waits, and another project has its own limits.
    create(&store, umbrella, 0, now()).await.unwrap();
    while claimed(&store).await.unwrap().job.project_id != acme.project_id {}
    create(&store, acme, 0, now()).await.unwrap();
    refusal(create(&store, acme, 0, now()).await);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn uploads_at_once_store_no_more_than_fits(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let quota = Quotas {
        max_storage_bytes: Some(10),
        ..Quotas::default()
    };
    limit(&store, acme, quota).await;
    // Each has three bytes.
    let uploads = (0..20).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { upload(&store, acme).await })
    });
    let mut stored = 0;
    for upload in uploads.collect::<Vec<_>>() {
        match upload.await.unwrap() {
            Ok(()) => stored += 1,
            refused => assert_eq!(
                refusal(refused),
                QuotaExceeded::StorageBytes { max: 10, used: 9 }
            ),
        }
    }
    assert_eq!(stored, 3);
    upload(&store, umbrella).await.unwrap();

    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert_eq!(quotas::storage_bytes(&mut tx).await.unwrap(), 9);
    let room = quotas::room(&mut tx, 1).await.unwrap().unwrap();
    assert_eq!(room.bytes(), 1);
    assert!(quotas::room(&mut tx, 2).await.is_err());
    sqlx::query("DELETE FROM files WHERE project_id = $1")
        .bind(acme.project_id.0)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(quotas::storage_bytes(&mut tx).await.unwrap(), 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_day_s_tokens_are_those_trained_and_those_expected(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    // It began before there was a limit, and had trained some when it was cancelled.
    let held = running(&store, acme).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    store::metrics::record(&mut tx, &held.lease, &[step(1)])
        .await
        .unwrap();
    let cancelled = held.job.cancel(now()).unwrap();
    lease::save(&mut tx, &held.lease, &cancelled).await.unwrap();
    tx.commit().await.unwrap();
    let trained = step(1).n_tokens;

    let quota = Quotas {
        max_trained_tokens_per_day: Some(trained + 100),
        ..Quotas::default()
    };
    limit(&store, acme, quota).await;
    create(&store, acme, 60, now()).await.unwrap();
    assert_eq!(
        refusal(create(&store, acme, 41, now()).await),
        QuotaExceeded::TrainedTokens {
            max: trained + 100,
            used: trained + 60,
            wanted: 41
        }
    );
    create(&store, acme, 40, now()).await.unwrap();
    // At midnight what was trained is forgotten; what is expected of unfinished jobs is not.
    let tomorrow = now() + time::Duration::DAY;
    create(&store, acme, trained, tomorrow).await.unwrap();
    refusal(create(&store, acme, 1, tomorrow).await);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn limits_are_set_by_administrators_of_the_organization(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let quotas = Quotas {
        max_queued_jobs: Some(1),
        max_tokens_per_minute: Some(5),
        ..Quotas::default()
    };
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    quotas::set(&mut tx, acme.org_id, acme.project_id, &quotas)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert_eq!(quotas::own(&mut tx).await.unwrap(), quotas);
    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert_eq!(quotas::own(&mut tx).await.unwrap(), Quotas::default());

    limit(&store, umbrella, quotas).await;
    for org_id in [acme.org_id, umbrella.org_id] {
        let mut tx = store.org_tx(acme.org_id).await.unwrap();
        let set = quotas::set(&mut tx, org_id, umbrella.project_id, &Quotas::default()).await;
        assert!(set.is_err(), "{set:?}");
        let mut tx = store.org_tx(acme.org_id).await.unwrap();
        let seen = quotas::find(&mut tx, org_id, umbrella.project_id)
            .await
            .unwrap();
        assert_eq!(seen, Quotas::default());
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_operators_limits_bind_whatever_administrators_set(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let Tenant { org_id, project_id } = acme;
    let operators = Quotas {
        max_running_jobs: Some(1),
        max_queued_jobs: Some(2),
        max_storage_bytes: Some(7),
        ..Quotas::default()
    };
    let mut tx = store.operator_tx().await.unwrap();
    quotas::set_ceiling(&mut tx, org_id, project_id, &operators)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let own = Quotas {
        max_running_jobs: Some(5),
        max_queued_jobs: None,
        max_storage_bytes: Some(3),
        max_tokens_per_minute: Some(9),
        ..Quotas::default()
    };
    let mut tx = store.org_tx(org_id).await.unwrap();
    quotas::set(&mut tx, org_id, project_id, &own)
        .await
        .unwrap();
    assert_eq!(
        quotas::ceiling(&mut tx, org_id, project_id).await.unwrap(),
        operators
    );
    tx.commit().await.unwrap();
    let in_force = Quotas {
        max_running_jobs: Some(1),
        max_queued_jobs: Some(2),
        max_storage_bytes: Some(3),
        max_tokens_per_minute: Some(9),
        ..Quotas::default()
    };
    assert_eq!(own.least(operators), in_force);
    let mut tx = store.tenant_tx(project_id).await.unwrap();
    assert_eq!(quotas::own(&mut tx).await.unwrap(), in_force);
    drop(tx);

    // Claims hold the lower number, too, whoever set it last.
    for _ in 0..2 {
        create(&store, acme, 0, now()).await.unwrap();
    }
    claimed(&store).await.unwrap();
    assert_eq!(claimed(&store).await, None);
    let mut tx = store.operator_tx().await.unwrap();
    quotas::set_ceiling(&mut tx, org_id, project_id, &Quotas::default())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    claimed(&store).await.unwrap();
}

/// Straight in the database, as an administrator's login could.
#[sqlx::test(migrator = "store::MIGRATOR")]
async fn no_administrator_writes_the_operators_row(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let mut tx = store.operator_tx().await.unwrap();
    let one = Quotas {
        max_queued_jobs: Some(1),
        ..Quotas::default()
    };
    quotas::set_ceiling(&mut tx, acme.org_id, acme.project_id, &one)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::query("SELECT set_config('role', 'app_org', false), set_config('app.org_id', $1, false)")
        .bind(acme.org_id.0.to_string())
        .execute(&mut connection)
        .await
        .unwrap();
    for change in [
        "max_queued_jobs = NULL",
        "set_by = 'organization'",
        "max_queued_jobs = NULL, set_by = 'organization'",
    ] {
        let statement = format!("UPDATE project_quotas SET {change} WHERE set_by = 'operator'");
        let done = sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 0, "{change}");
    }
    let inserted = sqlx::query(
        "INSERT INTO project_quotas (org_id, project_id, set_by) SELECT org_id, id, 'operator' FROM projects
         ON CONFLICT (org_id, project_id, set_by) DO UPDATE SET max_queued_jobs = NULL",
    )
    .execute(&mut connection)
    .await;
    assert!(inserted.is_err(), "{inserted:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn models_and_checkpoints_count_once_until_they_are_deleted(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let held = running(&store, acme).await;
    let stored = async |tenant: Tenant| {
        let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
        quotas::storage_bytes(&mut tx).await.unwrap()
    };
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    for step in [1, 2, 2] {
        // The second time its answer was lost, and it is recorded anew.
        checkpoints::create(&mut tx, &held.lease, &checkpoint(&held.lease, step))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(stored(acme).await, 200, "two checkpoints of 100 bytes");

    // An attempt that goes on from the first gives the second back.
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    lease::resume_from(&mut tx, &held.lease, 1).await.unwrap();
    let id = FineTunedModelId::new();
    let model = models::publish(&mut tx, &held.lease, id, "p/m/", 1_000, now())
        .await
        .unwrap()
        .name;
    tx.commit().await.unwrap();
    assert_eq!((stored(acme).await, stored(umbrella).await), (1_100, 0));

    let full = Quotas {
        max_storage_bytes: Some(1_100),
        ..Quotas::default()
    };
    limit(&store, acme, full).await;
    assert_eq!(
        refusal(create(&store, acme, 0, now()).await),
        QuotaExceeded::NoRoomForModels {
            max: 1_100,
            used: 1_100
        }
    );
    // The job that runs goes on beyond the limit.
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    checkpoints::create(&mut tx, &held.lease, &checkpoint(&held.lease, 3))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stored(acme).await, 1_200);

    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    for deleted in [true, false] {
        assert_eq!(
            models::delete(&mut tx, &model, now()).await.unwrap(),
            deleted
        );
    }
    tx.commit().await.unwrap();
    assert_eq!(stored(acme).await, 200);
    create(&store, acme, 0, now()).await.unwrap();
}
