//! Who else may use a model, and the projects that are let, by an administrator.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::admin::project_service_accounts::ProjectServiceAccountCreateRequest;
use async_openai::types::finetuning::CreateFineTuningCheckpointPermissionRequest;

use crate::Done;

pub async fn of_a_checkpoint(client: &Client<OpenAIConfig>, model: &str) -> Done {
    // The request's builder refuses to leave anything out.
    let request = serde_json::from_value(serde_json::json!({"name": "Rust"}))?;
    let project = client.admin().projects().create(request).await?;
    service_accounts(client, &project.id).await?;
    let jobs = client.fine_tuning();
    let request = CreateFineTuningCheckpointPermissionRequest { project_ids: vec![project.id.clone()] };
    let made = jobs.create_checkpoint_permissions(model, request).await?;
    let id = made.data[0].id.clone();
    let listed = jobs.list_checkpoint_permissions(model).await?;
    assert!(listed.data.iter().any(|permission| permission.id == id && permission.project_id == project.id));
    assert!(jobs.delete_checkpoint_permissions(model, &id).await?.deleted);
    let archived = client.admin().projects().archive(project.id).await?;
    assert_eq!(archived.status.as_deref(), Some("archived"));
    Ok(())
}

async fn service_accounts(client: &Client<OpenAIConfig>, project: &str) -> Done {
    let admin = client.admin();
    let projects = admin.projects();
    let accounts = projects.service_accounts(project);
    let request = ProjectServiceAccountCreateRequest {
        name: "ci".into(),
        create_service_account_only: None,
        expires_in_seconds: Some(3600),
    };
    let made = accounts.create(request).await?;
    assert!(made.api_key.is_some());
    assert_eq!(accounts.list().await?.data.len(), 1);
    assert_eq!(accounts.retrieve(&made.id).await?.name, "ci");
    assert!(accounts.delete(&made.id).await?.deleted);
    Ok(())
}
