//! The fence: an attempt that lost its lease writes nothing, and one that resumes repeats nothing.

use std::collections::BTreeMap;

use domain::{FineTunedModelId, JobStatus};
use serde_json::json;
use sqlx::PgPool;
use store::checkpoints::{self, CheckpointMetrics, NewCheckpoint};
use store::deletions::{self, Target};
use store::events::{self, EventLevel, NewEvent};
use store::metrics::{self, StepMetrics};
use store::{Lease, Store, StoreError, TenantTx, feed, lease, models};

use crate::given::{claimed, expire_and_reap, now, running, two_tenants};

pub(crate) fn step(step: u64) -> StepMetrics {
    StepMetrics {
        step,
        train_loss: 1.5 / f64::from(u32::try_from(step).unwrap()),
        train_accuracy: 0.25,
        valid_loss: step.is_multiple_of(2).then_some(0.1),
        valid_accuracy: None,
        learning_rate: 1e-3,
        grad_norm: 0.3,
        n_tokens: 100,
        n_loss_tokens: 30,
        step_ms: 12.5,
    }
}

pub(crate) fn checkpoint(lease: &Lease, step: u64) -> NewCheckpoint {
    NewCheckpoint {
        step,
        object_prefix: format!(
            "{}/jobs/{}/{}/{step}/",
            lease.project_id, lease.job_id, lease.attempt
        ),
        metrics: CheckpointMetrics {
            step,
            train_loss: 1.0,
            train_mean_token_accuracy: 0.5,
            valid_loss: None,
            valid_mean_token_accuracy: None,
            full_valid_loss: None,
            full_valid_mean_token_accuracy: None,
        },
        manifest: BTreeMap::from([("adapter_model.safetensors".to_owned(), "a".repeat(64))]),
        size_bytes: 100,
        created_at: now(),
    }
}

async fn tenant_tx(store: &Store, lease: &Lease) -> TenantTx {
    store.tenant_tx(lease.project_id).await.unwrap()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_stale_worker_writes_nothing(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let stale = running(&store, acme).await;
    let mut tx = tenant_tx(&store, &stale.lease).await;
    lease::still_ours(&mut tx, &stale.lease).await.unwrap();
    tx.commit().await.unwrap();
    expire_and_reap(&store, &pool).await;
    claimed(&store).await.unwrap();
    let lease = &stale.lease;
    let mut tx = tenant_tx(&store, lease).await;
    let event = NewEvent::message(EventLevel::Info, "still here", now());
    let id = FineTunedModelId::new();
    let done = stale.job.clone().start().unwrap();
    let outcomes = [
        lease::still_ours(&mut tx, lease).await,
        lease::hold(&mut tx, lease).await,
        lease::save(&mut tx, lease, &done).await,
        lease::release(&mut tx, lease, std::time::Duration::ZERO)
            .await
            .map(|_| ()),
        lease::retry_later(&mut tx, lease, store::queue::backoff(1), "no room")
            .await
            .map(|_| ()),
        lease::resume_from(&mut tx, lease, 0).await,
        events::report(&mut tx, lease, &[event]).await,
        metrics::record(&mut tx, lease, &[step(1)]).await,
        checkpoints::create(&mut tx, lease, &checkpoint(lease, 1))
            .await
            .map(|_| ()),
        models::publish(&mut tx, lease, id, "adapter/", 10, now())
            .await
            .map(|_| ()),
    ];
    for (n, outcome) in outcomes.iter().enumerate() {
        assert!(
            matches!(outcome, Err(StoreError::LeaseLost)),
            "write {n}: {outcome:?}"
        );
    }
    tx.commit().await.unwrap();
    let mut tx = tenant_tx(&store, lease).await;
    assert!(
        metrics::list(&mut tx, lease.job_id, 0, 10)
            .await
            .unwrap()
            .data
            .is_empty()
    );
    assert!(
        checkpoints::latest(&mut tx, lease.job_id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(models::list(&mut tx).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_attempt_that_resumes_drops_what_it_will_repeat(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let first = running(&store, acme).await;
    let lease = &first.lease;
    let mut tx = tenant_tx(&store, lease).await;
    let mut places = Vec::new();
    for n in 1..=5 {
        metrics::record(&mut tx, lease, &[step(n)]).await.unwrap();
        let event = NewEvent::metrics(format!("Step {n}/9"), json!({"step": n}), now());
        places.push(event.id);
        events::report(&mut tx, lease, &[event]).await.unwrap();
    }
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 2))
        .await
        .unwrap();
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 4))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    expire_and_reap(&store, &pool).await;

    let second = claimed(&store).await.unwrap();
    let mut tx = tenant_tx(&store, &second.lease).await;
    lease::resume_from(&mut tx, &second.lease, 2).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = tenant_tx(&store, &second.lease).await;
    let kept = metrics::list(&mut tx, lease.job_id, 0, 10).await.unwrap();
    assert_eq!(kept.data, [step(1), step(2)]);
    let told = events::list(&mut tx, lease.job_id, None, 10)
        .await
        .unwrap()
        .data;
    let told: Vec<_> = told
        .iter()
        .rev()
        .map(|event| event.message.as_str())
        .collect();
    assert_eq!(told[..2], ["Step 1/9", "Step 2/9"]);
    assert!(
        told[2].contains("worker was lost") && told.len() == 3,
        "{told:?}"
    );
    for (n, place) in (1..).zip(places) {
        let before = events::list(&mut tx, lease.job_id, Some(place), 10).await;
        let before = before.unwrap().data;
        let before: Vec<_> = before.iter().map(|event| event.message.as_str()).collect();
        let counting = ["Step 2/9", "Step 1/9"];
        assert_eq!(before, counting[3_usize.saturating_sub(n)..], "before {n}");
        let place = events::place(&mut tx, lease.job_id, Some(place)).await;
        let (after, last) = events::following(&mut tx, lease.job_id, place.unwrap(), 10)
            .await
            .unwrap();
        let after: Vec<_> = after.iter().map(|event| event.message.as_str()).collect();
        assert_eq!(after, told[n.min(2)..], "after {n}");
        let mut feed = store.feed_tx().await.unwrap();
        let watched = [(lease.project_id, lease.job_id)];
        let heads = feed::heads(&mut feed, &watched).await.unwrap();
        assert_eq!(heads[0].place, last);
    }
    assert_eq!(
        checkpoints::latest(&mut tx, lease.job_id)
            .await
            .unwrap()
            .unwrap()
            .step,
        2
    );
    assert_eq!(models::list(&mut tx).await.unwrap().len(), 1);
    let mut tx = store.worker_tx().await.unwrap();
    let pending = deletions::take(&mut tx, 10).await.unwrap();
    let prefix = checkpoint(lease, 4).object_prefix;
    assert_eq!(
        pending.into_iter().map(|p| p.target).collect::<Vec<_>>(),
        [Target::Prefix(prefix)]
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_checkpoint_and_a_result_are_models(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let (lease, name) = (&claimed.lease, claimed.job.model_name.as_str());
    let mut tx = tenant_tx(&store, lease).await;
    checkpoints::create(&mut tx, lease, &checkpoint(lease, 4))
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

    let mut tx = tenant_tx(&store, lease).await;
    let result = models::resolve(&mut tx, name).await.unwrap().unwrap();
    assert_eq!(result.tuned.unwrap().adapter_prefix, "p/models/m/");
    let at_4 = models::resolve(&mut tx, &format!("{name}:ckpt-step-4"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(at_4.tuned.unwrap().checkpoint_step, Some(4));
    assert!(
        models::resolve(&mut tx, &format!("{name}:ckpt-step-5"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        models::resolve(&mut tx, crate::given::BASE)
            .await
            .unwrap()
            .unwrap()
            .tuned
            .is_none()
    );
    let mut other = store.tenant_tx(umbrella.project_id).await.unwrap();
    assert!(models::resolve(&mut other, name).await.unwrap().is_none());
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn losses_come_back_bit_for_bit(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let odd = StepMetrics {
        train_loss: 0.1 + 0.2,
        grad_norm: f64::INFINITY,
        ..step(1)
    };
    let mut tx = tenant_tx(&store, &claimed.lease).await;
    metrics::record(&mut tx, &claimed.lease, std::slice::from_ref(&odd))
        .await
        .unwrap();
    assert_eq!(
        metrics::list(&mut tx, claimed.job.id, 0, 1)
            .await
            .unwrap()
            .data,
        [odd]
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn an_event_told_twice_is_stored_once_and_keeps_no_nul(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let event = NewEvent::metrics("row `a\u{0}b`", json!({"text": "\u{0}", "step": 1}), now());
    let mut tx = tenant_tx(&store, &claimed.lease).await;
    let twice = [event.clone(), event];
    events::report(&mut tx, &claimed.lease, &twice[..1])
        .await
        .unwrap();
    events::report(&mut tx, &claimed.lease, &twice[1..])
        .await
        .unwrap();
    let told = events::list(&mut tx, claimed.job.id, None, 10)
        .await
        .unwrap()
        .data;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "row `a\u{fffd}b`");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_finished_job_needs_no_lease(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let claimed = running(&store, acme).await;
    let outcome = domain::job::Outcome {
        trained_tokens: 7,
        result_file: domain::FileId::new(),
    };
    let done = claimed.job.clone().succeed(&outcome, now()).unwrap();
    let mut tx = tenant_tx(&store, &claimed.lease).await;
    lease::save(&mut tx, &claimed.lease, &done).await.unwrap();
    tx.commit().await.unwrap();
    let stored = crate::given::found(&store, &done).await;
    assert_eq!(
        (stored.status, stored.trained_tokens),
        (JobStatus::Succeeded, Some(7))
    );
    assert!(expire_and_reap(&store, &pool).await.is_empty());
}
