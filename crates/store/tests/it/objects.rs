//! Files, and the deletion of objects that no row names any more.

use domain::{FileId, FineTunedModelId};
use sqlx::PgPool;
use store::deletions::{self, Target};
use store::files::{self, File, FileListing, Order};
use store::{StoreError, checkpoints, jobs, models};
use time::Duration;

use crate::given::{now, running, two_tenants};
use crate::isolation::file;
use crate::leases::checkpoint;

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_deleted_file_takes_its_object_along_once(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let file = file(acme);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    files::create(&mut tx, &file).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert!(!files::delete(&mut tx, file.id, "key").await.unwrap());
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert!(files::delete(&mut tx, file.id, "key").await.unwrap());
    assert!(!files::delete(&mut tx, file.id, "key").await.unwrap());
    tx.commit().await.unwrap();

    let mut tx = store.worker_tx().await.unwrap();
    let pending = deletions::take(&mut tx, 10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].target, Target::Object("key".to_owned()));
    assert!(
        deletions::take(&mut tx, 10).await.unwrap().is_empty(),
        "another sweeper has it"
    );
    deletions::done(&mut tx, &[pending[0].id]).await.unwrap();
    assert!(
        deletions::live_files(&mut tx, &[file.id])
            .await
            .unwrap()
            .is_empty()
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn files_are_listed_both_ways_and_by_purpose(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let mut ids: Vec<FileId> = Vec::new();
    for (seconds, purpose) in [(0, "fine-tune"), (1, "batch"), (2, "fine-tune")] {
        let created_at = now() + Duration::seconds(seconds);
        let file = File {
            created_at,
            purpose: purpose.to_owned(),
            ..file(acme)
        };
        files::create(&mut tx, &file).await.unwrap();
        ids.push(file.id);
    }
    let listing = FileListing {
        purpose: Some("fine-tune".to_owned()),
        after: None,
        limit: 1,
        order: Order::Descending,
    };
    let page = files::list(&mut tx, &listing).await.unwrap();
    assert_eq!((page.data[0].id, page.has_more), (ids[2], true));
    let rest = FileListing {
        after: Some(ids[0]),
        purpose: None,
        limit: 9,
        order: Order::Ascending,
    };
    let page = files::list(&mut tx, &rest).await.unwrap();
    assert_eq!(
        page.data.iter().map(|file| file.id).collect::<Vec<_>>(),
        ids[1..]
    );
    let unknown = FileListing {
        after: Some(FileId::new()),
        ..rest
    };
    let refused = files::list(&mut tx, &unknown).await.unwrap_err();
    assert!(matches!(refused, StoreError::UnknownCursor), "{refused:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_file_expires_when_its_time_is_up(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let file = File {
        expires_at: Some(now() + Duration::hours(1)),
        ..file(acme)
    };
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    files::create(&mut tx, &file).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    assert_eq!(files::expired(&mut tx, now(), 10).await.unwrap(), []);
    let later = now() + Duration::hours(1);
    assert_eq!(
        files::expired(&mut tx, later, 10).await.unwrap(),
        [(acme.project_id, file.id)]
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_deleted_checkpoint_stays_until_its_job_cannot_need_it(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let (lease, job) = (&claimed.lease, claimed.job.clone());
    let name = format!("{}:ckpt-step-2", job.model_name);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 2))
        .await
        .unwrap();
    assert!(models::delete(&mut tx, &name, now()).await.unwrap());
    assert!(!models::delete(&mut tx, &name, now()).await.unwrap());
    assert!(models::resolve(&mut tx, &name).await.unwrap().is_none());
    tx.commit().await.unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    assert!(deletions::take(&mut tx, 10).await.unwrap().is_empty());
    assert!(
        deletions::open_jobs(&mut tx, &[job.id])
            .await
            .unwrap()
            .contains(&job.id)
    );
    drop(tx);

    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    jobs::save(&mut tx, &job.cancel(now()).unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    assert_eq!(deletions::take(&mut tx, 10).await.unwrap().len(), 1);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_prefix_is_live_while_a_model_or_checkpoint_names_it(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let lease = &claimed.lease;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 2))
        .await
        .unwrap();
    models::publish(
        &mut tx,
        lease,
        FineTunedModelId::new(),
        "p/models/m/",
        1_000,
        now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let asked = [
        checkpoint(lease, 2).object_prefix,
        "p/models/m".to_owned(),
        "p/models/n/".to_owned(),
    ];
    let mut tx = store.worker_tx().await.unwrap();
    let live = deletions::live_prefixes(&mut tx, &asked).await.unwrap();
    assert_eq!(live.len(), 2);
    assert!(!live.contains("p/models/n/"));
}
