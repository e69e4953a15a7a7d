//! Files that are uploaded in parts.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::InputSource;
use async_openai::types::uploads::{
    AddUploadPartRequest, CompleteUploadRequest, CreateUploadRequest, Upload, UploadPurpose, UploadStatus,
};

use crate::{Done, ROW};

pub async fn uploads(client: &Client<OpenAIConfig>) -> Done {
    let upload = started(client).await?;
    let (head, tail) = ROW.split_at(20);
    let (head, tail) = tokio::join!(part(client, &upload.id, head), part(client, &upload.id, tail));
    let request = CompleteUploadRequest { part_ids: vec![head?, tail?], md5: None };
    let done = client.uploads().complete(&upload.id, request).await?;
    assert!(matches!(done.status, UploadStatus::Completed));
    let file = done.file.ok_or("a completed upload names its file")?;
    assert_eq!(client.files().content(&file.id).await?, ROW.as_bytes());

    let given_up = started(client).await?;
    assert!(matches!(client.uploads().cancel(&given_up.id).await?.status, UploadStatus::Cancelled));
    Ok(())
}

async fn started(client: &Client<OpenAIConfig>) -> Result<Upload, async_openai::error::OpenAIError> {
    let request = CreateUploadRequest {
        filename: "rows.jsonl".into(),
        purpose: UploadPurpose::FineTune,
        bytes: ROW.len() as u64,
        mime_type: "text/jsonl".into(),
        expires_after: None,
    };
    client.uploads().create(request).await
}

async fn part(
    client: &Client<OpenAIConfig>,
    upload: &str,
    content: &str,
) -> Result<String, async_openai::error::OpenAIError> {
    let data = InputSource::Bytes { filename: "part".into(), bytes: content.to_owned().into() };
    let part = client.uploads().add_part(upload, AddUploadPartRequest { data }).await?;
    assert_eq!(part.upload_id, upload);
    Ok(part.id)
}
