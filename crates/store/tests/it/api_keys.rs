//! API keys and the first ones of an installation.

use domain::{ApiKeyId, Role, ServiceAccountId};
use sqlx::{AssertSqlSafe, PgPool};
use store::api_keys::{self, KeyKind, NewApiKey, Pepper, Principal, Rights, Secret};
use store::audit::listing::{self, AuditListing};
use store::bootstrap::{self, Bootstrap, Bootstrapped};
use store::service_accounts::{self, ServiceAccount};
use store::{Store, organizations};
use time::{Duration, OffsetDateTime};

use crate::given::{Tenant, now, two_tenants};

fn pepper() -> Pepper {
    Pepper::new([7; 32])
}

async fn made(
    store: &Store,
    tenant: Tenant,
    expires_at: Option<OffsetDateTime>,
) -> (ApiKeyId, Secret) {
    let key = NewApiKey {
        org_id: tenant.org_id,
        project_id: Some(tenant.project_id),
        name: "laptop".to_owned(),
        expires_at,
    };
    let mut tx = store.operator_tx().await.unwrap();
    let (key, secret) = api_keys::create(&mut tx, &pepper(), &key, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    (key.id, secret)
}

async fn principal(store: &Store, secret: &str, at: OffsetDateTime) -> Option<Principal> {
    let mut tx = store.auth_tx().await.unwrap();
    let principal = api_keys::authenticate(&mut tx, &pepper(), secret, at)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    principal
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_secret_opens_its_project_and_is_not_stored(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let (id, secret) = made(&store, acme, None).await;
    let found = principal(&store, secret.expose(), now()).await.unwrap();
    assert_eq!(
        (found.key_id, found.project_id, found.kind),
        (id, Some(acme.project_id), KeyKind::Project)
    );
    assert_eq!(found.org_slug, "acme");
    let stored: String = sqlx::query_scalar("SELECT k::text FROM api_keys k")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(!stored.contains(secret.expose()), "{stored}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_unknown_expired_or_revoked_secret_opens_nothing(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let unknown = Secret::generate(KeyKind::Project).unwrap();
    assert_eq!(principal(&store, unknown.expose(), now()).await, None);
    assert_eq!(principal(&store, "sk-attune-\u{0}", now()).await, None);

    let (_, expiring) = made(&store, acme, Some(now() + Duration::hours(1))).await;
    assert!(principal(&store, expiring.expose(), now()).await.is_some());
    assert_eq!(
        principal(&store, expiring.expose(), now() + Duration::hours(1)).await,
        None
    );

    let (id, revoked) = made(&store, acme, None).await;
    let mut tx = store.operator_tx().await.unwrap();
    assert!(api_keys::revoke(&mut tx, id, now()).await.unwrap());
    assert!(!api_keys::revoke(&mut tx, id, now()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(principal(&store, revoked.expose(), now()).await, None);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_key_is_in_use_for_as_long_as_its_secret_opens_something(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let account = ServiceAccount {
        id: ServiceAccountId::new(),
        project_id: acme.project_id,
        org_id: acme.org_id,
        name: "ci".to_owned(),
        role: Role::Member,
        created_at: now(),
    };
    let key = NewApiKey {
        org_id: acme.org_id,
        project_id: Some(acme.project_id),
        name: "ci".to_owned(),
        expires_at: None,
    };
    let rights = Rights {
        service_account: Some(account.id),
        ..Rights::all()
    };
    let mut tx = store.operator_tx().await.unwrap();
    service_accounts::create(&mut tx, &account).await.unwrap();
    let (key, secret) = api_keys::create_with(&mut tx, &pepper(), &key, &rights, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let (other, _) = made(&store, umbrella, None).await;
    let asked = [key.id, other];
    let found = async || {
        let mut tx = store.auth_tx().await.unwrap();
        let in_use = api_keys::in_use(&mut tx, &asked, now()).await.unwrap();
        let opens = principal(&store, secret.expose(), now()).await.is_some();
        assert_eq!(in_use.contains(&key.id), opens);
        assert!(in_use.contains(&other));
        opens
    };
    assert!(found().await);
    for (table, column, id) in [
        ("api_keys", "revoked_at", key.id.0),
        ("api_keys", "expires_at", key.id.0),
        ("service_accounts", "deleted_at", account.id.0),
        ("projects", "archived_at", acme.project_id.0),
        ("organizations", "archived_at", acme.org_id.0),
    ] {
        for (end, opens) in [(Some(now()), false), (None, true)] {
            let sql = format!("UPDATE {table} SET {column} = $1 WHERE id = $2");
            let ended = sqlx::query(AssertSqlSafe(sql)).bind(end).bind(id);
            ended.execute(&pool).await.unwrap();
            assert_eq!(found().await, opens, "{table}.{column}");
        }
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_last_use_is_noted_to_the_minute(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let (_, secret) = made(&store, acme, None).await;
    let mut noted = Vec::new();
    for seconds in [0, 30, 90] {
        principal(&store, secret.expose(), now() + Duration::seconds(seconds)).await;
        let mut tx = store.operator_tx().await.unwrap();
        let keys = api_keys::list(&mut tx, acme.org_id).await.unwrap();
        noted.push((keys[0].last_used_at.unwrap() - now()).whole_seconds());
    }
    assert_eq!(noted, [0, 0, 90]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn bootstrapping_twice_makes_one_of_everything(pool: PgPool) {
    let store = Store::from_pool(pool);
    let secrets = [KeyKind::Project, KeyKind::Admin].map(|kind| Secret::generate(kind).unwrap());
    let secrets = Bootstrap {
        api_key: &secrets[0],
        admin_key: &secrets[1],
    };
    let mut made: Vec<Bootstrapped> = Vec::new();
    for _ in 0..2 {
        let mut tx = store.operator_tx().await.unwrap();
        made.push(
            bootstrap::run(&mut tx, &pepper(), &secrets, now())
                .await
                .unwrap(),
        );
        tx.commit().await.unwrap();
    }
    assert_eq!(made[0], made[1]);
    let admin = principal(&store, secrets.admin_key.expose(), now())
        .await
        .unwrap();
    assert_eq!((admin.kind, admin.project_id), (KeyKind::Admin, None));
    let mut tx = store.operator_tx().await.unwrap();
    assert_eq!(
        api_keys::list(&mut tx, made[0].org_id).await.unwrap().len(),
        2
    );
    let all = AuditListing {
        limit: 100,
        ..AuditListing::default()
    };
    let written = listing::list(&mut tx, made[0].org_id, &all).await.unwrap();
    let actions: Vec<_> = written.data.iter().map(|row| &*row.action).collect();
    let expected = [
        "admin_api_key.created",
        "api_key.created",
        "project.created",
        "organization.created",
    ];
    assert_eq!(actions, expected);
    let mut tx = store.tenant_tx(made[0].project_id).await.unwrap();
    assert_eq!(
        organizations::own(&mut tx).await.unwrap().unwrap().slug,
        "default"
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_rotated_key_of_the_first_start_is_not_made_anew_by_the_next(pool: PgPool) {
    let store = Store::from_pool(pool);
    let secrets = [KeyKind::Project, KeyKind::Admin].map(|kind| Secret::generate(kind).unwrap());
    let secrets = Bootstrap {
        api_key: &secrets[0],
        admin_key: &secrets[1],
    };
    let mut tx = store.operator_tx().await.unwrap();
    let made = bootstrap::run(&mut tx, &pepper(), &secrets, now())
        .await
        .unwrap();
    let keys = api_keys::list(&mut tx, made.org_id).await.unwrap();
    let old = keys.iter().find(|key| key.project_id.is_some()).unwrap();
    let (new, secret) = api_keys::rotate(&mut tx, &pepper(), old, Duration::ZERO, now())
        .await
        .unwrap();
    bootstrap::run(&mut tx, &pepper(), &secrets, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        principal(&store, secrets.api_key.expose(), now()).await,
        None
    );
    let found = principal(&store, secret.expose(), now()).await.unwrap();
    assert_eq!(found.key_id, new.id);
}
