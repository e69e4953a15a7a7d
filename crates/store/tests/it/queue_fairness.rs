//! Whose turn it is: shares by weight, priorities, caps, and what idle or waiting time is worth.

use std::collections::BTreeMap;

use domain::{DeviceKind, Needs, ProjectId, WorkerKind};
use sqlx::PgPool;
use store::quotas::Quotas;
use store::shares::{self, Share};
use store::{Store, jobs, lease, queue};

use tokio::task::JoinSet;

use crate::given::{
    ANY_WORKER, LEASE, Tenant, claimed, job, request, some_tenants, stored, two_tenants,
};
use crate::quotas::limit;

async fn many(store: &Store, tenant: Tenant, n: usize) {
    for _ in 0..n {
        stored(store, job(tenant)).await;
    }
}

async fn share(store: &Store, tenant: Tenant, share: Share) {
    let mut tx = store.operator_tx().await.unwrap();
    shares::set(&mut tx, tenant.project_id, share)
        .await
        .unwrap();
    assert_eq!(
        shares::get(&mut tx, tenant.project_id).await.unwrap(),
        share
    );
    tx.commit().await.unwrap();
}

/// How many of the next `n` claims are whose.
async fn served(store: &Store, n: usize) -> BTreeMap<ProjectId, usize> {
    let mut served = BTreeMap::new();
    for _ in 0..n {
        if let Some(claimed) = claimed(store).await {
            *served.entry(claimed.job.project_id).or_default() += 1;
        }
    }
    served
}

async fn claimed_by(store: &Store, kind: WorkerKind) -> Option<queue::Claimed> {
    let mut tx = store.worker_tx().await.unwrap();
    let claimed = queue::claim(&mut tx, "w", kind, LEASE).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_long_queue_does_not_delay_anothers_first_job(pool: PgPool) {
    let (store, [hog, late]) = two_tenants(&pool).await;
    many(&store, hog, 50).await;
    served(&store, 20).await;
    let first = stored(&store, job(late)).await;
    let next = [claimed(&store).await, claimed(&store).await];
    assert!(next.iter().flatten().any(|next| next.job.id == first.id));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn projects_that_wait_are_served_by_their_weights(pool: PgPool) {
    let (store, [light, heavy]) = two_tenants(&pool).await;
    let weight = 3.0;
    share(
        &store,
        heavy,
        Share {
            weight,
            ..Share::default()
        },
    )
    .await;
    many(&store, light, 20).await;
    many(&store, heavy, 40).await;
    let served = served(&store, 40).await;
    assert_eq!(
        (served[&light.project_id], served[&heavy.project_id]),
        (10, 30)
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn who_was_idle_collects_no_credit(pool: PgPool) {
    let (store, [busy, idle]) = two_tenants(&pool).await;
    many(&store, idle, 1).await;
    served(&store, 1).await;
    many(&store, busy, 60).await;
    served(&store, 40).await;
    many(&store, idle, 20).await;
    let served = served(&store, 20).await;
    let [busy, idle] = [served[&busy.project_id], served[&idle.project_id]];
    assert!(busy.abs_diff(idle) <= 2, "{busy} and {idle}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn nobody_pays_for_what_was_used_while_nobody_else_waited(pool: PgPool) {
    let (store, [busy, other]) = two_tenants(&pool).await;
    many(&store, busy, 40).await;
    served(&store, 30).await;
    many(&store, other, 10).await;
    let served = served(&store, 10).await;
    let [busy, other] = [served[&busy.project_id], served[&other.project_id]];
    assert!(busy.abs_diff(other) <= 2, "{busy} and {other}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn jobs_that_no_worker_could_take_earn_32_turns_at_most(pool: PgPool) {
    let (store, [waits, runs]) = two_tenants(&pool).await;
    let needs = Needs {
        device: Some(DeviceKind::Cuda),
        memory_bytes: 0,
    };
    let mut tx = store.tenant_tx(waits.project_id).await.unwrap();
    jobs::create_needing(&mut tx, &job(waits), &request(), needs)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    many(&store, runs, 120).await;
    served(&store, 90).await;
    many(&store, waits, 60).await;
    let served = served(&store, 60).await;
    let [waits, runs] = [served[&waits.project_id], served[&runs.project_id]];
    assert!(waits.abs_diff(runs) <= 34, "{waits} and {runs}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_higher_priority_goes_first(pool: PgPool) {
    let (store, [usual, urgent]) = two_tenants(&pool).await;
    let priority = 1;
    share(
        &store,
        urgent,
        Share {
            priority,
            ..Share::default()
        },
    )
    .await;
    many(&store, usual, 3).await;
    many(&store, urgent, 3).await;
    assert_eq!(
        served(&store, 3).await,
        BTreeMap::from([(urgent.project_id, 3)])
    );
    assert_eq!(
        served(&store, 3).await,
        BTreeMap::from([(usual.project_id, 3)])
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_cap_holds_and_an_ended_job_makes_room(pool: PgPool) {
    let (store, [capped, _]) = two_tenants(&pool).await;
    let two = Quotas {
        max_running_jobs: Some(2),
        ..Quotas::default()
    };
    limit(&store, capped, two).await;
    many(&store, capped, 4).await;
    let first = claimed(&store).await.unwrap();
    assert_eq!(served(&store, 4).await[&capped.project_id], 1);
    let mut tx = store.tenant_tx(capped.project_id).await.unwrap();
    lease::release(&mut tx, &first.lease, std::time::Duration::ZERO)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(served(&store, 4).await[&capped.project_id], 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_worker_takes_only_what_it_can_do(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let needs = |device, memory_bytes| Needs {
        device,
        memory_bytes,
    };
    let mut made = Vec::new();
    for needs in [
        needs(Some(DeviceKind::Cuda), 5),
        needs(None, 10),
        needs(Some(DeviceKind::Cpu), 1),
    ] {
        let job = job(acme);
        let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
        jobs::create_needing(&mut tx, &job, &request(), needs)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        made.push(job.id);
    }
    let worker = |device, memory_bytes| WorkerKind {
        device,
        memory_bytes,
    };
    let small_cpu = worker(DeviceKind::Cpu, 9);
    let taken = claimed_by(&store, small_cpu).await.unwrap();
    assert_eq!(taken.job.id, made[2]);
    assert_eq!(claimed_by(&store, small_cpu).await, None);
    let cuda = worker(DeviceKind::Cuda, 10);
    for id in &made[..2] {
        assert_eq!(claimed_by(&store, cuda).await.unwrap().job.id, *id);
    }
    assert_eq!(claimed_by(&store, ANY_WORKER).await, None);
}

/// A claim that finds every project busy waits for one of them and takes what it gets, so turns are kept to as many jobs as
/// there are claims at the same instant, however long it goes on.
#[sqlx::test(migrator = "store::MIGRATOR")]
async fn many_claims_at_once_are_fair_too(pool: PgPool) {
    const AT_ONCE: usize = 6;
    let (store, tenants) = some_tenants(&pool, 3).await;
    for tenant in &tenants {
        many(&store, *tenant, 80).await;
    }
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let store = store.clone();
        workers.spawn(async move {
            let mut projects = Vec::new();
            for _ in 0..120 / AT_ONCE {
                projects.push(claimed(&store).await.expect("a job waits").job.project_id);
            }
            projects
        });
    }
    let mut served: BTreeMap<ProjectId, usize> = BTreeMap::new();
    for project_id in workers.join_all().await.into_iter().flatten() {
        *served.entry(project_id).or_default() += 1;
    }
    assert!(
        served.values().all(|n| n.abs_diff(40) <= 2 * AT_ONCE),
        "{served:?}"
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_position_counts_what_will_be_claimed_before(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    many(&store, umbrella, 30).await;
    many(&store, acme, 2).await;
    let last = stored(&store, job(acme)).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let position = queue::position(&mut tx, last.id).await.unwrap().unwrap();
    let next = queue::next_position(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(next > position);
    let mut before = 0;
    while claimed(&store).await.unwrap().job.id != last.id {
        before += 1;
    }
    assert!(position.abs_diff(before) <= 1, "{position} and {before}");
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert_eq!(queue::position(&mut tx, last.id).await.unwrap(), None);
    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert_eq!(queue::position(&mut tx, last.id).await.unwrap(), None);
}
