//! No tenant sees another's rows, in any table, now or after the next migration.

use domain::{FileId, FineTunedModelId, OrgId, OrgRole, Role, ServiceAccountId, WebhookEventType};
use sqlx::PgPool;
use store::api_keys::{self, NewApiKey, Pepper};
use store::audit::{self, Act};
use store::batches::lines;
use store::deletions::{self, Target};
use store::events::{self, EventLevel, NewEvent};
use store::files::{self, File, FileStatus};
use store::idempotency::{self, Answer, Mark, Request};
use store::quotas::{self, Quotas};
use store::service_accounts::{self, ServiceAccount};
use store::wandb::{accounts, runs};
use store::webhooks;
use store::{
    Store, TenantTx, batches, checkpoints, jobs, members, metrics, models, permissions, projects,
    uploads, users,
};

use crate::archiving::archived;
use crate::audit::actor;
use crate::batches::{batch, line, turn};
use crate::buckets::{set, settings};
use crate::given::{Tenant, keyring, listen, now, running, two_tenants};
use crate::leases::{checkpoint, step};
use crate::uploads::{part, upload};
use crate::wandb;

/// Tables without row security. Every other one is a tenant's or an organization's.
const NOBODYS: [&str; 3] = [
    // Which migrations were made. No role of ours may read it.
    "_sqlx_migrations",
    // The operator imports them for everybody, and every tenant may see them all.
    "base_models",
    // Processes of the installation; a tenant reads what kinds there are, not their names.
    "workers",
];

/// Tables that a tenant's role may not read at all.
const CLOSED_TO_TENANTS: [&str; 6] = [
    "api_keys",
    "audit_heads",
    "audit_log",
    "project_members",
    "service_accounts",
    "users",
];

/// Rows that never change have no use for the time of their last change, and a chain's end says when in its last row.
const WITHOUT_TIMES: [&str; 2] = ["audit_heads", "audit_log"];

/// Every table there is, whatever its columns, but those that are nobody's.
async fn guarded_tables(pool: &PgPool) -> Vec<String> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'f', 'm') ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for table in NOBODYS {
        assert!(all.iter().any(|name| name == table), "{table} is no more");
    }
    let guarded = all.into_iter();
    guarded
        .filter(|name| !NOBODYS.contains(&name.as_str()))
        .collect()
}

/// What `role` counts in `table`, with `project_id` set or not. `Err` is the refusal.
async fn count_as(
    pool: &PgPool,
    role: &str,
    project_id: Option<&str>,
    table: &str,
) -> Result<i64, sqlx::Error> {
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::query("SELECT set_config('role', $1, false), set_config('app.project_id', $2, false)")
        .bind(role)
        .bind(project_id.unwrap_or_default())
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(&mut connection)
        .await
}

pub(crate) fn file(tenant: Tenant) -> File {
    File {
        id: FileId::new(),
        project_id: tenant.project_id,
        filename: "train.jsonl".to_owned(),
        purpose: "fine-tune".to_owned(),
        size_bytes: 3,
        sha256: "0".repeat(64),
        n_lines: Some(1),
        status: FileStatus::Processed,
        status_details: None,
        created_at: now(),
        expires_at: None,
    }
}

/// One row in every table that a tenant owns.
async fn fill(store: &Store, tenant: Tenant) {
    // First: a project that has objects is given none.
    set(store, tenant.project_id, &settings("a"), "secret").await;
    let claimed = running(store, tenant).await;
    let lease = &claimed.lease;
    let limits = Quotas {
        max_trained_tokens_per_day: Some(1),
        ..Quotas::default()
    };
    let mut tx = store.operator_tx().await.unwrap();
    quotas::set(&mut tx, tenant.org_id, tenant.project_id, &limits)
        .await
        .unwrap();
    let (account, project_id) = (wandb::account(), tenant.project_id);
    accounts::set(&mut tx, &keyring(), project_id, &account, "key", now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    files::create(&mut tx, &file(tenant)).await.unwrap();
    let event = NewEvent::message(EventLevel::Info, "hello", now());
    events::report(&mut tx, lease, &[event]).await.unwrap();
    metrics::record(&mut tx, lease, &[step(1)]).await.unwrap();
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 1))
        .await
        .unwrap();
    let prefix = format!("{}/models/m/", tenant.project_id);
    models::publish(&mut tx, lease, FineTunedModelId::new(), &prefix, 10, now())
        .await
        .unwrap();
    let upload = upload(tenant);
    uploads::create(&mut tx, &upload).await.unwrap();
    uploads::add_part(&mut tx, &part(&upload)).await.unwrap();
    batches::create(&mut tx, &batch(tenant, 0)).await.unwrap();
    quotas::admit_job(&mut tx, &claimed.job, 1, now())
        .await
        .unwrap();
    deletions::enqueue(&mut tx, &Target::Object("k".to_owned()))
        .await
        .unwrap();
    runs::create(&mut tx, claimed.job.id, 1, now())
        .await
        .unwrap();
    keep_answer(&mut tx).await;
    hear(&mut tx).await;
    tx.commit().await.unwrap();
    let (_, turn) = turn(store).await.expect("a batch waits");
    let mut tx = store.tenant_tx(turn.project_id).await.unwrap();
    lines::create(&mut tx, &turn, &[line(1)]).await.unwrap();
    tx.commit().await.unwrap();
    administer(store, tenant, &claimed.job.model_name).await;
}

/// One row in every table that its organization's administrators write for a tenant.
async fn administer(store: &Store, tenant: Tenant, model: &str) {
    let Tenant { org_id, project_id } = tenant;
    let mut tx = store.org_tx(org_id).await.unwrap();
    let account = ServiceAccount {
        id: ServiceAccountId::new(),
        project_id,
        org_id,
        name: "ci".to_owned(),
        role: Role::Member,
        created_at: now(),
    };
    service_accounts::create(&mut tx, &account).await.unwrap();
    let key = NewApiKey {
        org_id,
        project_id: Some(project_id),
        name: "key".to_owned(),
        expires_at: None,
    };
    let pepper = Pepper::new([7; 32]);
    api_keys::create(&mut tx, &pepper, &key, now())
        .await
        .unwrap();
    let email = format!("{org_id}@example.com");
    let user = users::add(&mut tx, org_id, &email, OrgRole::Reader, now());
    let user = user.await.unwrap().id;
    members::set(&mut tx, org_id, project_id, user, Role::Viewer, now())
        .await
        .unwrap();
    let model = permissions::model(&mut tx, model).await.unwrap().unwrap();
    permissions::create(&mut tx, &model, project_id, now())
        .await
        .unwrap();
    let act = Act::new("project.updated", "project", project_id).project(project_id);
    audit::record(&mut tx, &actor(org_id), &act, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// An endpoint, and an event on its way there.
async fn hear(tx: &mut TenantTx) {
    listen(tx, WebhookEventType::BatchFailed).await;
    webhooks::enqueue(tx, WebhookEventType::BatchFailed, "batch_1", now())
        .await
        .unwrap();
}

async fn keep_answer(tx: &mut TenantTx) {
    let request = Request {
        route: "POST /v1/things".to_owned(),
        mark: Mark::Key("k".to_owned()),
        fingerprint: [0; 32],
    };
    let answer = Answer {
        status: 200,
        body: b"{}".to_vec(),
    };
    idempotency::keep(tx, &request, &answer, now())
        .await
        .unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn every_table_of_somebodys_is_guarded(pool: PgPool) {
    let tables = guarded_tables(&pool).await;
    assert!(tables.len() >= 8, "{tables:?}");
    for table in tables {
        let guarded: bool = sqlx::query_scalar(
            "SELECT c.relrowsecurity AND c.relforcerowsecurity
                    AND c.relowner = 'attune_owner'::regrole
                    AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
                    AND ($1 = ANY ($2) OR (SELECT count(*) = 2 FROM pg_attribute a WHERE a.attrelid = c.oid
                         AND a.attname IN ('created_at', 'updated_at')))
             FROM pg_class c WHERE c.oid = $1::text::regclass",
        )
        .bind(&table)
        .bind(WITHOUT_TIMES.as_slice())
        .fetch_one(&pool)
        .await
        .unwrap();
        assert!(
            guarded,
            "{table} lacks row security, a policy, the owner or its times"
        );
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_tenant_sees_its_own_rows_and_no_others(pool: PgPool) {
    let (store, tenants) = two_tenants(&pool).await;
    for tenant in tenants {
        fill(&store, tenant).await;
    }
    for table in guarded_tables(&pool).await {
        if CLOSED_TO_TENANTS.contains(&table.as_str()) {
            assert!(
                count_as(&pool, "app_tenant", None, &table).await.is_err(),
                "{table}"
            );
            continue;
        }
        let all = count_as(&pool, "postgres", None, &table).await.unwrap();
        let nobody = count_as(&pool, "app_tenant", None, &table).await.unwrap();
        let mut seen = 0;
        for tenant in tenants {
            let id = tenant.project_id.0.to_string();
            let own = count_as(&pool, "app_tenant", Some(&id), &table)
                .await
                .unwrap();
            assert!(own > 0 && own < all, "{table}: {own} of {all}");
            seen += own;
        }
        assert_eq!((nobody, seen), (0, all), "{table}");
    }
}

/// What an administrator counts in `table` with `org_id` set or not. `Err` is the refusal.
async fn count_in_org(
    pool: &PgPool,
    org_id: Option<OrgId>,
    table: &str,
) -> Result<i64, sqlx::Error> {
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::query("SELECT set_config('role', 'app_org', false), set_config('app.org_id', $1, false)")
        .bind(org_id.map_or_else(String::new, |id| id.0.to_string()))
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(&mut connection)
        .await
}

/// Tables that an administrator's role may read. Each is walked below, and so is the next one that is opened to it.
const OPEN_TO_ADMINISTRATORS: [&str; 10] = [
    "api_keys",
    "audit_log",
    "checkpoint_permissions",
    "fine_tuned_models",
    "organizations",
    "project_members",
    "project_quotas",
    "projects",
    "service_accounts",
    "users",
];

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_administrator_sees_one_organization_whatever_is_asked(pool: PgPool) {
    let (store, tenants) = two_tenants(&pool).await;
    for tenant in tenants {
        fill(&store, tenant).await;
    }
    let mut open = Vec::new();
    for table in guarded_tables(&pool).await {
        let Ok(nobody) = count_in_org(&pool, None, &table).await else {
            continue;
        };
        let all = count_as(&pool, "postgres", None, &table).await.unwrap();
        let mut seen = 0;
        for tenant in tenants {
            let own = count_in_org(&pool, Some(tenant.org_id), &table)
                .await
                .unwrap();
            assert!(own > 0 && own < all, "{table}: {own} of {all}");
            seen += own;
        }
        assert_eq!((nobody, seen), (0, all), "{table}");
        open.push(table);
    }
    assert_eq!(open, OPEN_TO_ADMINISTRATORS);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_administrator_cannot_write_for_another_organization(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let refused = projects::create_named(&mut tx, umbrella.org_id, "mine", now()).await;
    assert!(
        matches!(refused, Err(store::StoreError::Database(_))),
        "{refused:?}"
    );
    // A key of our organization for their project is caught by the foreign key.
    let key = NewApiKey {
        org_id: acme.org_id,
        project_id: Some(umbrella.project_id),
        name: "theirs".to_owned(),
        expires_at: None,
    };
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let refused = api_keys::create(&mut tx, &Pepper::new([7; 32]), &key, now()).await;
    assert!(
        matches!(refused, Err(store::StoreError::MissingReference { .. })),
        "{refused:?}"
    );
    let tx = store.org_tx(acme.org_id).await.unwrap();
    let (tx, stopped) = archived(tx, umbrella).await;
    tx.commit().await.unwrap();
    assert_eq!(stopped, None);
    let archived: i64 =
        sqlx::query_scalar("SELECT count(*) FROM projects WHERE archived_at IS NOT NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(archived, 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_permitted_model_is_shown_and_cannot_be_changed(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    fill(&store, acme).await;
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let second = projects::create_named(&mut tx, acme.org_id, "Second", now())
        .await
        .unwrap()
        .id;
    tx.commit().await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT name FROM fine_tuned_models WHERE checkpoint_step IS NULL")
            .fetch_one(&pool)
            .await
            .unwrap();
    let seen = async || {
        let mut tx = store.tenant_tx(second).await.unwrap();
        let resolved = models::resolve(&mut tx, &name).await.unwrap();
        let listed = models::list(&mut tx).await.unwrap().len();
        (resolved.is_some(), listed)
    };
    assert_eq!(seen().await, (false, 0));
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let model = permissions::model(&mut tx, &name).await.unwrap().unwrap();
    let permission = permissions::create(&mut tx, &model, second, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(seen().await, (true, 1));
    let mut tx = store.tenant_tx(second).await.unwrap();
    assert!(!models::delete(&mut tx, &name, now()).await.unwrap());
    drop(tx);
    let id = second.0.to_string();
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::query(
        "SELECT set_config('role', 'app_tenant', false), set_config('app.project_id', $1, false)",
    )
    .bind(id)
    .execute(&mut connection)
    .await
    .unwrap();
    for statement in [
        "UPDATE fine_tuned_models SET name = 'mine'",
        "DELETE FROM fine_tuned_models",
    ] {
        let done = sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 0, "{statement}");
    }
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    assert!(
        permissions::delete(&mut tx, &model, permission.id)
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    assert_eq!(seen().await, (false, 0));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_tenant_cannot_write_for_another(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let refused = files::create(&mut tx, &file(umbrella)).await.unwrap_err();
    assert!(
        matches!(refused, store::StoreError::Database(_)),
        "{refused:?}"
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn another_tenants_job_is_not_there(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert!(jobs::find(&mut tx, claimed.job.id).await.unwrap().is_none());
    assert!(
        jobs::find_for_update(&mut tx, claimed.job.id)
            .await
            .unwrap()
            .is_none()
    );
    let event = NewEvent::message(EventLevel::Info, "mine now", now());
    let refused = events::append(&mut tx, claimed.job.id, &[event])
        .await
        .unwrap_err();
    assert!(
        matches!(refused, store::StoreError::MissingReference { .. }),
        "{refused:?}"
    );
}
