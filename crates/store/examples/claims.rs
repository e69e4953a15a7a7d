//! What a claim costs when very many jobs wait, and then telling an event of what was claimed:
//! `claims [--rows N,N] [--workers N,N] [--claims N] [--tenants N]`.
//!
//! Makes a database of its own on the cluster of `DATABASE_URL` (an administrator's), fills it with jobs of which the first
//! tenant owns half, claims some with a number of workers at a time, each of which then appends as many events to the last
//! job that it claimed, and prints a JSON object per measurement (`what`: `claims`, `events`, and `nothing`, their floor:
//! transactions in which nothing is asked for): how many per second,
//! microseconds of one as its worker sees it, microseconds of Postgres' processor time where the cluster is on this
//! machine, and how many of the claims were of the tenant that owns half (`hog_share`).

#![expect(clippy::print_stdout, reason = "the measurements are what it is for")]

use std::str::FromStr;
use std::time::{Duration, Instant};

use domain::{DeviceKind, OrgId, ProjectId, WorkerKind};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};
use store::events::{self, NewEvent};
use store::lease::Lease;
use store::{MIGRATOR, Store, queue};
use time::OffsetDateTime;
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LEASE: Duration = Duration::from_hours(1);
const WORKER: WorkerKind = WorkerKind {
    device: DeviceKind::Cpu,
    memory_bytes: 1 << 40,
};
/// What Linux counts processor time in.
const TICKS_PER_SEC: f64 = 100.0;

struct Args {
    rows: Vec<u64>,
    workers: Vec<u32>,
    claims: u32,
    tenants: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = args()?;
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let cluster = PgConnectOptions::from_str(&url)?.disable_statement_logging();
    for rows in &args.rows {
        let name = format!("claims_{}", uuid::Uuid::now_v7().simple());
        let mut admin = cluster.connect().await?;
        run(&mut admin, format!("CREATE DATABASE {name}")).await?;
        let measured = measure(cluster.clone().database(&name), *rows, &args).await;
        run(&mut admin, format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        admin.close().await?;
        measured?;
    }
    Ok(())
}

fn args() -> Result<Args> {
    let mut args = Args {
        rows: vec![100_000, 1_000_000],
        workers: vec![1, 8, 32],
        claims: 4_000,
        tenants: 100,
    };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--rows" => args.rows = numbers(&value)?,
            "--workers" => args.workers = numbers(&value)?,
            "--claims" => args.claims = value.parse()?,
            "--tenants" => args.tenants = value.parse()?,
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    Ok(args)
}

fn numbers<T: FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<Vec<T>> {
    Ok(text
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?)
}

async fn run(connection: &mut sqlx::PgConnection, statement: String) -> Result<()> {
    sqlx::query(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

async fn measure(database: PgConnectOptions, rows: u64, args: &Args) -> Result<()> {
    let most = args.workers.iter().max().copied().unwrap_or(1);
    let pool = PgPoolOptions::new()
        .max_connections(most + 1)
        .connect_with(database)
        .await?;
    MIGRATOR.run(&pool).await?;
    let hog = fill(&pool, rows, args.tenants).await?;
    for workers in &args.workers {
        measure_workers(&pool, rows, *workers, args, hog).await?;
    }
    pool.close().await;
    Ok(())
}

/// `rows` jobs that wait, half of them the first tenant's, the rest evenly the others'. Returns the first tenant.
async fn fill(pool: &PgPool, rows: u64, tenants: u32) -> Result<ProjectId> {
    let mut connection = pool.acquire().await?;
    let org_id = OrgId::new();
    sqlx::query(
        "INSERT INTO organizations (id, name, slug, created_at) VALUES ($1, 'o', 'o', now())",
    )
    .bind(org_id.0)
    .execute(&mut *connection)
    .await?;
    let mut projects = Vec::new();
    for index in 0..tenants {
        let project_id = ProjectId::new();
        sqlx::query("INSERT INTO projects (id, org_id, name, slug, created_at) VALUES ($1, $2, 'p', $3, now())")
            .bind(project_id.0)
            .bind(org_id.0)
            .bind(format!("p{index}"))
            .execute(&mut *connection)
            .await?;
        projects.push(project_id.0);
    }
    sqlx::query(
        "INSERT INTO base_models (id, name, fingerprint, architecture, n_params, context_length, d_model, n_layers,
             n_heads, n_kv_heads, d_ff, vocab_size, size_bytes, files, created_at)
         VALUES (gen_random_uuid(), 'base', 'f', 'llama', 1, 1, 1, 1, 1, 1, 1, 1, 0, '[]', now())",
    )
    .execute(&mut *connection)
    .await?;
    // A trigger per row would count a project's jobs one by one; here they are counted once.
    sqlx::query("SET session_replication_role = replica")
        .execute(&mut *connection)
        .await?;
    let config = serde_json::to_value(domain::TrainingConfig::default())?;
    sqlx::query(
        "INSERT INTO jobs (id, project_id, org_id, status, model, base_model, training_file, config, hyperparameters,
             method, integrations, model_name, max_attempts, created_at)
         SELECT gen_random_uuid(), ($1::uuid[])[CASE WHEN n % 2 = 0 THEN 1 ELSE 2 + (n / 2) % ($2 - 1) END], $3,
                'validating_files', 'base', 'base', gen_random_uuid(), $4, '{}', '{}', '[]', 'ft:' || n, 4,
                now() - make_interval(secs => $5 - n)
         FROM generate_series(1, $5::bigint) n",
    )
    .bind(&projects)
    .bind(i64::from(tenants))
    .bind(org_id.0)
    .bind(config)
    .bind(i64::try_from(rows)?)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO project_queues (project_id, n_waiting) SELECT project_id, count(*) FROM jobs GROUP BY project_id",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query("SET session_replication_role = origin")
        .execute(&mut *connection)
        .await?;
    for statement in [
        "VACUUM ANALYZE jobs",
        "VACUUM ANALYZE project_queues",
        "CHECKPOINT",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(ProjectId(projects[0]))
}

async fn measure_workers(
    pool: &PgPool,
    rows: u64,
    workers: u32,
    args: &Args,
    hog: ProjectId,
) -> Result<()> {
    let per_worker = args.claims.div_ceil(workers);
    let store = Store::from_pool(pool.clone());
    // Connections and prepared statements are there before the clock runs.
    let last = all(store.clone(), vec![5; workers as usize], claims).await?;
    all(store.clone(), last, |store, claimed| async move {
        appends(store, claimed, 5).await
    })
    .await?;

    let clock = Clock::start(pool).await?;
    let took = all(store.clone(), vec![per_worker; workers as usize], nothing).await?;
    let line = clock.stop(pool, took.into_iter().flatten()).await?;
    print(line, "nothing", rows, workers);

    let clock = Clock::start(pool).await?;
    let claimed = all(store.clone(), vec![per_worker; workers as usize], claims).await?;
    let mut line = clock
        .stop(pool, claimed.iter().flatten().map(|(_, took)| *took))
        .await?;
    let is_hogs = |lease: &Lease| lease.project_id == hog;
    let of_hog = claimed.iter().flatten().filter(|(lease, _)| is_hogs(lease));
    let (n_of_hog, n) = (of_hog.count(), claimed.iter().flatten().count());
    line["hog_share"] = json!(f64::from(u32::try_from(n_of_hog)?) / f64::from(u32::try_from(n)?));
    print(line, "claims", rows, workers);

    let clock = Clock::start(pool).await?;
    let took = all(store, claimed, move |store, claimed| async move {
        appends(store, claimed, per_worker).await
    })
    .await?;
    let line = clock.stop(pool, took.into_iter().flatten()).await?;
    print(line, "events", rows, workers);
    Ok(())
}

fn print(mut line: Value, what: &str, rows: u64, workers: u32) {
    line["what"] = json!(what);
    line["rows"] = json!(rows);
    line["workers"] = json!(workers);
    println!("{line}");
}

/// The same by so many workers at once, each with its own input.
async fn all<I, T, F>(store: Store, inputs: Vec<I>, work: impl Fn(Store, I) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut tasks = JoinSet::new();
    for input in inputs {
        tasks.spawn(work(store.clone(), input));
    }
    tasks.join_all().await.into_iter().collect()
}

/// So many transactions without work: how long each took.
async fn nothing(store: Store, count: u32) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        store.worker_tx().await?.commit().await?;
        took.push(started.elapsed());
    }
    Ok(took)
}

/// So many claims one after another: whose each job was, and how long it took.
async fn claims(store: Store, count: u32) -> Result<Vec<(Lease, Duration)>> {
    let mut claimed = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        let mut tx = store.worker_tx().await?;
        let job = queue::claim(&mut tx, "bench", WORKER, LEASE).await?;
        tx.commit().await?;
        let job = job.ok_or("the queue is empty: ask for fewer claims")?;
        claimed.push((job.lease, started.elapsed()));
    }
    Ok(claimed)
}

/// So many events of the last job that was claimed, each in a transaction of its own: how long each took.
async fn appends(
    store: Store,
    claimed: Vec<(Lease, Duration)>,
    count: u32,
) -> Result<Vec<Duration>> {
    let (lease, _) = claimed.last().ok_or("no job was claimed")?;
    let mut took = Vec::new();
    for step in 0..count {
        let started = Instant::now();
        let data = json!({"step": step, "train_loss": 1.25});
        let event = NewEvent::metrics(format!("Step {step}"), data, OffsetDateTime::UNIX_EPOCH);
        let mut tx = store.tenant_tx(lease.project_id).await?;
        events::report(&mut tx, lease, &[event]).await?;
        tx.commit().await?;
        took.push(started.elapsed());
    }
    Ok(took)
}

/// Wall time, and what Postgres computes meanwhile.
struct Clock {
    started: Instant,
    cpu: Option<f64>,
}

impl Clock {
    async fn start(pool: &PgPool) -> Result<Self> {
        let cpu = postgres_cpu_secs(pool).await?;
        Ok(Self {
            started: Instant::now(),
            cpu,
        })
    }

    async fn stop(self, pool: &PgPool, took: impl Iterator<Item = Duration>) -> Result<Value> {
        let secs = self.started.elapsed().as_secs_f64();
        let cpu = self
            .cpu
            .zip(postgres_cpu_secs(pool).await?)
            .map(|(from, to)| to - from);
        let mut micros: Vec<f64> = took.map(|took| took.as_secs_f64() * 1e6).collect();
        micros.sort_by(f64::total_cmp);
        let at = |share: usize| {
            let index = micros.len() * share / 100;
            micros.get(index).copied().unwrap_or_default().round()
        };
        let n = f64::from(u32::try_from(micros.len())?);
        Ok(json!({
            "n": n, "per_sec": (n / secs).round(), "p50_us": at(50), "p99_us": at(99),
            "postgres_cpu_us": cpu.map(|cpu| (cpu / n * 1e6).round()),
        }))
    }
}

/// What the processes behind our connections have computed, where they can be seen.
async fn postgres_cpu_secs(pool: &PgPool) -> Result<Option<f64>> {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'",
    )
    .fetch_all(pool)
    .await?;
    let ticks = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let (user, system): (f64, f64) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(user + system)
    };
    let ticks: Option<Vec<f64>> = pids.iter().map(ticks).collect();
    Ok(ticks.map(|ticks| ticks.iter().sum::<f64>() / TICKS_PER_SEC))
}
