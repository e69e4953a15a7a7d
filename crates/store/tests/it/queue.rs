//! Claim, heartbeat, reap.

use std::collections::HashSet;

use domain::JobStatus;
use sqlx::PgPool;
use store::{StoreError, events, jobs, lease, queue};
use time::Duration;

use crate::given::{
    LEASE, claimed, expire_and_reap, found, job, now, running, stored, two_tenants,
};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_goes_to_one_of_many_workers(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    for _ in 0..3 {
        stored(&store, job(acme)).await;
    }
    let claims = (0..4).map(|_| claimed(&store));
    let taken: Vec<_> = futures::future::join_all(claims)
        .await
        .into_iter()
        .flatten()
        .map(|claimed| claimed.job.id)
        .collect();
    assert_eq!(taken.len(), 3);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 3);
    assert!(claimed(&store).await.is_none());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_claim_starts_an_attempt_and_moves_no_status(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    stored(&store, job(acme)).await;
    let claimed = claimed(&store).await.unwrap();
    assert_eq!((claimed.job.attempt, claimed.lease.attempt), (1, 1));
    assert_eq!(claimed.job.status, JobStatus::ValidatingFiles);
    assert!(claimed.lease.attempt < claimed.max_attempts);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_tenant_with_fewer_jobs_at_work_comes_first(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    for seconds in 0..3 {
        let older = domain::Job {
            created_at: now() + Duration::seconds(seconds),
            ..job(acme)
        };
        stored(&store, older).await;
    }
    let late = domain::Job {
        created_at: now() + Duration::hours(1),
        ..job(umbrella)
    };
    stored(&store, late).await;
    let mut order = Vec::new();
    while let Some(claimed) = claimed(&store).await {
        order.push(claimed.job.project_id);
    }
    assert_eq!(
        order,
        [
            acme.project_id,
            umbrella.project_id,
            acme.project_id,
            acme.project_id
        ]
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_oldest_job_of_a_tenant_comes_first(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let newer = domain::Job {
        created_at: now() + Duration::seconds(9),
        ..job(acme)
    };
    stored(&store, newer).await;
    let older = stored(&store, job(acme)).await;
    assert_eq!(claimed(&store).await.unwrap().job.id, older.id);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_heartbeat_keeps_the_reaper_away(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    sqlx::query("UPDATE jobs SET lease_expires_at = now() - interval '1 s'")
        .execute(&pool)
        .await
        .unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    queue::heartbeat(&mut tx, &claimed.lease, LEASE)
        .await
        .unwrap();
    assert_eq!(queue::reap(&mut tx, 10).await.unwrap(), []);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_reaped_job_waits_again_and_says_so(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let first = running(&store, acme).await;
    let reaped = expire_and_reap(&store, &pool).await;
    assert_eq!((reaped[0].attempt, reaped[0].failed), (1, false));
    assert_eq!(found(&store, &first.job).await.status, JobStatus::Queued);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let told = events::list(&mut tx, first.job.id, None, 10).await.unwrap();
    assert!(
        told.data[0].message.contains("attempt 1 of 4"),
        "{}",
        told.data[0].message
    );
    let second = claimed(&store).await.unwrap();
    assert_eq!(second.lease.attempt, 2);
    assert_ne!(second.lease.lease_token, first.lease.lease_token);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_that_kills_every_worker_fails_by_name(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let job = stored(&store, job(acme)).await;
    for attempt in 1..=domain::limits::MAX_ATTEMPTS {
        let claimed = claimed(&store).await.unwrap();
        assert_eq!(
            (claimed.lease.attempt, claimed.max_attempts),
            (attempt, domain::limits::MAX_ATTEMPTS)
        );
        expire_and_reap(&store, &pool).await;
    }
    assert!(claimed(&store).await.is_none());
    let job = found(&store, &job).await;
    assert_eq!(job.status, JobStatus::Failed);
    let error = job.error.unwrap();
    assert_eq!(error.code, "worker_lost");
    assert!(error.message.contains("out of memory"), "{}", error.message);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_whose_last_worker_says_nothing_names_the_last_failure_that_was_reported(
    pool: PgPool,
) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let job = stored(&store, job(acme)).await;
    for reason in ["no\u{0} room", "no disk"] {
        let claimed = claimed(&store).await.unwrap();
        let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
        lease::retry_later(&mut tx, &claimed.lease, std::time::Duration::ZERO, reason)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    for _ in 3..=domain::limits::MAX_ATTEMPTS {
        claimed(&store).await.unwrap();
        expire_and_reap(&store, &pool).await;
    }
    let error = found(&store, &job).await.error.unwrap();
    assert_eq!(error.code, "worker_lost");
    for part in [
        "its lease ran out at 20",
        "Before that, attempt 2 failed: no disk",
    ] {
        assert!(error.message.contains(part), "{}", error.message);
    }
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let told = events::list(&mut tx, job.id, None, 10).await.unwrap().data;
    let attempts: Vec<_> = told
        .iter()
        .rev()
        .map(|event| event.data.as_ref().unwrap()["attempt"].clone())
        .collect();
    assert_eq!(attempts, [3, 4]);
    assert!(told[0].message.contains("no disk"), "{}", told[0].message);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_is_not_handed_back_after_its_last_attempt(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let job = stored(&store, job(acme)).await;
    let no_pause = std::time::Duration::ZERO;
    for attempt in 1..=domain::limits::MAX_ATTEMPTS {
        let claimed = claimed(&store).await.unwrap();
        let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
        let handed_back = lease::retry_later(&mut tx, &claimed.lease, no_pause, "no room").await;
        if attempt < domain::limits::MAX_ATTEMPTS {
            handed_back.unwrap();
        } else {
            assert!(
                matches!(handed_back, Err(StoreError::NoAttemptLeft)),
                "{handed_back:?}"
            );
            // Still this attempt's, which is to fail it.
            lease::hold(&mut tx, &claimed.lease).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    assert!(claimed(&store).await.is_none());
    // Nor if nobody fails it: its lease runs out like any other.
    expire_and_reap(&store, &pool).await;
    assert!(claimed(&store).await.is_none());
    assert_eq!(found(&store, &job).await.status, JobStatus::Failed);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn cancelling_ends_the_lease(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let job = jobs::find_for_update(&mut tx, claimed.job.id)
        .await
        .unwrap()
        .unwrap()
        .job;
    jobs::save(&mut tx, &job.cancel(now()).unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.worker_tx().await.unwrap();
    let beat = queue::heartbeat(&mut tx, &claimed.lease, LEASE).await;
    assert!(matches!(beat, Err(StoreError::LeaseLost)), "{beat:?}");
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let held = lease::hold(&mut tx, &claimed.lease).await;
    assert!(matches!(held, Err(StoreError::LeaseLost)), "{held:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_released_job_is_free_at_once_and_loses_no_attempt(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let first = running(&store, acme).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let job = lease::release(&mut tx, &first.lease, std::time::Duration::ZERO)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(job.status, JobStatus::Queued);
    let second = claimed(&store).await.unwrap();
    assert_eq!(
        (second.lease.attempt, second.max_attempts),
        (2, first.max_attempts + 1)
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_that_is_tried_later_waits(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let first = running(&store, acme).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    lease::retry_later(&mut tx, &first.lease, queue::backoff(1), "no room")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(claimed(&store).await.is_none());
    let mut tx = store.worker_tx().await.unwrap();
    assert_eq!(
        queue::depth(&mut tx).await.unwrap(),
        queue::Depth {
            waiting: 1,
            leased: 0
        }
    );
}
