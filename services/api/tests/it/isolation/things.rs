//! What a tenant has, one of each kind.

use serde_json::{Value, json};

use crate::support::{Client, TestApp};

/// Things of one tenant, or of nobody.
pub(super) struct Things {
    pub(super) file: String,
    pub(super) job: String,
    pub(super) event: String,
    pub(super) checkpoint: String,
    pub(super) model: String,
    pub(super) upload: String,
    pub(super) part: String,
    pub(super) batch: String,
    pub(super) project: String,
    pub(super) key: String,
    pub(super) admin_key: String,
    pub(super) service_account: String,
    pub(super) user: String,
    pub(super) permission: String,
    pub(super) endpoint: String,
    /// Who did the latest that its organization's log tells of.
    pub(super) actor: String,
}

impl Things {
    /// Well formed, and never given to anybody.
    pub(super) fn nobodys() -> Self {
        let zeros = "0".repeat(32);
        Self {
            file: format!("file-{zeros}"),
            job: format!("ftjob-{zeros}"),
            event: format!("ftevent-{zeros}"),
            checkpoint: format!("ftckpt_{zeros}"),
            model: "ft:tiny:nobody::00000000".to_owned(),
            upload: format!("upload_{zeros}"),
            part: format!("part_{zeros}"),
            batch: format!("batch_{zeros}"),
            project: format!("proj_{zeros}"),
            key: format!("key_{zeros}"),
            admin_key: format!("key_{zeros}"),
            service_account: format!("svc_acct_{zeros}"),
            user: format!("user-{zeros}"),
            permission: format!("cp_{zeros}"),
            endpoint: format!("we_{zeros}"),
            actor: format!("key_{zeros}"),
        }
    }

    pub(super) async fn of_alice(app: &TestApp) -> Self {
        Self::of(app, &app.alice, &app.admin, app.alice_project.to_string()).await
    }

    pub(super) async fn of_bob(app: &TestApp) -> Self {
        Self::of(app, &app.bob, &app.bobs_admin, app.bob_project.to_string()).await
    }

    async fn of(app: &TestApp, client: &Client, admin: &Client, project: String) -> Self {
        let job = client.job(json!({})).await;
        let done = app.finish_next_job().await;
        let made = async |path: String, body: Value| id_of(&admin.post(&path, &body).await.ok());
        let first = async |list: &str| {
            let path = format!("/v1/fine_tuning/jobs/{}/{list}", done.id);
            id_of(&client.get(&path).await.ok()["data"][0])
        };
        let at = format!("/v1/organization/projects/{project}");
        let named = json!({"name": "mine"});
        let member = json!({"email": format!("{project}@example.com"), "role": "member"});
        let permissions = format!(
            "/v1/fine_tuning/checkpoints/{}/permissions",
            done.model_name
        );
        let permitted = json!({"project_ids": [project]});
        let permitted = admin.post(&permissions, &permitted).await.ok();
        let hook =
            json!({"name": "mine", "url": "http://127.0.0.1:9/", "event_types": ["batch.failed"]});
        let upload = client.begin_upload(8).await;
        let log = admin.get("/v1/organization/audit_logs").await.ok();
        Self {
            file: job["training_file"].as_str().unwrap().to_owned(),
            job: done.id.to_string(),
            event: first("events").await,
            checkpoint: first("checkpoints").await,
            part: client.add_part(&upload, "abcd").await,
            upload,
            batch: client.batch(&["ok"]).await,
            key: made(format!("{at}/api_keys"), named.clone()).await,
            service_account: made(format!("{at}/service_accounts"), named.clone()).await,
            user: made(format!("{at}/users"), member).await,
            admin_key: made("/v1/organization/admin_api_keys".to_owned(), named).await,
            permission: id_of(&permitted["data"][0]),
            endpoint: id_of(&client.post("/v1/webhook_endpoints", &hook).await.ok()),
            actor: id_of(&log["data"][0]["actor"]),
            model: done.model_name,
            project,
        }
    }

    /// The thing that a field or a parameter of this name names, if its name says what it is.
    pub(super) fn called(&self, field: &str) -> Option<&str> {
        Some(match field {
            "model" => &self.model,
            "file" | "training_file" | "validation_file" | "input_file_id" => &self.file,
            "part_ids" => &self.part,
            "project_id" | "project_ids" => &self.project,
            "service_account_id" => &self.service_account,
            "user_id" => &self.user,
            "actor_ids" => &self.actor,
            "resource_ids" => &self.job,
            _ => return None,
        })
    }
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().expect("it has an id").to_owned()
}

/// The places of a pattern, as they stand in it.
pub(super) fn places(pattern: &str) -> Vec<&str> {
    let segments = pattern.split('/');
    segments
        .filter(|segment| segment.starts_with('{'))
        .collect()
}

/// The thing that belongs into a place of the pattern; a place that names something new must be given one here.
pub(super) fn thing_at<'a>(things: &'a Things, pattern: &str, place: &str) -> Option<&'a str> {
    Some(match place {
        "{id}" => match pattern.split('/').nth(2) {
            Some("files") => &things.file,
            Some("uploads") => &things.upload,
            Some("batches") => &things.batch,
            Some("webhook_endpoints") => &things.endpoint,
            _ => &things.job,
        },
        "{model}" | "{*model}" => &things.model,
        "{project_id}" => &things.project,
        "{key_id}" if pattern.contains("admin_api_keys") => &things.admin_key,
        "{key_id}" => &things.key,
        "{service_account_id}" => &things.service_account,
        "{user_id}" => &things.user,
        "{permission_id}" => &things.permission,
        // Every project has this one.
        "{rate_limit_id}" => "rl-project",
        _ => return None,
    })
}

/// The pattern with these things in its places.
pub(super) fn named(pattern: &str, things: &Things) -> String {
    let segments = pattern
        .split('/')
        .map(|segment| thing_at(things, pattern, segment).unwrap_or(segment));
    segments.collect::<Vec<_>>().join("/")
}
