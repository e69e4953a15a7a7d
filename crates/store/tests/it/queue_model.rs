//! Random sequences of everything that can happen to the queue, against Postgres and a small model of it in memory.
//!
//! After every operation each job stands where the model says: none is lost, none is held twice, none that ended moves
//! again, attempts are bounded, a lease that is gone writes nothing, and projects that wait are served by their weights.
//! 1,000 sequences unless `ATTUNE_QUEUE_SEQUENCES` says another number.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::job::{JobError, Outcome};
use domain::limits::MAX_ATTEMPTS;
use domain::{FileId, Job, JobId, JobStatus};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::PgPool;
use sqlx::types::Uuid;
use store::queue::Wish;
use store::quotas::{self, Quotas};
use store::shares::{self, Share};
use store::{Lease, Store, StoreError, jobs, lease, queue};

use crate::archiving::archived;
use crate::given::{ANY_WORKER, LEASE, Tenant, job, now, request, some_tenants};

/// Weights of the tenants.
const WEIGHTS: [f64; 3] = [1.0, 1.0, 3.0];
/// How many jobs of the second tenant run at once.
const CAP: usize = 2;
/// Turns that a project may make up for whose jobs nobody could take; see the migration.
const CREDIT: f64 = 32.0;
const LONGEST: usize = 30;

/// Numbers choose among what there is at that moment.
#[derive(Debug, Clone)]
enum Op {
    Submit(usize),
    Claim,
    Heartbeat(usize),
    Start(usize),
    Progress(usize),
    Succeed(usize),
    Fail(usize),
    Release(usize),
    RetryLater(usize),
    /// The worker is never heard of again, and its lease runs out.
    Crash(usize),
    /// Every lease runs out, and every pause between attempts is over.
    ClockJump,
    Reap,
    Cancel(usize),
    Pause(usize),
    Resume(usize),
    /// The tenant's project is over: all that it has ends, and nothing new begins.
    Archive(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let any = 0..64_usize;
    prop_oneof![
        6 => (0..WEIGHTS.len()).prop_map(Op::Submit),
        8 => Just(Op::Claim),
        2 => any.clone().prop_map(Op::Heartbeat),
        2 => any.clone().prop_map(Op::Start),
        1 => any.clone().prop_map(Op::Progress),
        2 => any.clone().prop_map(Op::Succeed),
        1 => any.clone().prop_map(Op::Fail),
        1 => any.clone().prop_map(Op::Release),
        1 => any.clone().prop_map(Op::RetryLater),
        2 => any.clone().prop_map(Op::Crash),
        1 => Just(Op::ClockJump),
        2 => Just(Op::Reap),
        1 => any.clone().prop_map(Op::Cancel),
        1 => any.clone().prop_map(Op::Pause),
        1 => any.prop_map(Op::Resume),
        1 => (0..WEIGHTS.len()).prop_map(Op::Archive),
    ]
}

/// A job as it ought to be.
#[derive(Debug, Clone)]
struct Expected {
    job: Job,
    tenant: usize,
    holder: Option<Uuid>,
    max_attempts: i32,
    /// Its lease has run out.
    expired: bool,
    /// It pauses between attempts.
    delayed: bool,
}

impl Expected {
    fn waits(&self) -> bool {
        let status = self.job.status;
        self.holder.is_none() && matches!(status, JobStatus::ValidatingFiles | JobStatus::Queued)
    }

    fn end_attempt(&mut self, job: Job) {
        (self.job, self.holder, self.expired) = (job, None, false);
    }
}

#[derive(Default)]
struct Model {
    /// In the order in which they were made.
    jobs: Vec<Expected>,
    /// Every lease there ever was.
    leases: Vec<Lease>,
    /// Claims of two tenants since both have had something to claim without a break.
    served: BTreeMap<(usize, usize), [f64; 2]>,
    /// Whether a tenant had jobs that nobody could take, since it last had none at all.
    owed: [bool; WEIGHTS.len()],
    /// Whose projects are over.
    archived: [bool; WEIGHTS.len()],
}

impl Model {
    fn eligible(&self, tenant: usize) -> impl Iterator<Item = &Expected> {
        let of_tenant = move |job: &&Expected| job.tenant == tenant;
        let n_running = self.jobs.iter().filter(of_tenant);
        let n_running = n_running.filter(|job| job.holder.is_some()).count();
        let capped = tenant == 1 && n_running >= CAP;
        let free = move |job: &&Expected| !capped && job.waits() && !job.delayed;
        self.jobs.iter().filter(of_tenant).filter(free)
    }

    fn is_eligible(&self, tenant: usize) -> bool {
        self.eligible(tenant).next().is_some()
    }

    /// The job that this lease still holds.
    fn held(&mut self, lease: &Lease) -> Option<&mut Expected> {
        let token = Some(lease.lease_token.0);
        self.jobs.iter_mut().find(|job| job.holder == token)
    }

    /// Counts a claim; nobody may be further ahead than its share and what others may make up for.
    fn serve(&mut self, tenant: usize) -> Result<(), TestCaseError> {
        for other in (0..WEIGHTS.len()).filter(|other| *other != tenant) {
            if !self.is_eligible(other) {
                continue;
            }
            let pair = (tenant.min(other), tenant.max(other));
            let served = self.served.entry(pair).or_default();
            served[usize::from(tenant > other)] += 1.0;
            let [a, b] = [served[0] / WEIGHTS[pair.0], served[1] / WEIGHTS[pair.1]];
            let owed = self.owed[pair.0] || self.owed[pair.1];
            let credit = if owed { CREDIT } else { 0.0 };
            let bound = 1.0 / WEIGHTS[pair.0] + 1.0 / WEIGHTS[pair.1] + credit;
            // Thirds are not exact: 2 - 2/3 is more than 1 + 1/3.
            prop_assert!(
                (a - b).abs() <= bound + 1e-9,
                "{pair:?} were served {served:?}"
            );
        }
        Ok(())
    }

    fn forget_breaks(&mut self) {
        let waits: Vec<bool> = (0..WEIGHTS.len()).map(|t| self.is_eligible(t)).collect();
        for tenant in (0..WEIGHTS.len()).filter(|tenant| !waits[*tenant]) {
            let mut jobs = self.jobs.iter().filter(|job| job.tenant == tenant);
            self.owed[tenant] = jobs.any(Expected::waits);
        }
        self.served.retain(|(a, b), _| waits[*a] && waits[*b]);
    }
}

struct World {
    store: Store,
    pool: PgPool,
    tenants: Vec<Tenant>,
    model: Model,
}

type Checked = Result<(), TestCaseError>;

impl World {
    async fn play(&mut self, ops: Vec<Op>) -> Checked {
        self.clear().await;
        for op in ops {
            self.apply(op).await?;
            self.model.forget_breaks();
            self.compare().await?;
        }
        Ok(())
    }

    async fn clear(&mut self) {
        self.model = Model::default();
        let clear =
            "WITH gone AS (DELETE FROM jobs), open AS (UPDATE projects SET archived_at = NULL)
                     UPDATE project_queues SET n_waiting = 0, n_running = 0, closed_at = NULL";
        sqlx::query(clear).execute(&self.pool).await.unwrap();
    }

    async fn apply(&mut self, op: Op) -> Checked {
        match op {
            Op::Submit(tenant) => return self.submit(tenant).await,
            Op::Archive(tenant) => return self.archive(tenant).await,
            Op::Claim => return self.claim().await,
            Op::ClockJump => self.jump().await,
            Op::Reap => return self.reap().await,
            Op::Cancel(n) => return self.ask(n, |job| job.cancel(now())).await,
            Op::Pause(n) => return self.ask(n, Job::pause).await,
            Op::Resume(n) => return self.ask(n, Job::resume).await,
            Op::Heartbeat(n)
            | Op::Start(n)
            | Op::Progress(n)
            | Op::Succeed(n)
            | Op::Fail(n)
            | Op::Release(n)
            | Op::RetryLater(n)
            | Op::Crash(n) => {
                if !self.model.leases.is_empty() {
                    let lease = self.model.leases[n % self.model.leases.len()].clone();
                    return self.work(op, &lease).await;
                }
            }
        }
        Ok(())
    }

    async fn submit(&mut self, tenant: usize) -> Checked {
        let job = job(self.tenants[tenant]);
        let mut tx = self.store.tenant_tx(job.project_id).await.unwrap();
        let made = jobs::create(&mut tx, &job, &request()).await;
        if self.model.archived[tenant] {
            prop_assert!(matches!(made, Err(StoreError::Archived)), "{made:?}");
            return Ok(());
        }
        made.unwrap();
        tx.commit().await.unwrap();
        self.model.jobs.push(Expected {
            job,
            tenant,
            holder: None,
            max_attempts: MAX_ATTEMPTS,
            expired: false,
            delayed: false,
        });
        Ok(())
    }

    async fn archive(&mut self, tenant: usize) -> Checked {
        let owner = self.tenants[tenant];
        let tx = self.store.org_tx(owner.org_id).await.unwrap();
        let (tx, stopped) = archived(tx, owner).await;
        tx.commit().await.unwrap();
        let mut n_jobs = 0;
        for held in &mut self.model.jobs {
            if held.tenant == tenant && !held.job.status.is_final() {
                held.end_attempt(held.job.clone().cancel(now()).unwrap());
                n_jobs += 1;
            }
        }
        let was_archived = std::mem::replace(&mut self.model.archived[tenant], true);
        let expected = (!was_archived).then_some(n_jobs);
        prop_assert_eq!(stopped.map(|stopped| stopped.n_jobs), expected);
        Ok(())
    }

    async fn claim(&mut self) -> Checked {
        let mut tx = self.store.worker_tx().await.unwrap();
        let claimed = queue::claim(&mut tx, "w", ANY_WORKER, LEASE).await.unwrap();
        tx.commit().await.unwrap();
        let model = &mut self.model;
        let Some(claimed) = claimed else {
            let waits = (0..WEIGHTS.len()).find(|tenant| model.is_eligible(*tenant));
            prop_assert_eq!(waits, None, "a tenant's job was not found");
            return Ok(());
        };
        let of_job = |tenant: &Tenant| tenant.project_id == claimed.job.project_id;
        let tenant = self.tenants.iter().position(of_job).unwrap();
        let first = model
            .eligible(tenant)
            .map(|expected| expected.job.id)
            .next();
        prop_assert_eq!(Some(claimed.job.id), first, "not the tenant's oldest");
        model.serve(tenant)?;
        let expected = model.jobs.iter_mut().find(|e| e.job.id == claimed.job.id);
        let expected = expected.unwrap();
        expected.job.attempt += 1;
        prop_assert!(expected.job.attempt <= expected.max_attempts);
        prop_assert_eq!(claimed.max_attempts, expected.max_attempts);
        expected.holder = Some(claimed.lease.lease_token.0);
        model.leases.push(claimed.lease);
        Ok(())
    }

    /// What a worker does. It works if the lease is still good, and is refused if not.
    async fn work(&mut self, op: Op, lease: &Lease) -> Checked {
        let done = self.write(&op, lease).await;
        let Some(held) = self.model.held(lease) else {
            let refused = matches!(op, Op::Crash(_)) || matches!(done, Err(StoreError::LeaseLost));
            prop_assert!(refused, "{op:?} with a lease that is gone: {done:?}");
            return Ok(());
        };
        let is_last = held.job.attempt >= held.max_attempts;
        let wish = match done {
            // Nothing has changed; the attempt goes on to whatever it does next.
            Err(StoreError::NoAttemptLeft) if is_last && matches!(op, Op::RetryLater(_)) => {
                return Ok(());
            }
            Ok(wish) => wish,
            Err(error) => return Err(TestCaseError::fail(format!("{op:?}: {error}"))),
        };
        let job = held.job.clone();
        let is_paused = job.status == JobStatus::Paused;
        match op {
            Op::Heartbeat(_) => {
                prop_assert_eq!(wish == Wish::Pause, is_paused);
                held.expired = false;
            }
            Op::Start(_) if !is_paused => held.job = job.start().unwrap(),
            Op::Progress(_) if job.status == JobStatus::Queued => held.job = job.start().unwrap(),
            Op::Succeed(_) => held.end_attempt(succeeded(job)),
            Op::Fail(_) => held.end_attempt(failed(job)),
            Op::Release(_) => {
                held.max_attempts += 1;
                held.end_attempt(job.requeue().unwrap());
            }
            Op::RetryLater(_) => {
                prop_assert!(!is_last, "handed back after the last attempt");
                held.delayed = true;
                held.end_attempt(job.requeue().unwrap());
            }
            Op::Crash(_) => held.expired = true,
            _ => {}
        }
        Ok(())
    }

    async fn write(&self, op: &Op, lease: &Lease) -> Result<Wish, StoreError> {
        if let Op::Heartbeat(_) = op {
            let mut tx = self.store.worker_tx().await?;
            let wish = queue::heartbeat(&mut tx, lease, LEASE).await?;
            tx.commit().await?;
            return Ok(wish);
        }
        let mut tx = self.store.tenant_tx(lease.project_id).await?;
        match op {
            Op::Progress(_) => lease::progress(&mut tx, lease, None).await?,
            Op::Release(_) => drop(lease::release(&mut tx, lease, Duration::ZERO).await?),
            Op::Crash(_) => {
                self.expire("lease_token = $1", Some(lease.lease_token.0))
                    .await;
            }
            Op::RetryLater(_) => {
                drop(lease::retry_later(&mut tx, lease, queue::backoff(9), "no room").await?);
            }
            _ => {
                let job = lease::job(&mut tx, lease).await?;
                let job = match op {
                    Op::Start(_) if job.status == JobStatus::Paused => job,
                    Op::Start(_) => job.start()?,
                    Op::Succeed(_) => succeeded(job),
                    _ => failed(job),
                };
                lease::save(&mut tx, lease, &job).await?;
            }
        }
        tx.commit().await?;
        Ok(Wish::GoOn)
    }

    async fn expire(&self, which: &str, token: Option<Uuid>) {
        let sql =
            format!("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE {which}");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(token);
        query.execute(&self.pool).await.unwrap();
    }

    async fn jump(&mut self) {
        self.expire("lease_token IS NOT NULL AND $1::uuid IS NULL", None)
            .await;
        let over = "UPDATE jobs SET next_attempt_at = now() WHERE next_attempt_at > now()";
        sqlx::query(over).execute(&self.pool).await.unwrap();
        for expected in &mut self.model.jobs {
            expected.delayed = false;
            expected.expired = expected.holder.is_some();
        }
    }

    async fn reap(&mut self) -> Checked {
        let mut tx = self.store.worker_tx().await.unwrap();
        let mut reaped = queue::reap(&mut tx, 100).await.unwrap();
        tx.commit().await.unwrap();
        let mut expected = Vec::new();
        for job in self.model.jobs.iter_mut().filter(|job| job.expired) {
            let ended = job.job.attempt >= job.max_attempts;
            let after = job.job.clone();
            job.end_attempt(if ended {
                failed(after)
            } else {
                after.requeue().unwrap()
            });
            expected.push((job.job.id, ended));
        }
        expected.sort();
        reaped.sort_by_key(|reaped| reaped.job_id);
        let reaped: Vec<_> = reaped.iter().map(|r| (r.job_id, r.failed)).collect();
        prop_assert_eq!(reaped, expected);
        Ok(())
    }

    /// What a tenant asks of one of its jobs, as the API does it.
    async fn ask<E: std::fmt::Debug>(
        &mut self,
        n: usize,
        change: impl Fn(Job) -> Result<Job, E>,
    ) -> Checked {
        if self.model.jobs.is_empty() {
            return Ok(());
        }
        let n = n % self.model.jobs.len();
        let expected = &mut self.model.jobs[n];
        let mut tx = self.store.tenant_tx(expected.job.project_id).await.unwrap();
        let stored = jobs::find_for_update(&mut tx, expected.job.id).await;
        let changed = change(stored.unwrap().unwrap().job);
        prop_assert_eq!(changed.is_ok(), change(expected.job.clone()).is_ok());
        if let Ok(changed) = changed {
            jobs::save(&mut tx, &changed).await.unwrap();
            tx.commit().await.unwrap();
            if changed.status.is_final() {
                expected.end_attempt(changed);
            } else {
                expected.job = changed;
            }
        }
        Ok(())
    }

    async fn compare(&self) -> Checked {
        let rows: Vec<(Uuid, String, Option<Uuid>, i32, i32)> = sqlx::query_as(
            "SELECT id, status, lease_token, attempt, max_attempts FROM jobs ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let row = |e: &Expected| {
            let status = e.job.status.as_str().to_owned();
            (e.job.id.0, status, e.holder, e.job.attempt, e.max_attempts)
        };
        let mut expected: Vec<_> = self.model.jobs.iter().map(row).collect();
        expected.sort();
        prop_assert_eq!(rows, expected);
        let counts: Vec<(Uuid, i64, i64)> = sqlx::query_as(
            "SELECT project_id, n_waiting, n_running FROM project_queues ORDER BY project_id",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let count = |tenant: usize, is: fn(&Expected) -> bool| {
            let of_tenant = self.model.jobs.iter().filter(|job| job.tenant == tenant);
            i64::try_from(of_tenant.filter(|job| is(job)).count()).unwrap()
        };
        let mut expected: Vec<_> = (0..WEIGHTS.len())
            .map(|tenant| {
                let project = self.tenants[tenant].project_id.0;
                let waiting = count(tenant, Expected::waits);
                (project, waiting, count(tenant, |job| job.holder.is_some()))
            })
            .collect();
        expected.sort();
        prop_assert_eq!(counts, expected);
        Ok(())
    }
}

fn succeeded(job: Job) -> Job {
    let outcome = Outcome {
        trained_tokens: 1,
        result_file: FileId(Uuid::nil()),
    };
    job.succeed(&outcome, now()).unwrap()
}

fn failed(job: Job) -> Job {
    let error = JobError {
        code: "c".to_owned(),
        message: "m".to_owned(),
        param: None,
    };
    job.fail(error, now()).unwrap()
}

async fn world(pool: PgPool) -> World {
    let (store, tenants) = some_tenants(&pool, WEIGHTS.len()).await;
    let mut tx = store.operator_tx().await.unwrap();
    for (index, tenant) in tenants.iter().enumerate() {
        let share = Share {
            weight: WEIGHTS[index],
            ..Share::default()
        };
        shares::set(&mut tx, tenant.project_id, share)
            .await
            .unwrap();
        let cap = Quotas {
            max_running_jobs: (index == 1).then_some(CAP.try_into().unwrap()),
            ..Quotas::default()
        };
        quotas::set_ceiling(&mut tx, tenant.org_id, tenant.project_id, &cap)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    World {
        store,
        pool,
        tenants,
        model: Model::default(),
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn whatever_happens_the_queue_is_what_the_model_says(pool: PgPool) {
    let sequences = std::env::var("ATTUNE_QUEUE_SEQUENCES").ok();
    let config = Config {
        cases: sequences.map_or(1000, |n| n.parse().expect("a number of sequences")),
        failure_persistence: None,
        ..Config::default()
    };
    let world = tokio::sync::Mutex::new(world(pool).await);
    let handle = tokio::runtime::Handle::current();
    // Proptest calls what it tests from outside of any runtime.
    let checked = tokio::task::spawn_blocking(move || {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        runner.run(&prop::collection::vec(op(), 1..=LONGEST), |ops| {
            handle.block_on(async { world.lock().await.play(ops).await })
        })
    });
    checked.await.unwrap().unwrap();
}

#[test]
fn ids_are_told_apart_in_the_order_of_their_making() {
    // The model takes the oldest job for the first in order, also among those of one instant.
    let ids: Vec<JobId> = (0..100).map(|_| JobId::new()).collect();
    assert!(ids.is_sorted());
}
