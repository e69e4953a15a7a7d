//! Projects' own buckets: who reads them, when they may change, and what a change means for what is under way.

use std::time::Duration;

use domain::{FineTunedModelId, ProjectId};
use sqlx::PgPool;
use sqlx::types::Uuid;
use store::buckets::{self, Change, Held, Location, ProjectBucket, Settings};
use store::deletions::{self, Target};
use store::sealed::{Keyring, rotate};
use store::{Store, StoreError, files, models, permissions, projects, uploads};
use tokio::time::{sleep, timeout};

use crate::given::{Tenant, now, running, two_tenants};
use crate::isolation::file;
use crate::uploads::{part, upload};

const SECRET: &str = "the-secret";

pub(crate) fn ring(ids: &[&str]) -> Keyring {
    let keys = ids.iter().map(|id| {
        let byte = if *id == "old" { "11" } else { "22" };
        format!("{id}:{}", byte.repeat(32))
    });
    Keyring::parse(&keys.collect::<Vec<_>>().join(",")).unwrap()
}

pub(crate) fn settings(bucket: &str) -> Settings {
    Settings {
        endpoint: "https://s3.example.com".to_owned(),
        region: "eu-central-1".to_owned(),
        bucket: bucket.to_owned(),
        prefix: "attune/".to_owned(),
        path_style: false,
        access_key_id: "AK".to_owned(),
    }
}

pub(crate) async fn set(
    store: &Store,
    project_id: ProjectId,
    settings: &Settings,
    secret: &str,
) -> Change {
    let tx = store.operator_tx().await.unwrap();
    let ring = ring(&["old"]);
    let set = buckets::set(tx, &ring, project_id, settings, secret, now());
    let (tx, change) = set.await.unwrap();
    tx.commit().await.unwrap();
    change
}

async fn remove(store: &Store, project_id: ProjectId) -> Change {
    let tx = store.operator_tx().await.unwrap();
    let (tx, change) = buckets::remove(tx, project_id).await.unwrap();
    tx.commit().await.unwrap();
    change
}

async fn found(store: &Store, by: ProjectId, of: ProjectId) -> Option<ProjectBucket> {
    let mut tx = store.tenant_tx(by).await.unwrap();
    buckets::find(&mut tx, of).await.unwrap()
}

fn secret(bucket: &ProjectBucket, ring: &Keyring) -> String {
    let opened = bucket.secret(ring).unwrap();
    opened.expose_text().unwrap().to_owned()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_secret_is_sealed_and_seen_by_its_project_and_whoever_sweeps(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let (ours, theirs) = (acme.project_id, umbrella.project_id);
    assert_eq!(
        set(&store, ours, &settings("a"), SECRET).await,
        Change::Moved
    );
    let stored: Vec<u8> = sqlx::query_scalar("SELECT secret_access_key FROM project_buckets")
        .fetch_one(&pool)
        .await
        .unwrap();
    let plain = SECRET.as_bytes();
    assert!(!stored.windows(plain.len()).any(|part| part == plain));

    let bucket = found(&store, ours, ours).await.unwrap();
    assert_eq!(bucket.settings, settings("a"));
    assert_eq!(secret(&bucket, &ring(&["old"])), SECRET);
    assert!(!format!("{bucket:?}").contains(SECRET));
    assert_eq!(found(&store, theirs, ours).await, None);
    assert_eq!(found(&store, theirs, theirs).await, None);
    let mut tx = store.worker_tx().await.unwrap();
    assert_eq!(buckets::projects(&mut tx).await.unwrap(), [ours]);
    let both = buckets::of_projects(&mut tx, &[theirs, ours]).await;
    assert_eq!(both.unwrap(), [bucket]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn whoever_may_use_a_model_sees_where_its_objects_are(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let owner = acme.project_id;
    set(&store, owner, &settings("a"), SECRET).await;
    let claimed = running(&store, acme).await;
    let mut tx = store.tenant_tx(owner).await.unwrap();
    let id = FineTunedModelId::new();
    let model = models::publish(&mut tx, &claimed.lease, id, "m/", 10, now()).await;
    let model = model.unwrap().name;
    tx.commit().await.unwrap();
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let second = projects::create_named(&mut tx, acme.org_id, "Second", now());
    let second = second.await.unwrap().id;
    tx.commit().await.unwrap();
    assert_eq!(found(&store, second, owner).await, None);

    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    let model = permissions::model(&mut tx, &model).await.unwrap().unwrap();
    let given = permissions::create(&mut tx, &model, second, now()).await;
    let given = given.unwrap();
    tx.commit().await.unwrap();
    let seen = found(&store, second, owner).await;
    assert_eq!(seen.unwrap().settings.bucket, "a");
    let mut tx = store.org_tx(acme.org_id).await.unwrap();
    permissions::delete(&mut tx, &model, given.id)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(found(&store, second, owner).await, None);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn new_credentials_are_another_version_of_the_same_place(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = acme.project_id;
    set(&store, id, &settings("a"), SECRET).await;
    let before = found(&store, id, id).await.unwrap();
    let mut tx = store.tenant_tx(id).await.unwrap();
    files::create(&mut tx, &file(acme)).await.unwrap();
    tx.commit().await.unwrap();
    let rotated = Settings {
        access_key_id: "AK2".to_owned(),
        region: "eu-west-1".to_owned(),
        path_style: true,
        ..settings("a")
    };
    let change = set(&store, id, &rotated, "another-secret").await;
    assert_eq!(change, Change::Updated, "though the project has a file");
    let after = found(&store, id, id).await.unwrap();
    assert_eq!(
        (after.location(), after.version),
        (before.location(), before.version + 1)
    );
    assert_eq!(after.settings, rotated);
    assert_eq!(secret(&after, &ring(&["old"])), "another-secret");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_rotated_key_opens_the_secret(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = acme.project_id;
    set(&store, id, &settings("a"), SECRET).await;
    assert_eq!(rotate(&store, &ring(&["new", "old"])).await.unwrap(), 1);
    let bucket = found(&store, id, id).await.unwrap();
    assert_eq!(secret(&bucket, &ring(&["new"])), SECRET);
    assert_eq!(bucket.version, 1, "clients that were made go on");
    let refused = bucket.secret(&ring(&["old"])).unwrap_err();
    assert!(matches!(refused, StoreError::Sealed { .. }), "{refused:?}");
}

/// One thing of each kind that has an object, and how to be rid of it.
async fn give(store: &Store, tenant: Tenant, kind: &str) {
    let claimed = match kind {
        "model" => Some(running(store, tenant).await),
        _ => None,
    };
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    match kind {
        "file" => files::create(&mut tx, &file(tenant)).await.unwrap(),
        "part" => {
            let upload = upload(tenant);
            uploads::create(&mut tx, &upload).await.unwrap();
            uploads::add_part(&mut tx, &part(&upload)).await.unwrap();
        }
        "model" => {
            let lease = claimed.unwrap().lease;
            let id = FineTunedModelId::new();
            models::publish(&mut tx, &lease, id, "m/", 10, now())
                .await
                .unwrap();
        }
        _ => {
            let target = Target::Object("k".to_owned());
            deletions::enqueue(&mut tx, &target).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_project_that_has_objects_stays_where_it_is(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let id = acme.project_id;
    set(&store, umbrella.project_id, &settings("theirs"), SECRET).await;
    give(&store, umbrella, "file").await;
    let nothing = Held {
        files: 0,
        parts: 0,
        models: 0,
        deletions: 0,
    };
    for (kind, held, clear) in [
        (
            "file",
            Held {
                files: 1,
                ..nothing
            },
            "DELETE FROM files",
        ),
        (
            "part",
            Held {
                parts: 1,
                ..nothing
            },
            "DELETE FROM uploads",
        ),
        (
            "model",
            Held {
                models: 1,
                ..nothing
            },
            "UPDATE fine_tuned_models SET deleted_at = now()",
        ),
        (
            "deletion",
            Held {
                deletions: 1,
                ..nothing
            },
            "DELETE FROM object_deletions",
        ),
    ] {
        give(&store, acme, kind).await;
        let refused = set(&store, id, &settings("a"), SECRET).await;
        assert_eq!(refused, Change::Refused(held), "{kind}");
        assert_eq!(found(&store, id, id).await, None, "{kind}");
        let clear = format!("{clear} WHERE project_id = '{}'", id.0);
        sqlx::query(sqlx::AssertSqlSafe(clear.clone()))
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(set(&store, id, &settings("a"), SECRET).await, Change::Moved);

        give(&store, acme, kind).await;
        assert_eq!(remove(&store, id).await, Change::Refused(held), "{kind}");
        let other = set(&store, id, &settings("b"), SECRET).await;
        assert_eq!(other, Change::Refused(held), "{kind}");
        assert_eq!(
            found(&store, id, id).await.unwrap().settings.bucket,
            "a",
            "{kind}"
        );
        sqlx::query(sqlx::AssertSqlSafe(clear))
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(remove(&store, id).await, Change::Moved, "{kind}");
        assert_eq!(remove(&store, id).await, Change::Nothing, "{kind}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_was_stored_elsewhere_meanwhile_gets_no_row(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = acme.project_id;
    let installation = Location::default();
    set(&store, id, &settings("a"), SECRET).await;
    let first = found(&store, id, id).await.unwrap().location();
    let held = async |location| {
        let mut tx = store.tenant_tx(id).await.unwrap();
        buckets::hold(&mut tx, location).await
    };
    assert!(held(first).await.is_ok());
    let refused = held(installation).await.unwrap_err();
    assert!(matches!(refused, StoreError::BucketChanged), "{refused:?}");
    assert!(refused.is_transient());
    // The same place, given again, is another: what was there may be gone.
    remove(&store, id).await;
    set(&store, id, &settings("a"), SECRET).await;
    assert!(held(first).await.is_err());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_change_and_a_row_wait_for_each_other(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = acme.project_id;
    // The file is there, but nobody sees it yet.
    let mut creating = store.tenant_tx(id).await.unwrap();
    buckets::hold(&mut creating, Location::default())
        .await
        .unwrap();
    files::create(&mut creating, &file(acme)).await.unwrap();
    let setting = tokio::spawn({
        let store = store.clone();
        async move { set(&store, id, &settings("a"), SECRET).await }
    });
    sleep(Duration::from_millis(100)).await;
    assert!(!setting.is_finished());
    creating.commit().await.unwrap();
    let change = timeout(Duration::from_secs(10), setting).await;
    let change = change.unwrap().unwrap();
    assert!(
        matches!(change, Change::Refused(Held { files: 1, .. })),
        "{change:?}"
    );

    sqlx::query("DELETE FROM files")
        .execute(&pool)
        .await
        .unwrap();
    let tx = store.operator_tx().await.unwrap();
    let new = settings("a");
    let ring = ring(&["old"]);
    let set = buckets::set(tx, &ring, id, &new, SECRET, now());
    let (tx, _) = set.await.unwrap();
    let holding = tokio::spawn({
        let store = store.clone();
        async move {
            let mut tx = store.tenant_tx(id).await.unwrap();
            buckets::hold(&mut tx, Location::default()).await
        }
    });
    sleep(Duration::from_millis(100)).await;
    assert!(!holding.is_finished());
    tx.commit().await.unwrap();
    let held = timeout(Duration::from_secs(10), holding).await;
    let held = held.unwrap().unwrap();
    assert!(matches!(held, Err(StoreError::BucketChanged)), "{held:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_secret_does_not_open_in_another_row(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    for tenant in [acme, umbrella] {
        set(&store, tenant.project_id, &settings("a"), SECRET).await;
    }
    sqlx::query(
        "UPDATE project_buckets a SET secret_access_key = b.secret_access_key
         FROM project_buckets b WHERE a.project_id = $1 AND b.project_id = $2",
    )
    .bind::<Uuid>(acme.project_id.0)
    .bind::<Uuid>(umbrella.project_id.0)
    .execute(&pool)
    .await
    .unwrap();
    let id = acme.project_id;
    let moved = found(&store, id, id).await.unwrap();
    assert!(moved.secret(&ring(&["old"])).is_err());
}
