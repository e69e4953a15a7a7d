//! Batches: whose turn it is, and that each line is answered once.

use std::time::Duration;

use domain::batch::{Counts, Times, Usage, WINDOW};
use domain::{Batch, BatchId, BatchStatus, FileId};
use sqlx::PgPool;
use store::batches::lines::{self, Answer, Line};
use store::batches::turns::{self, Turn};
use store::{Store, StoreError, batches};

use crate::given::{Tenant, now, two_tenants};

const LEASE: Duration = Duration::from_mins(1);

pub(crate) fn batch(tenant: Tenant, age_secs: i64) -> Batch {
    let created_at = now() - time::Duration::seconds(age_secs);
    Batch {
        id: BatchId::new(),
        project_id: tenant.project_id,
        endpoint: "/v1/chat/completions".to_owned(),
        input_file: FileId::new(),
        output_expires_after_secs: None,
        metadata: None,
        status: BatchStatus::Validating,
        model: None,
        errors: None,
        counts: Counts::default(),
        usage: Usage::default(),
        output_file: None,
        error_file: None,
        created_at,
        expires_at: created_at + WINDOW,
        times: Times::default(),
    }
}

pub(crate) fn line(line: u64) -> Line {
    Line {
        line,
        custom_id: format!("request-{line}"),
        start_byte: line * 10,
        n_bytes: 9,
    }
}

pub(crate) async fn turn(store: &Store) -> Option<(Batch, Turn)> {
    let mut tx = store.worker_tx().await.unwrap();
    let claimed = turns::claim(&mut tx, LEASE).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn stored(store: &Store, batch: Batch) -> BatchId {
    let mut tx = store.tenant_tx(batch.project_id).await.unwrap();
    batches::create(&mut tx, &batch).await.unwrap();
    tx.commit().await.unwrap();
    batch.id
}

async fn release(store: &Store, turn: &Turn) {
    let mut tx = store.worker_tx().await.unwrap();
    turns::release(&mut tx, turn).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn projects_take_turns_and_none_has_two_at_once(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let mut acmes = Vec::new();
    for age in [30, 20, 10] {
        acmes.push(stored(&store, batch(acme, age)).await);
    }
    let umbrellas = stored(&store, batch(umbrella, 0)).await;

    let (first, first_turn) = turn(&store).await.unwrap();
    let (second, second_turn) = turn(&store).await.unwrap();
    assert_eq!((first.id, second.id), (acmes[0], umbrellas));
    assert_eq!(turn(&store).await, None, "each project has its turn");
    release(&store, &first_turn).await;
    release(&store, &second_turn).await;
    // Acme was served longer ago, and its second batch before its first comes again.
    assert_eq!(turn(&store).await.unwrap().0.id, acmes[1]);
    assert_eq!(turn(&store).await.unwrap().0.id, umbrellas);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_line_is_answered_once_whoever_answers_it(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = stored(&store, batch(acme, 0)).await;
    let (_, lost) = turn(&store).await.unwrap();
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    lines::create(&mut tx, &lost, &[line(1), line(2)])
        .await
        .unwrap();
    let answer = Answer {
        text: "{}".to_owned(),
        is_error: false,
        usage: Usage {
            input_tokens: 3,
            output_tokens: 4,
            ..Usage::default()
        },
    };
    assert!(lines::record(&mut tx, &lost, 1, &answer).await.unwrap());
    assert!(!lines::record(&mut tx, &lost, 1, &answer).await.unwrap());
    tx.commit().await.unwrap();

    // Its holder is lost; another goes on.
    sqlx::query("UPDATE batches SET lease_expires_at = now() - interval '1 s'")
        .execute(&pool)
        .await
        .unwrap();
    let (found, taken) = turn(&store).await.unwrap();
    assert_eq!((found.id, found.counts.completed), (id, 1));
    assert_eq!(
        (found.usage.input_tokens, found.usage.output_tokens),
        (3, 4)
    );
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert_eq!(lines::waiting(&mut tx, id, 0, 9).await.unwrap(), [line(2)]);
    let refused = lines::record(&mut tx, &lost, 2, &answer).await.unwrap_err();
    assert!(matches!(refused, StoreError::LeaseLost), "{refused:?}");
    assert!(lines::record(&mut tx, &taken, 2, &answer).await.unwrap());
    let both = [(1, "{}".to_owned()), (2, "{}".to_owned())];
    for (page, expected) in [
        ((9, 3), &both[..]),
        ((9, 2), &both[..1]),
        ((1, 99), &both[..1]),
    ] {
        let answers = lines::answers(&mut tx, id, false, 0, page).await;
        assert_eq!(answers.unwrap(), expected, "{page:?}");
    }
    tx.commit().await.unwrap();

    let mut tx = store.worker_tx().await.unwrap();
    let refused = turns::heartbeat(&mut tx, &lost, LEASE).await.unwrap_err();
    assert!(matches!(refused, StoreError::LeaseLost), "{refused:?}");
    let status = turns::heartbeat(&mut tx, &taken, LEASE).await.unwrap();
    assert_eq!(status, BatchStatus::Validating);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_batch_that_ended_holds_no_turn(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let id = stored(&store, batch(acme, 0)).await;
    let (_, turn_at_it) = turn(&store).await.unwrap();
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let batch = turns::hold(&mut tx, &turn_at_it).await.unwrap();
    assert_eq!(batches::count_open(&mut tx).await.unwrap(), 1);
    let done = batch.cancel(now()).unwrap().finish(None, None, now());
    batches::save(&mut tx, &done.unwrap()).await.unwrap();
    assert_eq!(batches::count_open(&mut tx).await.unwrap(), 0);
    let refused = turns::hold(&mut tx, &turn_at_it).await.unwrap_err();
    assert!(matches!(refused, StoreError::LeaseLost), "{refused:?}");
    let found = batches::find(&mut tx, id).await.unwrap().unwrap();
    assert_eq!(found.status, BatchStatus::Cancelled);
    tx.commit().await.unwrap();
    assert_eq!(turn(&store).await, None);
}
