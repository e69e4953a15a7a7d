//! A model that one project lets another use.

use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// Another project of alice's organization, and a client of it.
pub(crate) async fn second_project(app: &TestApp) -> (String, Client) {
    let made = app
        .admin
        .post("/v1/organization/projects", &json!({"name": "Second"}))
        .await;
    let project = made.ok()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/organization/projects/{project}/api_keys");
    let owner = json!({"name": "second", "role": "owner"});
    let key = app.admin.post(&path, &owner).await.ok();
    (
        project,
        app.anonymous.with_key(key["value"].as_str().unwrap()),
    )
}

fn at(model: &str) -> String {
    format!("/v1/fine_tuning/checkpoints/{model}/permissions")
}

fn ids(list: &Value) -> Vec<&str> {
    let data = list["data"].as_array().unwrap();
    data.iter()
        .map(|each| each["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_permitted_model_can_be_used_and_not_deleted_until_it_is_taken_back() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    let (project, second) = second_project(&app).await;
    let path = format!("/v1/models/{model}");
    assert_eq!(second.get(&path).await.status, 404);

    let made = app
        .admin
        .post(&at(&model), &json!({"project_ids": [project]}))
        .await
        .ok();
    assert_eq!(made["data"][0]["object"], "checkpoint.permission");
    assert_eq!(made["data"][0]["project_id"], project);
    assert_eq!(second.get(&path).await.ok()["id"], model);
    let listed = second.get("/v1/models").await.ok();
    assert_eq!(ids(&listed), ["tiny", &model]);
    // Going on from it resolves the name as answering by it does.
    second.job(json!({"model": model})).await;
    assert_eq!(second.delete(&path).await.status, 404);
    // Its checkpoint is a model of its own.
    assert_eq!(second.get(&format!("{path}:ckpt-step-1")).await.status, 404);
    assert_eq!(app.bob.get(&path).await.status, 404);

    let permission = made["data"][0]["id"].as_str().unwrap();
    let gone = app
        .admin
        .delete(&format!("{}/{permission}", at(&model)))
        .await
        .ok();
    assert_eq!(
        gone,
        json!({"id": permission, "object": "checkpoint.permission", "deleted": true})
    );
    assert_eq!(second.get(&path).await.status, 404);
    assert_eq!(app.alice.get(&path).await.status, 200);
}

#[tokio::test]
async fn permissions_are_listed_in_either_order_and_paged() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    let (second, _) = second_project(&app).await;
    let (third, _) = second_project(&app).await;
    let body = json!({"project_ids": [second, third]});
    let made = app.admin.post(&at(&model), &body).await.ok();
    // Asked for twice, they are the same.
    assert_eq!(app.admin.post(&at(&model), &body).await.ok(), made);
    let [old, new] = ids(&made)[..] else {
        panic!("{made}")
    };
    let list = app.admin.get(&at(&model)).await.ok();
    assert_eq!(ids(&list), [new, old]);
    assert_eq!(
        (&list["first_id"], &list["last_id"]),
        (&json!(new), &json!(old))
    );
    let page = app
        .admin
        .get(&format!("{}?order=ascending&limit=1", at(&model)))
        .await
        .ok();
    assert_eq!((ids(&page), &page["has_more"]), (vec![old], &json!(true)));
    let next = format!("{}?order=ascending&limit=1&after={old}", at(&model));
    let page = app.admin.get(&next).await.ok();
    assert_eq!((ids(&page), &page["has_more"]), (vec![new], &json!(false)));
    let of_one = app
        .admin
        .get(&format!("{}?project_id={third}", at(&model)))
        .await
        .ok();
    assert_eq!(ids(&of_one), [new]);
    let wrong = app.admin.get(&format!("{}?order=asc", at(&model))).await;
    assert_eq!(wrong.refusal().1.as_deref(), Some("order"));
}

#[tokio::test]
async fn a_name_with_slashes_may_stand_raw_or_encoded() {
    let app = TestApp::start_with_base("a/tiny").await;
    app.alice.job(json!({"model": "a/tiny"})).await;
    let model = app.finish_next_job().await.model_name;
    let (project, second) = second_project(&app).await;
    let raw = app
        .admin
        .post(&at(&model), &json!({"project_ids": [project]}))
        .await
        .ok();
    for name in [
        model.clone(),
        model.replace('/', "%2F"),
        model.replace('/', "%2f").replace(':', "%3A"),
    ] {
        assert_eq!(
            app.admin.get(&at(&name)).await.ok()["data"],
            raw["data"],
            "{name}"
        );
    }
    assert_eq!(second.get(&format!("/v1/models/{model}")).await.status, 200);
    let path = format!("{}/{}", at(&model), raw["first_id"].as_str().unwrap());
    app.admin.delete(&path).await.ok();
}

#[tokio::test]
async fn no_permission_crosses_organizations() {
    let app = TestApp::start().await;
    app.alice.job(json!({})).await;
    let model = app.finish_next_job().await.model_name;
    let bobs = json!({"project_ids": [app.bob_project]});
    let refusal = app.admin.post(&at(&model), &bobs).await.refusal();
    assert_eq!(
        (refusal.0, refusal.1.as_deref()),
        (404, Some("project_ids"))
    );
    assert_eq!(app.bobs_admin.post(&at(&model), &bobs).await.status, 404);
    assert_eq!(app.bobs_admin.get(&at(&model)).await.status, 404);
    assert_eq!(
        app.bob.get(&format!("/v1/models/{model}")).await.status,
        404
    );
}
