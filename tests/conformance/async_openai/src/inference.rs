//! Answers of a tuned model: at once, as a stream and in a batch.

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::batches::{BatchEndpoint, BatchRequest, BatchStatus};
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionResponse,
};
use async_openai::types::files::FilePurpose;
use futures::StreamExt as _;

use crate::{Done, upload_for};

pub async fn chat(client: &Client<OpenAIConfig>, model: &str) -> Done {
    let request = CreateChatCompletionRequest {
        model: model.into(),
        messages: vec![ChatCompletionRequestUserMessage::from("is 3 odd?").into()],
        max_completion_tokens: Some(6),
        temperature: Some(0.0),
        logprobs: Some(true),
        ..Default::default()
    };
    let whole = client.chat().create(request.clone()).await?;
    assert_eq!(whole.model, model);
    assert!(whole.choices[0].logprobs.is_some());
    let mut stream = client.chat().create_stream(request).await?;
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        text.extend(chunk?.choices.iter().filter_map(|choice| choice.delta.content.clone()));
    }
    assert_eq!(Some(&text), whole.choices[0].message.content.as_ref());
    Ok(())
}

pub async fn batches(client: &Client<OpenAIConfig>) -> Done {
    let body = serde_json::json!({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    let line = serde_json::json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body});
    let request = BatchRequest {
        input_file_id: upload_for(client, FilePurpose::Batch, line.to_string()).await?,
        endpoint: BatchEndpoint::V1ChatCompletions,
        ..Default::default()
    };
    let mut batch = client.batches().create(request.clone()).await?;
    for _ in 0..600 {
        if batch.status == BatchStatus::Completed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        batch = client.batches().retrieve(&batch.id).await?;
    }
    assert_eq!(batch.status, BatchStatus::Completed, "{batch:?}");
    assert!(client.batches().list().await?.data.iter().any(|each| each.id == batch.id));
    let answers = client.files().content(&batch.output_file_id.ok_or("no output file")?).await?;
    let answer: async_openai::types::batches::BatchRequestOutput = serde_json::from_slice(&answers)?;
    let answer: CreateChatCompletionResponse = serde_json::from_value(answer.response.ok_or("no answer")?.body)?;
    assert_eq!(answer.choices.len(), 1);

    let other = client.batches().create(request).await?;
    // It may have been answered by now.
    if let Ok(cancelled) = client.batches().cancel(&other.id).await {
        assert!(matches!(cancelled.status, BatchStatus::Cancelling | BatchStatus::Cancelled));
    }
    Ok(())
}
