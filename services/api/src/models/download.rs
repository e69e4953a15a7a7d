//! `GET /v1/models/{model}/download`: one of the project's own models, to be run elsewhere.
//!
//! `peft` is the adapter as training wrote it, packed on its way from storage. `merged` and `gguf` need the base model's
//! weights and arithmetic on them: the inference service makes them, and this one passes them on.

use artifacts::{ZipEntry, ZipSource, zip_size_bytes, zip_stream};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use buckets::ProjectObjects;
use domain::Scope;
use serde_json::json;
use store::models::{self, FineTunedModel};

use crate::AppState;
use crate::auth::Tenant;
use crate::chat::passed_through;
use crate::error::{ApiError, ErrorCode, Thing};
use crate::extract::{Params, PathName};

/// An adapter as PEFT keeps it.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// The weights of a model of which all were trained.
const WEIGHTS_FILE: &str = "weights.safetensors";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Peft,
    Merged,
    Gguf,
}

/// Download one of the project's own models.
#[utoipa::path(
    get,
    path = "/v1/models/{model}/download",
    tag = "Models",
    params(
        ("model" = String, Path, description = "The model's name. Its slashes may stand as they are or as `%2F`."),
        ("format" = Option<String>, Query, description = "`peft`: the adapter (a zip archive of PEFT's two files), which is the default. `merged`: the whole model with the adapter in it (a zip archive of a folder in Hugging Face layout). `gguf`: the same as one file for llama.cpp."),
    ),
    responses((status = 200, description = "The model.", content(
        (Vec<u8> = "application/zip"),
        (Vec<u8> = "application/octet-stream"),
    )))
)]
pub async fn download_model(
    State(state): State<AppState>,
    tenant: Tenant,
    PathName(name): PathName,
    params: Params,
) -> Result<Response, ApiError> {
    // A key for answers of a model is none for the model.
    tenant.needs(Scope::Jobs)?;
    let format = Format::read(&params)?;
    if format != Format::Peft {
        tenant.may_compute()?;
    }
    let mut tx = state.store.tenant_tx(tenant.project_id).await?;
    let found = models::resolve(&mut tx, &name).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Thing::Model, &name))?;
    let tuned = found.tuned.ok_or_else(base_model)?;
    let objects = state.buckets.of_model(&mut tx, &tuned).await?;
    tx.commit().await?;
    let mut response = match format {
        Format::Peft => peft(&objects, &tuned).await?,
        Format::Merged | Format::Gguf => {
            let asked = json!({"model": name, "format": format.as_str()});
            let answer = state.inference.export(&tenant, &asked).await?;
            let length = answer.headers().get(CONTENT_LENGTH).cloned();
            let mut response = passed_through(answer);
            if let Some(length) = length {
                response.headers_mut().insert(CONTENT_LENGTH, length);
            }
            response
        }
    };
    if response.status() == StatusCode::OK {
        let attachment = attachment(&name, format)?;
        response
            .headers_mut()
            .insert(CONTENT_DISPOSITION, attachment);
    }
    Ok(response)
}

impl Format {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let Some(asked) = params.get("format") else {
            return Ok(Self::Peft);
        };
        [Self::Peft, Self::Merged, Self::Gguf]
            .into_iter()
            .find(|format| format.as_str() == asked)
            .ok_or_else(|| {
                ApiError::invalid("format", "`format` must be `peft`, `merged` or `gguf`.")
            })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Merged => "merged",
            Self::Gguf => "gguf",
        }
    }
}

fn base_model() -> ApiError {
    let message = "This is a base model of the installation. Only a project's own models can be downloaded; \
                   ask the operator for the base.";
    ApiError::invalid("model", message).code(ErrorCode::NotFineTuned)
}

async fn peft(objects: &ProjectObjects, model: &FineTunedModel) -> Result<Response, ApiError> {
    let readme = readme(model);
    let mut entries = vec![ZipEntry {
        name: "README.md".to_owned(),
        size_bytes: readme.len() as u64,
        source: ZipSource::Bytes(readme.into()),
    }];
    for name in ADAPTER_FILES {
        let key = format!("{}/{name}", model.adapter_prefix.trim_end_matches('/'));
        let Some(size_bytes) = objects.head(&key).await? else {
            return Err(no_adapter(objects, model).await);
        };
        entries.push(ZipEntry {
            name: name.to_owned(),
            size_bytes,
            source: objects.zip_source(key),
        });
    }
    let length = zip_size_bytes(&entries);
    let mut response = Response::new(Body::from_stream(zip_stream(entries)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    // A stream that breaks off is then seen to.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// Either it never had one, or the bucket lost it.
async fn no_adapter(objects: &ProjectObjects, model: &FineTunedModel) -> ApiError {
    let prefix = model.adapter_prefix.trim_end_matches('/');
    match objects.head(&format!("{prefix}/{WEIGHTS_FILE}")).await {
        Ok(Some(_)) => {}
        Ok(None) => return ApiError::internal(format!("`{prefix}` holds no model")),
        Err(error) => return error.into(),
    }
    let message = "All weights of this model were trained, so it has no adapter. Ask for `format=merged` or `format=gguf`.";
    ApiError::invalid("format", message).code(ErrorCode::NoAdapter)
}

fn readme(model: &FineTunedModel) -> String {
    format!(
        "# {name}\n\nA LoRA adapter for `{base}`, trained by Attune as `{job}`.\n\n\
         ```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n\
         base = AutoModelForCausalLM.from_pretrained(\"{base}\")  # or the folder where it is\n\
         model = PeftModel.from_pretrained(base, \"path/to/this/folder\")\n```\n",
        name = model.name,
        base = model.base_model,
        job = model.job_id,
    )
}

/// The name under which a browser stores it: nothing in it that is special to a shell or to a file system.
fn attachment(name: &str, format: Format) -> Result<HeaderValue, ApiError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    let ending = match format {
        Format::Peft => "-peft.zip",
        Format::Merged => "-merged.zip",
        Format::Gguf => ".gguf",
    };
    HeaderValue::try_from(format!("attachment; filename=\"{name}{ending}\""))
        .map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_is_plain() {
        let header = attachment("ft:a/b:acme:é\":0", Format::Gguf).unwrap();
        assert_eq!(header, "attachment; filename=\"ft-a-b-acme----0.gguf\"");
    }
}
