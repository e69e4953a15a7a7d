//! Reports to Weights & Biases: who may see them, when they wake, and that one reporter at a time counts.

use std::time::Duration;

use domain::{Job, JobError, JobId};
use serde_json::json;
use sqlx::PgPool;
use store::jobs::JobRequest;
use store::sealed::{Keyring, rotate};
use store::wandb::accounts::{self, Account};
use store::wandb::runs::{self, Next, Place, Run};
use store::{Store, StoreError, jobs};

use crate::given::{Tenant, claimed, job, now, request, two_tenants};

const LEASE: Duration = Duration::from_mins(2);
const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

pub(crate) fn account() -> Account {
    Account {
        base_url: "https://api.wandb.ai".to_owned(),
        entity: Some("team".to_owned()),
    }
}

fn ring(ids: &[&str]) -> Keyring {
    let keys = ids.iter().map(|id| {
        let byte = if *id == "old" { "11" } else { "22" };
        format!("{id}:{}", byte.repeat(32))
    });
    Keyring::parse(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

async fn set_account(store: &Store, tenant: Tenant, keyring: &Keyring, key: &str) {
    let mut tx = store.operator_tx().await.unwrap();
    accounts::set(&mut tx, keyring, tenant.project_id, &account(), key, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// The account and its key as the project's jobs report with them.
async fn opened(
    store: &Store,
    tenant: Tenant,
    keyring: &Keyring,
) -> Result<Option<(Account, String)>, StoreError> {
    let mut tx = store.tenant_tx(tenant.project_id).await?;
    let found = accounts::open(&mut tx, keyring).await?;
    Ok(found.map(|(account, key)| (account, key.expose_text().unwrap().to_owned())))
}

/// A job that reports to `n` places.
async fn reporting(store: &Store, tenant: Tenant, n: usize) -> Job {
    let job = job(tenant);
    let request = JobRequest {
        integrations: json!(vec![json!({"type": "wandb"}); n]),
        ..request()
    };
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    jobs::create(&mut tx, &job, &request).await.unwrap();
    runs::create(&mut tx, job.id, n, now()).await.unwrap();
    tx.commit().await.unwrap();
    job
}

/// A worker takes the job that waits longest and begins to train.
async fn start_next(store: &Store) -> Job {
    let claimed = claimed(store).await.unwrap();
    let job = claimed.job.start().unwrap();
    let mut tx = store.tenant_tx(job.project_id).await.unwrap();
    store::lease::save(&mut tx, &claimed.lease, &job)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    job
}

async fn cancel(store: &Store, tenant: Tenant, id: JobId) {
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    let found = jobs::find_for_update(&mut tx, id).await.unwrap().unwrap();
    jobs::save(&mut tx, &found.job.cancel(now()).unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn taken(store: &Store) -> Vec<Run> {
    let mut tx = store.worker_tx().await.unwrap();
    let runs = runs::take(&mut tx, 100, LEASE).await.unwrap();
    tx.commit().await.unwrap();
    runs
}

async fn sent(store: &Store, run: &Run, step: u64, next: Next) -> Result<(), StoreError> {
    let mut tx = store.tenant_tx(run.project_id).await?;
    runs::sent(&mut tx, run, step, step, next).await?;
    tx.commit().await
}

async fn failed(store: &Store, run: &Run, warns: bool) -> Result<bool, StoreError> {
    let mut tx = store.tenant_tx(run.project_id).await?;
    let again = runs::failed(&mut tx, run, "it is away", warns).await?;
    tx.commit().await?;
    Ok(again)
}

/// Whatever waits for a time has waited long enough.
async fn time_passes(pool: &PgPool) {
    sqlx::query("UPDATE wandb_runs SET wakes_at = now() WHERE wakes_at < 'infinity'")
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_key_opens_for_its_project_alone_and_after_a_rotation(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    set_account(&store, acme, &ring(&["old"]), "first").await;
    set_account(&store, acme, &ring(&["old"]), KEY).await;
    let expected = Some((account(), KEY.to_owned()));
    assert_eq!(
        opened(&store, acme, &ring(&["old"])).await.unwrap(),
        expected
    );
    assert_eq!(
        opened(&store, umbrella, &ring(&["old"])).await.unwrap(),
        None
    );

    assert_eq!(rotate(&store, &ring(&["new", "old"])).await.unwrap(), 1);
    assert_eq!(
        opened(&store, acme, &ring(&["new"])).await.unwrap(),
        expected
    );
    let refused = opened(&store, acme, &ring(&["old"])).await;
    assert!(
        matches!(refused, Err(StoreError::Sealed { .. })),
        "{refused:?}"
    );

    // Copied to another project's row it opens nothing.
    sqlx::query(
        "INSERT INTO wandb_accounts SELECT gen_random_uuid(), $1, api_key, base_url, entity, created_at
         FROM wandb_accounts",
    )
    .bind(umbrella.project_id.0)
    .execute(&pool)
    .await
    .unwrap();
    let refused = opened(&store, umbrella, &ring(&["new"])).await;
    assert!(
        matches!(refused, Err(StoreError::Sealed { .. })),
        "{refused:?}"
    );
    let mut tx = store.operator_tx().await.unwrap();
    for is_there in [true, false] {
        assert_eq!(
            accounts::remove(&mut tx, acme.project_id).await.unwrap(),
            is_there
        );
    }
    assert_eq!(
        accounts::find(&mut tx, acme.project_id).await.unwrap(),
        None
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_run_sleeps_until_its_job_moves(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let first = reporting(&store, acme, 2).await;
    reporting(&store, umbrella, 1).await;
    assert_eq!(taken(&store).await, [], "it waits, and so do its runs");
    assert_eq!(start_next(&store).await.id, first.id);
    let mut runs = taken(&store).await;
    runs.sort_by_key(|run| run.integration);
    let of = |run: &Run| (run.job_id, run.integration, run.next_line);
    assert_eq!(
        runs.iter().map(of).collect::<Vec<_>>(),
        [(first.id, 0, 0), (first.id, 1, 0)]
    );
    assert_eq!(taken(&store).await, [], "they are taken");

    sent(&store, &runs[0], 7, Next::After(Duration::from_mins(1)))
        .await
        .unwrap();
    sent(&store, &runs[1], 7, Next::Asleep).await.unwrap();
    assert_eq!(
        taken(&store).await,
        [],
        "the one's minute is not over, the other sleeps"
    );
    time_passes(&pool).await;
    let again = taken(&store).await;
    let [run] = &again[..] else {
        panic!("{again:?}")
    };
    assert_eq!((run.integration, run.last_step, run.next_line), (0, 7, 7));

    // While somebody reports, the job ends: the end is not missed.
    cancel(&store, acme, first.id).await;
    sent(&store, run, 8, Next::Asleep).await.unwrap();
    let last = taken(&store).await;
    assert_eq!(last.len(), 2, "{last:?}");
    for run in &last {
        sent(&store, run, 9, Next::Finished).await.unwrap();
    }
    time_passes(&pool).await;
    assert_eq!(taken(&store).await, [], "what is over stays so");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn who_comes_back_late_writes_nothing(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    reporting(&store, acme, 1).await;
    start_next(&store).await;
    let dead = taken(&store).await.remove(0);
    time_passes(&pool).await;
    let next = taken(&store).await.remove(0);
    assert_eq!(
        (next.last_step, next.next_line),
        (dead.last_step, dead.next_line)
    );
    assert_ne!(next.lease_token, dead.lease_token);

    let place = Place {
        entity: "team".to_owned(),
        project: "support".to_owned(),
    };
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let late = runs::made(&mut tx, &dead, &place).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    drop(tx);
    let late = sent(&store, &dead, 9, Next::Finished).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");
    let late = failed(&store, &dead, true).await;
    assert!(matches!(late, Err(StoreError::LeaseLost)), "{late:?}");

    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    runs::made(&mut tx, &next, &place).await.unwrap();
    tx.commit().await.unwrap();
    sent(&store, &next, 3, Next::After(Duration::ZERO))
        .await
        .unwrap();
    let run = taken(&store).await.remove(0);
    assert_eq!(run.place, Some(place));
    assert_eq!(
        (run.last_step, run.is_warned, run.n_failures),
        (3, false, 0)
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn failures_keep_to_their_pauses_and_end(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let job = reporting(&store, acme, 1).await;
    start_next(&store).await;
    let run = taken(&store).await.remove(0);
    assert!(failed(&store, &run, true).await.unwrap());
    // The job's end is no reason to hurry.
    cancel(&store, acme, job.id).await;
    assert_eq!(taken(&store).await, []);
    // A new key is one.
    set_account(&store, acme, &ring(&["new"]), KEY).await;
    let run = taken(&store).await.remove(0);
    assert_eq!((run.n_failures, run.is_warned), (1, true));
    sent(&store, &run, 1, Next::After(Duration::ZERO))
        .await
        .unwrap();

    for n in 0.. {
        let run = taken(&store).await.remove(0);
        assert_eq!((run.n_failures, run.is_warned), (n, true));
        if !failed(&store, &run, false).await.unwrap() {
            assert_eq!(n, 12);
            break;
        }
        time_passes(&pool).await;
    }
    time_passes(&pool).await;
    set_account(&store, acme, &ring(&["new"]), KEY).await;
    assert_eq!(taken(&store).await, [], "it was given up");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn one_project_s_thousand_runs_leave_room_for_another_s(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    for _ in 0..3 {
        let job = reporting(&store, acme, 5).await;
        cancel(&store, acme, job.id).await;
    }
    let theirs = reporting(&store, umbrella, 1).await;
    cancel(&store, umbrella, theirs.id).await;
    let runs = taken(&store).await;
    let n_of = |tenant: Tenant| {
        let of = |run: &&Run| run.project_id == tenant.project_id;
        runs.iter().filter(of).count()
    };
    assert_eq!((n_of(acme), n_of(umbrella)), (4, 1));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_that_the_queue_fails_wakes_its_runs_too(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    reporting(&store, acme, 1).await;
    start_next(&store).await;
    let run = taken(&store).await.remove(0);
    sent(&store, &run, 1, Next::Asleep).await.unwrap();
    sqlx::query("UPDATE jobs SET max_attempts = attempt")
        .execute(&pool)
        .await
        .unwrap();
    let reaped = crate::given::expire_and_reap(&store, &pool).await;
    assert!(reaped[0].failed);
    assert_eq!(taken(&store).await.len(), 1);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let found = jobs::find(&mut tx, run.job_id).await.unwrap().unwrap();
    let JobError { code, .. } = found.job.error.unwrap();
    assert_eq!(code, "worker_lost");
}
