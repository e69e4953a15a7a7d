//! `async-openai`, the strictest of the clients: a missing key, a null where it expects a number or a status outside its
//! enum fails the whole answer, a whole page of a list included.
//!
//! Runs against the server that `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_ADMIN_KEY` name. `ATTUNE_JOB` is a finished
//! job there. It has no calls for graders and webhook endpoints.

mod inference;
mod parts;
mod permissions;

use std::env::var;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::InputSource;
use async_openai::types::files::{CreateFileRequest, FileInput, FilePurpose};
use async_openai::types::finetuning::{
    BatchSize, Beta, CreateFineTuningJobRequest, FineTuneDPOHyperparameters, FineTuneDPOMethod, FineTuneMethod,
    FineTuneSupervisedHyperparameters, FineTuneSupervisedMethod, FineTuningJobStatus, NEpochs,
};

type Done = Result<(), Box<dyn std::error::Error>>;

const ROW: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;

#[tokio::main]
async fn main() -> Done {
    let client = client("OPENAI_API_KEY")?;
    let tuned = client.fine_tuning().retrieve(&var("ATTUNE_JOB")?).await?;
    let model = tuned.fine_tuned_model.clone().ok_or("the finished job has no model")?;
    files(&client).await?;
    parts::uploads(&client).await?;
    jobs(&client).await?;
    pausing(&client).await?;
    finished_job(&client, &tuned.id).await?;
    models(&client).await?;
    inference::chat(&client, &model).await?;
    inference::batches(&client).await?;
    permissions::of_a_checkpoint(&self::client("OPENAI_ADMIN_KEY")?, &format!("{model}:ckpt-step-5")).await?;
    println!("async-openai: all of it passed");
    Ok(())
}

fn client(key: &str) -> Result<Client<OpenAIConfig>, Box<dyn std::error::Error>> {
    let config = OpenAIConfig::new()
        .with_api_base(var("OPENAI_BASE_URL")?)
        .with_api_key(var(key)?)
        // A paused job is outside this client's enum of statuses.
        .with_header("attune-compat", "openai")?;
    Ok(Client::with_config(config))
}

async fn upload(client: &Client<OpenAIConfig>) -> Result<String, OpenAIError> {
    upload_for(client, FilePurpose::FineTune, ROW.into()).await
}

async fn upload_for(
    client: &Client<OpenAIConfig>,
    purpose: FilePurpose,
    content: String,
) -> Result<String, OpenAIError> {
    let source = InputSource::Bytes { filename: "rows.jsonl".into(), bytes: content.into() };
    let request = CreateFileRequest { file: FileInput { source }, purpose, expires_after: None };
    Ok(client.files().create(request).await?.id)
}

async fn files(client: &Client<OpenAIConfig>) -> Done {
    let id = upload(client).await?;
    assert_eq!(client.files().retrieve(&id).await?.bytes as usize, ROW.len());
    assert_eq!(client.files().content(&id).await?, ROW.as_bytes());
    assert!(client.files().list().await?.data.iter().any(|file| file.id == id));
    assert!(client.files().delete(&id).await?.deleted);
    match client.files().retrieve(&id).await {
        Err(OpenAIError::ApiError(error)) => {
            let error = format!("{error:?}");
            assert!(error.contains("file_not_found"), "{error}");
        }
        other => panic!("a deleted file is answered with {other:?}"),
    }
    Ok(())
}

async fn jobs(client: &Client<OpenAIConfig>) -> Done {
    let supervised = FineTuneSupervisedMethod {
        hyperparameters: FineTuneSupervisedHyperparameters {
            n_epochs: NEpochs::NEpochs(50),
            batch_size: BatchSize::Auto,
            ..Default::default()
        },
    };
    let dpo = FineTuneDPOMethod {
        hyperparameters: FineTuneDPOHyperparameters { beta: Beta::Beta(0.5), ..Default::default() },
    };
    for method in [FineTuneMethod::Supervised { supervised }, FineTuneMethod::DPO { dpo }] {
        let request = CreateFineTuningJobRequest {
            model: "tiny".into(),
            training_file: upload(client).await?,
            method: Some(method),
            seed: Some(7),
            ..Default::default()
        };
        let jobs = client.fine_tuning();
        let job = jobs.create(request).await?;
        assert_eq!(job.seed, 7);
        assert_eq!(jobs.retrieve(&job.id).await?.id, job.id);
        assert_eq!(jobs.list_paginated().await?.data[0].id, job.id);
        let cancelled = jobs.cancel(&job.id).await;
        // A worker may have been quicker.
        if let Ok(cancelled) = cancelled {
            assert_eq!(cancelled.status, FineTuningJobStatus::Cancelled);
        }
        assert!(!jobs.list_events(&job.id).await?.data.is_empty());
        assert!(!jobs.list_checkpoints(&job.id).await?.has_more);
    }
    Ok(())
}

async fn pausing(client: &Client<OpenAIConfig>) -> Done {
    let rows = format!("{ROW}\n").repeat(400);
    let request = CreateFineTuningJobRequest {
        model: "tiny".into(),
        training_file: upload_for(client, FilePurpose::FineTune, rows).await?,
        method: Some(FineTuneMethod::Supervised {
            supervised: FineTuneSupervisedMethod {
                hyperparameters: FineTuneSupervisedHyperparameters {
                    n_epochs: NEpochs::NEpochs(50),
                    batch_size: BatchSize::BatchSize(1),
                    ..Default::default()
                },
            },
        }),
        ..Default::default()
    };
    let jobs = client.fine_tuning();
    let id = jobs.create(request).await?.id;
    assert_eq!(jobs.pause(&id).await?.status, FineTuningJobStatus::Queued);
    // One such job would fail a whole page, if it were shown as paused.
    assert!(jobs.list_paginated().await?.data.iter().any(|job| job.id == id));
    assert_eq!(jobs.resume(&id).await?.status, FineTuningJobStatus::Queued);
    assert_eq!(jobs.cancel(&id).await?.status, FineTuningJobStatus::Cancelled);
    Ok(())
}

async fn finished_job(client: &Client<OpenAIConfig>, id: &str) -> Done {
    let job = client.fine_tuning().retrieve(id).await?;
    assert_eq!(job.status, FineTuningJobStatus::Succeeded);
    let checkpoints = client.fine_tuning().list_checkpoints(id).await?.data;
    assert!(checkpoints.iter().all(|checkpoint| checkpoint.metrics.step == checkpoint.step_number));
    assert!(!checkpoints.is_empty());
    assert!(!client.fine_tuning().list_events(id).await?.data.is_empty());
    Ok(())
}

async fn models(client: &Client<OpenAIConfig>) -> Done {
    assert!(client.models().list().await?.data.iter().any(|model| model.id == "tiny"));
    assert_eq!(client.models().retrieve("tiny").await?.id, "tiny");
    Ok(())
}
