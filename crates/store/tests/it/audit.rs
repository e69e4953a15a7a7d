//! The audit log: one chain per organization, and no change to it that is not found.

use domain::{OrgId, ProjectId};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use store::audit::chain::{Broken, GENESIS, Hash};
use store::audit::listing::{self, AuditListing};
use store::audit::{self, Act, Actor};
use store::{Store, StoreError};

use crate::given::{Tenant, now, two_tenants};

pub(crate) fn actor(org_id: OrgId) -> Actor {
    Actor {
        org_id,
        kind: "api_key".to_owned(),
        id: "key_1".to_owned(),
        name: "Ada's key".to_owned(),
        key_id: Some("key_1".to_owned()),
        address: Some("192.0.2.7".to_owned()),
        request_id: Some("req_1".to_owned()),
    }
}

fn act(name: &str) -> Act {
    Act::new("file.created", "file", name).details(json!({"name": name, "size": 1.50, "é": null}))
}

async fn record(store: &Store, tenant: Tenant, name: &str) {
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    audit::record(&mut tx, &actor(tenant.org_id), &act(name), now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn verified(
    store: &Store,
    tenant: Tenant,
    head: Option<Hash>,
) -> Result<(i64, Hash), Broken> {
    audit::verify(store, tenant.org_id, head).await.unwrap()
}

/// Does what only a superuser can: with triggers and foreign keys off.
async fn tamper(pool: &PgPool, statement: &str) {
    let mut connection = pool.acquire().await.unwrap().detach();
    for statement in ["SET session_replication_role = replica", statement] {
        sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_chain_verifies_and_its_head_is_kept_by_others(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    assert_eq!(verified(&store, acme, None).await, Ok((0, GENESIS)));
    record(&store, acme, "file-1").await;
    let (_, first) = verified(&store, acme, None).await.unwrap();
    record(&store, acme, "file-2").await;
    record(&store, umbrella, "file-3").await;
    let (n_rows, head) = verified(&store, acme, Some(first)).await.unwrap();
    assert_eq!(n_rows, 2);
    assert_eq!(verified(&store, umbrella, None).await.unwrap().0, 1);
    assert_eq!(
        verified(&store, umbrella, Some(head)).await,
        Err(Broken::Head(hex_of(&head)))
    );
}

fn hex_of(hash: &Hash) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn whoever_holds_a_row_can_compute_its_hash(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    for address in [None, Some(String::new()), Some("::1".to_owned())] {
        let actor = Actor {
            address,
            key_id: None,
            ..actor(acme.org_id)
        };
        let mut tx = store.operator_tx().await.unwrap();
        audit::record(&mut tx, &actor, &act("naïve \u{0} 名前"), now())
            .await
            .unwrap();
        let project = act("x").project(acme.project_id);
        audit::record(&mut tx, &actor, &project, now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx = store.operator_tx().await.unwrap();
    let rows = listing::next(&mut tx, acme.org_id, 0, 100).await.unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row.hash, row.computed_hash(), "{row:?}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn two_writers_at_once_keep_one_chain(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..10 {
                record(&store, acme, &format!("file-{writer}-{n}")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(verified(&store, acme, None).await.unwrap().0, 80);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_is_undone_is_not_in_the_log(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    record(&store, acme, "file-1").await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    audit::record(&mut tx, &actor(acme.org_id), &act("file-2"), now())
        .await
        .unwrap();
    drop(tx);
    record(&store, acme, "file-3").await;
    assert_eq!(verified(&store, acme, None).await.unwrap().0, 2);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_change_to_any_column_is_found(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text FROM information_schema.columns
         WHERE table_name = 'audit_log' ORDER BY ordinal_position",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(columns.len(), 16);
    for name in ["file-1", "file-2", "file-3"] {
        record(&store, acme, name).await;
    }
    for (column, kind) in columns {
        let changed = match (column.as_str(), kind.as_str()) {
            ("org_id", _) => format!("'{}'", umbrella.org_id.0),
            ("project_id", _) => "NULL".to_owned(),
            (_, "bytea") => format!("set_byte({column}, 31, get_byte({column}, 31) # 1)"),
            (_, "bigint") => format!("{column} + 100"),
            (_, "timestamp with time zone") => format!("{column} + interval '1 microsecond'"),
            // A space more is still the same JSON.
            (_, "json") => format!("({column}::text || ' ')::json"),
            _ => format!("overlay({column} placing 'X' from 1 for 1)"),
        };
        let before: Vec<u8> = snapshot(&pool).await;
        let kept = "CREATE TABLE kept AS SELECT * FROM audit_log";
        sqlx::query(kept).execute(&pool).await.unwrap();
        tamper(
            &pool,
            &format!("UPDATE audit_log SET {column} = {changed} WHERE seq = 2"),
        )
        .await;
        assert!(verified(&store, acme, None).await.is_err(), "{column}");
        tamper(&pool, "DELETE FROM audit_log").await;
        sqlx::query("INSERT INTO audit_log SELECT * FROM kept")
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("DROP TABLE kept").execute(&pool).await.unwrap();
        assert_eq!(snapshot(&pool).await, before);
        assert_eq!(verified(&store, acme, None).await.unwrap().0, 3);
    }
}

async fn snapshot(pool: &PgPool) -> Vec<u8> {
    sqlx::query_scalar(
        "SELECT sha256(convert_to(string_agg(l::text, '|' ORDER BY seq), 'UTF8')) FROM audit_log l",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn rows_that_are_removed_or_moved_are_missed(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    for name in ["file-1", "file-2", "file-3", "file-4"] {
        record(&store, acme, name).await;
    }
    let (_, head) = verified(&store, acme, None).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT * FROM audit_log")
        .execute(&pool)
        .await
        .unwrap();
    let swapped =
        "UPDATE audit_log SET seq = CASE seq WHEN 20 THEN 3 ELSE 2 END WHERE seq IN (20, 30)";
    for (statements, expected) in [
        (
            &["DELETE FROM audit_log WHERE seq = 1"][..],
            Broken::Gap {
                expected: 1,
                found: 2,
            },
        ),
        (
            &["DELETE FROM audit_log WHERE seq = 3"],
            Broken::Gap {
                expected: 3,
                found: 4,
            },
        ),
        (
            &["DELETE FROM audit_log WHERE seq = 4"],
            Broken::Truncated {
                expected: 4,
                found: 3,
            },
        ),
        (
            &["DELETE FROM audit_log"],
            Broken::Truncated {
                expected: 4,
                found: 0,
            },
        ),
        (
            &[
                "DELETE FROM audit_log WHERE seq = 3",
                "UPDATE audit_log SET seq = 3 WHERE seq = 4",
            ],
            Broken::Link(3),
        ),
        (
            &[
                "UPDATE audit_log SET seq = seq * 10 WHERE seq IN (2, 3)",
                swapped,
            ],
            Broken::Link(2),
        ),
        // Whoever also moves the end back is found by the head that was kept.
        (
            &[
                "DELETE FROM audit_log WHERE seq = 4",
                "UPDATE audit_heads SET seq = 3, hash = (SELECT hash FROM audit_log WHERE seq = 3)",
            ],
            Broken::Head(hex_of(&head)),
        ),
    ] {
        for statement in statements {
            tamper(&pool, statement).await;
        }
        assert_eq!(
            verified(&store, acme, Some(head)).await,
            Err(expected),
            "{statements:?}"
        );
        tamper(&pool, "DELETE FROM audit_log").await;
        sqlx::query("INSERT INTO audit_log SELECT * FROM kept")
            .execute(&pool)
            .await
            .unwrap();
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn nobody_changes_a_row_and_no_tenant_reads_one(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    record(&store, acme, "file-1").await;
    for role in [
        "app_tenant",
        "app_worker",
        "app_auth",
        "app_org",
        "app_operator",
    ] {
        for statement in [
            "UPDATE audit_log SET actor_name = 'somebody else'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "INSERT INTO audit_log SELECT * FROM audit_log",
            "UPDATE audit_heads SET seq = 0",
        ] {
            let refusal = as_role(&pool, role, acme, statement).await.unwrap_err();
            assert!(
                refusal.contains("permission denied"),
                "{role}: {statement}: {refusal}"
            );
        }
    }
    for statement in ["DELETE FROM audit_log", "TRUNCATE audit_log"] {
        let refusal = sqlx::query(statement).execute(&pool).await.unwrap_err();
        assert!(refusal.to_string().contains("append-only"), "{refusal}");
    }
    let refusal = as_role(&pool, "app_tenant", acme, "SELECT count(*) FROM audit_log").await;
    assert!(refusal.unwrap_err().contains("permission denied"));
}

async fn as_role(pool: &PgPool, role: &str, tenant: Tenant, statement: &str) -> Result<(), String> {
    let mut connection = pool.acquire().await.unwrap().detach();
    sqlx::query(
        "SELECT set_config('role', $1, false), set_config('app.project_id', $2, false),
                set_config('app.org_id', $3, false)",
    )
    .bind(role)
    .bind(tenant.project_id.0.to_string())
    .bind(tenant.org_id.0.to_string())
    .execute(&mut connection)
    .await
    .unwrap();
    let done = sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await;
    done.map(|_| ()).map_err(|error| error.to_string())
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn nobody_writes_into_anothers_chain(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    // A project in the name of another organization.
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let refused = audit::record(&mut tx, &actor(umbrella.org_id), &act("x"), now()).await;
    assert!(
        matches!(refused, Err(StoreError::MissingReference { .. })),
        "{refused:?}"
    );
    // An administrator in the name of another organization, or of its project.
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let refused = audit::record(&mut tx, &actor(umbrella.org_id), &act("x"), now()).await;
    assert!(
        matches!(refused, Err(StoreError::Database(_))),
        "{refused:?}"
    );
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let of_umbrella = act("x").project(umbrella.project_id);
    let refused = audit::record(&mut tx, &actor(acme.org_id), &of_umbrella, now()).await;
    assert!(
        matches!(refused, Err(StoreError::MissingReference { .. })),
        "{refused:?}"
    );
    // What a project writes is of that project, whatever it says.
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let elsewhere = act("x").project(ProjectId::new());
    audit::record(&mut tx, &actor(acme.org_id), &elsewhere, now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let page = listing::list(&mut tx, acme.org_id, &all()).await.unwrap();
    assert_eq!(page.data[0].project_id, Some(acme.project_id));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn signing_in_writes_what_it_changes_and_nothing_else(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let ada = Actor {
        kind: "user".to_owned(),
        id: "user-1".to_owned(),
        key_id: None,
        ..actor(acme.org_id)
    };
    let added = Act::new("user.added", "organization.user", "user-1");
    let of_another = Act::new("user.added", "organization.user", "user-2");
    for (actor, act) in [
        (&ada, &act("x")),
        (&ada, &of_another),
        (&ada, &added.clone().project(acme.project_id)),
        (&actor(acme.org_id), &added),
    ] {
        let mut tx = store.auth_tx().await.unwrap();
        let refused = audit::record(&mut tx, actor, act, now()).await;
        assert!(
            matches!(refused, Err(StoreError::Database(_))),
            "{refused:?}"
        );
    }
    for act in [
        &added,
        &Act::new("user.linked", "organization.user", "user-1"),
    ] {
        let mut tx = store.auth_tx().await.unwrap();
        audit::record(&mut tx, &ada, act, now()).await.unwrap();
        tx.commit().await.unwrap();
    }
    record(&store, acme, "file-1").await;
    assert_eq!(verified(&store, acme, None).await.unwrap().0, 3);
}

fn all() -> AuditListing {
    AuditListing {
        limit: 100,
        ..AuditListing::default()
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_administrator_reads_one_organization_and_what_they_ask_for(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    for name in ["file-1", "file-2"] {
        record(&store, acme, name).await;
    }
    record(&store, umbrella, "file-3").await;

    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let others = listing::list(&mut tx, umbrella.org_id, &all())
        .await
        .unwrap();
    assert_eq!(others.data, []);
    assert_eq!(
        listing::next(&mut tx, umbrella.org_id, 0, 10)
            .await
            .unwrap(),
        []
    );
    let later = now() + time::Duration::SECOND;
    for (listing, expected) in [
        (all(), &[2, 1][..]),
        (
            AuditListing {
                after: Some(2),
                ..all()
            },
            &[1],
        ),
        (
            AuditListing {
                objects: vec!["file-1".to_owned()],
                ..all()
            },
            &[1],
        ),
        (
            AuditListing {
                actors: vec!["key_1".to_owned()],
                ..all()
            },
            &[2, 1],
        ),
        (
            AuditListing {
                actors: vec!["key_2".to_owned()],
                ..all()
            },
            &[],
        ),
        (
            AuditListing {
                actions: vec!["file.deleted".to_owned()],
                ..all()
            },
            &[],
        ),
        (
            AuditListing {
                projects: vec![acme.project_id],
                ..all()
            },
            &[2, 1],
        ),
        (
            AuditListing {
                projects: vec![umbrella.project_id],
                ..all()
            },
            &[],
        ),
        (
            AuditListing {
                from: Some(now()),
                until: Some(later),
                ..all()
            },
            &[2, 1],
        ),
        (
            AuditListing {
                from: Some(later),
                ..all()
            },
            &[],
        ),
        (
            AuditListing {
                until: Some(now()),
                ..all()
            },
            &[],
        ),
    ] {
        let page = listing::list(&mut tx, acme.org_id, &listing).await.unwrap();
        let found: Vec<i64> = page.data.iter().map(|row| row.seq).collect();
        assert_eq!(found, expected, "{listing:?}");
    }
}
