//! Which models answer to whom.

use domain::ProjectId;
use serde_json::json;
use sqlx::PgPool;
use store::{models, permissions, projects};
use time::OffsetDateTime;

use crate::harness::{BASE, TestServer, content, greedy};

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_tuned_model_and_its_checkpoint_answer_otherwise_than_the_base(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let base = server.answer(&greedy(BASE, 20)).await;
    let tuned = server.answer(&greedy(&server.tuned, 20)).await;
    assert_eq!(tuned["model"], server.tuned);
    assert_ne!(content(&tuned), content(&base));
    // The test's checkpoint holds the same adapter as the model.
    let checkpoint = format!("{}:ckpt-step-4", server.tuned);
    let of_checkpoint = server.answer(&greedy(&checkpoint, 20)).await;
    assert_eq!(content(&of_checkpoint), content(&tuned));
    assert_eq!(
        content(&server.answer(&greedy(BASE, 20)).await),
        content(&base)
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn another_projects_model_is_a_404_like_a_missing_one(pool: PgPool) {
    let server = TestServer::start(pool).await;
    // It is in the cache, so that only the look-up can keep it from the stranger.
    server.answer(&greedy(&server.tuned, 1)).await;
    let missing = "ft:tiny:acme::00000000";
    let stranger = server.stranger;
    for (project_id, model) in [
        (stranger, server.tuned.clone()),
        (stranger, format!("{}:ckpt-step-4", server.tuned)),
        (ProjectId::new(), server.tuned.clone()),
        (stranger, missing.to_owned()),
        (server.owner, missing.to_owned()),
        (server.owner, "nothing".to_owned()),
        (server.owner, format!("{}:ckpt-step-5", server.tuned)),
        (server.owner, "nul\0".to_owned()),
    ] {
        let (status, error) = server.refusal(project_id, &greedy(&model, 1)).await;
        let message =
            format!("The model `{model}` does not exist or you do not have access to it.");
        let expected = json!({
            "message": message, "type": "invalid_request_error", "param": "model",
            "code": "model_not_found",
        });
        assert_eq!((status, error), (404, expected));
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_deleted_model_is_gone_although_it_is_loaded(pool: PgPool) {
    let server = TestServer::start(pool).await;
    server.answer(&greedy(&server.tuned, 1)).await;
    let mut tx = server.store.tenant_tx(server.owner).await.unwrap();
    let now = OffsetDateTime::UNIX_EPOCH;
    assert!(models::delete(&mut tx, &server.tuned, now).await.unwrap());
    tx.commit().await.unwrap();
    let (status, _) = server
        .refusal(server.owner, &greedy(&server.tuned, 1))
        .await;
    assert_eq!(status, 404);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_permitted_model_answers_until_the_permission_is_taken_back(pool: PgPool) {
    let server = TestServer::start(pool).await;
    let mut tx = server.store.tenant_tx(server.owner).await.unwrap();
    let org_id = projects::own(&mut tx).await.unwrap().unwrap().org_id;
    drop(tx);
    let now = OffsetDateTime::UNIX_EPOCH;
    let mut tx = server.store.org_tx(org_id).await.unwrap();
    let second = projects::create_named(&mut tx, org_id, "Second", now).await;
    let second = second.unwrap().id;
    tx.commit().await.unwrap();
    let status = async || {
        let request = server.ask_for(second, &greedy(&server.tuned, 1));
        request.send().await.unwrap().status()
    };
    assert_eq!(status().await, 404);

    let mut tx = server.store.org_tx(org_id).await.unwrap();
    let model = permissions::model(&mut tx, &server.tuned).await.unwrap();
    let model = model.unwrap();
    let made = permissions::create(&mut tx, &model, second, now).await;
    let made = made.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(status().await, 200);

    let mut tx = server.store.org_tx(org_id).await.unwrap();
    permissions::delete(&mut tx, &model, made.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(status().await, 404);
}
