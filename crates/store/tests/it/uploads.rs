//! Uploads and their parts.

use domain::upload::{Completion, UPLOAD_LIFETIME};
use domain::{FileId, PartId, Upload, UploadId, UploadStatus};
use sqlx::PgPool;
use store::deletions::{self, Target};
use store::uploads::{self, Part};

use crate::given::{Tenant, now, two_tenants};

pub(crate) fn upload(tenant: Tenant) -> Upload {
    Upload {
        id: UploadId::new(),
        project_id: tenant.project_id,
        filename: "train.jsonl".to_owned(),
        purpose: "fine-tune".to_owned(),
        size_bytes: 8,
        expires_after_secs: Some(3600),
        status: UploadStatus::Pending,
        completed: None,
        created_at: now(),
        expires_at: now() + UPLOAD_LIFETIME,
    }
}

pub(crate) fn part(upload: &Upload) -> Part {
    Part {
        id: PartId::new(),
        upload_id: upload.id,
        size_bytes: 8,
        created_at: now(),
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_upload_that_ended_has_no_parts_and_says_how_it_ended(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let (upload, file_id) = (upload(acme), FileId::new());
    let part = part(&upload);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    uploads::create(&mut tx, &upload).await.unwrap();
    uploads::add_part(&mut tx, &part).await.unwrap();
    assert_eq!(
        uploads::find(&mut tx, upload.id).await.unwrap(),
        Some(upload.clone())
    );
    assert_eq!(uploads::parts(&mut tx, upload.id).await.unwrap(), [part]);
    let with = Completion {
        part_ids: vec![part.id],
        md5: Some("0".repeat(32)),
    };
    let done = upload.complete(with, file_id).unwrap();
    uploads::end(&mut tx, &done, "p/uploads/u/").await.unwrap();
    let found = uploads::find_for_update(&mut tx, done.id).await.unwrap();
    assert_eq!(found, Some(done.clone()));
    assert_eq!(uploads::parts(&mut tx, done.id).await.unwrap(), []);
    tx.commit().await.unwrap();

    let mut tx = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert_eq!(uploads::find(&mut tx, done.id).await.unwrap(), None);
    drop(tx);
    let mut tx = store.worker_tx().await.unwrap();
    let pending = deletions::take(&mut tx, 10).await.unwrap();
    assert_eq!(pending[0].target, Target::Prefix("p/uploads/u/".to_owned()));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn only_pending_uploads_expire_and_keep_their_objects(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let (open, given_up) = (upload(acme), upload(acme));
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    uploads::create(&mut tx, &open).await.unwrap();
    uploads::create(&mut tx, &given_up).await.unwrap();
    let given_up = given_up.cancel(now()).unwrap();
    uploads::end(&mut tx, &given_up, "p/").await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = store.worker_tx().await.unwrap();
    let live = deletions::open_uploads(&mut tx, &[open.id, given_up.id])
        .await
        .unwrap();
    assert!(live.contains(&open.id) && live.len() == 1, "{live:?}");
    let early = open.expires_at - time::Duration::MICROSECOND;
    assert_eq!(uploads::expired(&mut tx, early, 9).await.unwrap(), []);
    assert_eq!(
        uploads::expired(&mut tx, open.expires_at, 9).await.unwrap(),
        [(acme.project_id, open.id)]
    );
}
