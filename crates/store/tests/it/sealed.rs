//! A rotation against real rows.

use domain::ProjectId;
use sqlx::PgPool;
use sqlx::types::Uuid;
use store::sealed::{Keyring, Place, SealedColumn, rotate, rotate_column};
use store::{Store, StoreError};

const COLUMN: SealedColumn = SealedColumn {
    table: "trinkets",
    column: "secret",
};

fn ring(ids: &[&str]) -> Keyring {
    let keys = ids.iter().map(|id| {
        let byte = if *id == "old" { "11" } else { "22" };
        format!("{id}:{}", byte.repeat(32))
    });
    Keyring::parse(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

fn place(id: u128) -> Place {
    Place {
        table: COLUMN.table,
        column: COLUMN.column,
        project_id: ProjectId(Uuid::from_u128(7)),
        row_id: Uuid::from_u128(id),
    }
}

/// A table like those that hold secrets, with `n` rows sealed by the old key and one that has none.
async fn trinkets(pool: &PgPool, n: u128) -> Store {
    for statement in [
        "CREATE TABLE trinkets (id uuid PRIMARY KEY, project_id uuid NOT NULL, secret bytea)",
        "GRANT SELECT, UPDATE (secret) ON trinkets TO app_operator",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
    for id in 1..=n {
        let secret = format!("secret {id}");
        let sealed = ring(&["old"]).seal(&place(id), secret.as_bytes()).unwrap();
        insert(pool, id, Some(sealed)).await;
    }
    insert(pool, n + 1, None).await;
    Store::from_pool(pool.clone())
}

async fn insert(pool: &PgPool, id: u128, sealed: Option<Vec<u8>>) {
    sqlx::query("INSERT INTO trinkets VALUES ($1, $2, $3)")
        .bind(Uuid::from_u128(id))
        .bind(place(id).project_id.0)
        .bind(sealed)
        .execute(pool)
        .await
        .unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn after_a_rotation_the_old_key_is_not_needed(pool: PgPool) {
    // More rows than one transaction takes.
    let store = trinkets(&pool, 1100).await;
    let both = ring(&["new", "old"]);
    assert_eq!(rotate_column(&store, &both, COLUMN).await.unwrap(), 1100);
    assert_eq!(rotate_column(&store, &both, COLUMN).await.unwrap(), 0);

    let rows: Vec<(Uuid, Vec<u8>)> =
        sqlx::query_as("SELECT id, secret FROM trinkets WHERE secret IS NOT NULL")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(rows.len(), 1100);
    for (id, sealed) in rows {
        let opened = ring(&["new"]).open(&place(id.as_u128()), &sealed).unwrap();
        assert_eq!(
            opened.expose_text().unwrap(),
            format!("secret {}", id.as_u128())
        );
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_row_that_does_not_open_is_named(pool: PgPool) {
    let store = trinkets(&pool, 1).await;
    // As if copied from the first row.
    let copied = ring(&["old"]).seal(&place(1), b"secret 1").unwrap();
    insert(&pool, 99, Some(copied)).await;
    let refused = rotate_column(&store, &ring(&["new", "old"]), COLUMN)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, StoreError::Sealed { place, .. } if place.row_id == Uuid::from_u128(99)),
        "{refused:?}"
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_operator_may_rotate_every_registered_column(pool: PgPool) {
    let store = Store::from_pool(pool);
    assert_eq!(rotate(&store, &ring(&["new"])).await.unwrap(), 0);
}
