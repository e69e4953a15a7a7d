//! The logins of the services hold no rights of their own and can take on only the roles they need.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use store::migrate::{API_LOGIN, INFERENCE_LOGIN, WORKER_LOGIN};

const GROUPS: [&str; 7] = [
    "app_tenant",
    "app_auth",
    "app_feed",
    "app_org",
    "app_worker",
    "app_operator",
    "attune_owner",
];

/// A session of this login, as far as rights go. Not a pooled one: the change cannot be undone for the next test.
async fn session(pool: &PgPool, login: &str) -> PgConnection {
    let mut connection = pool.acquire().await.unwrap().detach();
    run(
        &mut connection,
        &format!("SET SESSION AUTHORIZATION {login}"),
    )
    .await
    .unwrap();
    connection
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), String> {
    let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await;
    done.map(|_| ()).map_err(|error| error.to_string())
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_login_without_a_role_is_refused_everywhere(pool: PgPool) {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&pool)
            .await
            .unwrap();
    for login in [API_LOGIN, WORKER_LOGIN, INFERENCE_LOGIN] {
        let mut connection = session(&pool, login).await;
        for table in &tables {
            let refusal = run(&mut connection, &format!("SELECT * FROM {table}"))
                .await
                .unwrap_err();
            assert!(
                refusal.contains("permission denied"),
                "{login}, {table}: {refusal}"
            );
        }
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_login_takes_on_only_its_roles(pool: PgPool) {
    for (login, allowed) in [
        (
            API_LOGIN,
            &["app_tenant", "app_auth", "app_feed", "app_org"][..],
        ),
        (WORKER_LOGIN, &["app_tenant", "app_worker"]),
        (INFERENCE_LOGIN, &["app_tenant"]),
    ] {
        let mut connection = session(&pool, login).await;
        for group in GROUPS {
            let taken = run(&mut connection, &format!("SET ROLE {group}")).await;
            assert_eq!(
                taken.is_ok(),
                allowed.contains(&group),
                "{login} as {group}: {taken:?}"
            );
            run(&mut connection, "RESET ROLE").await.unwrap();
        }
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn no_role_escapes_row_security(pool: PgPool) {
    let escaping: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles
         WHERE (rolname LIKE 'app\\_%' OR rolname LIKE 'attune\\_%')
           AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb
                OR (rolcanlogin AND rolinherit))",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(escaping, Vec::<String>::new());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn each_transaction_keeps_to_its_tables(pool: PgPool) {
    for (group, forbidden) in [
        ("app_tenant", "SELECT hash FROM api_keys"),
        ("app_tenant", "UPDATE base_models SET name = 'x'"),
        ("app_worker", "SELECT * FROM api_keys"),
        ("app_worker", "SELECT * FROM job_metrics"),
        ("app_worker", "DELETE FROM jobs"),
        ("app_auth", "SELECT * FROM jobs"),
        ("app_auth", "UPDATE api_keys SET expires_at = NULL"),
        ("app_tenant", "UPDATE job_events SET message = 'x'"),
        ("app_worker", "SELECT training_speed('x', NULL)"),
        ("app_feed", "SELECT config FROM jobs"),
        ("app_feed", "SELECT message FROM job_events"),
        ("app_worker", "SELECT body FROM idempotency_keys"),
        ("app_auth", "UPDATE users SET role = 'owner'"),
        ("app_org", "SELECT hash FROM api_keys"),
        ("app_org", "UPDATE api_keys SET hash = ''"),
        ("app_org", "UPDATE api_keys SET scopes = '{}'"),
        ("app_org", "UPDATE organizations SET name = 'x'"),
        ("app_org", "SELECT * FROM jobs"),
        ("app_org", "SELECT * FROM files"),
        ("app_org", "SELECT adapter_prefix FROM fine_tuned_models"),
        ("app_tenant", "SELECT * FROM users"),
        (
            "app_tenant",
            "INSERT INTO checkpoint_permissions SELECT * FROM checkpoint_permissions",
        ),
        ("app_tenant", "UPDATE wandb_accounts SET base_url = 'x'"),
        ("app_worker", "SELECT * FROM wandb_accounts"),
        ("app_operator", "SELECT last_error FROM wandb_runs"),
        ("app_tenant", "UPDATE project_buckets SET endpoint = 'x'"),
        ("app_tenant", "DELETE FROM project_buckets"),
        ("app_worker", "UPDATE project_buckets SET endpoint = 'x'"),
        ("app_auth", "SELECT * FROM project_buckets"),
        ("app_org", "SELECT * FROM project_buckets"),
        ("app_operator", "SELECT * FROM jobs"),
        ("app_operator", "SELECT * FROM files"),
    ] {
        let mut connection = pool.acquire().await.unwrap().detach();
        run(&mut connection, &format!("SET ROLE {group}"))
            .await
            .unwrap();
        let refusal = run(&mut connection, forbidden).await.unwrap_err();
        assert!(
            refusal.contains("permission denied"),
            "{group}: {forbidden}: {refusal}"
        );
    }
}
