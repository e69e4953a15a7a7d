//! What a service's connections live through.

use domain::ProjectId;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool};
use store::migrate::{API_LOGIN, INFERENCE_LOGIN};
use store::{Store, StoreError};

/// As a service connects.
async fn service(pool: &PgPool, login: &str) -> Store {
    let options = PgConnectOptions::clone(&pool.connect_options()).username(login);
    Store::connect(options.to_url_lossy().as_str())
        .await
        .unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_connection_that_died_costs_no_request(pool: PgPool) {
    let store = service(&pool, API_LOGIN).await;
    // Several, all of them idle.
    let open = futures::future::join_all((0..4).map(|_| store.auth_tx())).await;
    for tx in open {
        tx.unwrap().commit().await.unwrap();
    }
    let n_killed: i64 = sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(n_killed >= 4, "{n_killed}");
    let tx = store.tenant_tx(ProjectId::new()).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_refused_beginning_leaves_its_connection_as_it_was(pool: PgPool) {
    let store = service(&pool, INFERENCE_LOGIN).await;
    // As often as there are connections, so that none is left that was not refused.
    let refused = futures::future::join_all((0..16).map(|_| store.auth_tx())).await;
    for tx in refused {
        assert!(matches!(tx, Err(StoreError::Database(_))), "{tx:?}");
    }
    let tx = store.tenant_tx(ProjectId::new()).await.unwrap();
    tx.commit().await.unwrap();
}
