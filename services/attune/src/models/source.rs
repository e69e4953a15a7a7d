//! Where a base model comes from: a path, an S3 prefix, or the Hugging Face hub.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use artifacts::{ObjectStore, S3Config};
use hf_hub::HFClient;
use tempfile::TempDir;

/// What of a repository or prefix makes up a base model. Other formats of the same weights, often
/// beside them, stay where they are.
const WANTED: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "*.safetensors",
];

/// A source, told apart by its form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Local(PathBuf),
    S3 { bucket: String, prefix: String },
    Hub { owner: String, name: String },
}

/// A source's files on this machine; a fetched copy goes away with this value.
pub(super) enum Fetched {
    InPlace(PathBuf),
    Temporary(TempDir),
}

impl Fetched {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::InPlace(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

impl Source {
    /// # Errors
    ///
    /// When the text is neither a path that exists nor one of the other forms.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            ensure!(
                !bucket.is_empty() && !prefix.is_empty(),
                "`{text}` must look like s3://bucket/prefix"
            );
            return Ok(Self::S3 {
                bucket: bucket.to_owned(),
                prefix: format!("{prefix}/"),
            });
        }
        if Path::new(text).exists() {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        if let Some((owner, name)) = text.split_once('/')
            && Self::is_plain_name(owner)
            && Self::is_plain_name(name)
        {
            return Ok(Self::Hub {
                owner: owner.to_owned(),
                name: name.to_owned(),
            });
        }
        bail!(
            "`{text}` does not exist; a base model is a folder, a `.gguf` file, s3://bucket/prefix, or org/name on the Hugging Face hub"
        )
    }

    /// Whether the text can be a name without being a path.
    pub(super) fn is_plain_name(text: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
    }

    /// Brings the files here if they are elsewhere.
    ///
    /// # Errors
    ///
    /// When the bucket or the hub cannot be reached or holds no such model.
    pub(super) async fn fetch(self) -> Result<Fetched> {
        match self {
            Self::Local(path) => Ok(Fetched::InPlace(path)),
            Self::S3 { bucket, prefix } => fetch_s3(bucket, &prefix).await,
            Self::Hub { owner, name } => fetch_hub(&owner, &name).await,
        }
    }
}

async fn fetch_s3(bucket: String, prefix: &str) -> Result<Fetched> {
    let store = ObjectStore::connect(&s3_config(bucket)?);
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut n_files = 0;
    for object in store.list(prefix).await? {
        // Not what lies deeper: repositories keep other formats in folders of their own.
        let name = &object.key[prefix.len()..];
        if is_wanted(name) {
            tracing::info!("Fetching `{}`, {} bytes", object.key, object.size_bytes);
            store
                .get_file(&object.key, &folder.path().join(name))
                .await?;
            n_files += 1;
        }
    }
    ensure!(
        n_files > 0,
        "there is no base model under `{prefix}` in bucket `{}`",
        store.bucket()
    );
    Ok(Fetched::Temporary(folder))
}

fn is_wanted(name: &str) -> bool {
    let path = Path::new(name);
    let has_weights = path.extension().is_some_and(|ext| {
        ext.eq_ignore_ascii_case("safetensors") || ext.eq_ignore_ascii_case("gguf")
    });
    !name.contains('/') && (WANTED.contains(&name) || has_weights)
}

/// The usual variables of S3 tools, since the bucket is usually not the installation's own; those
/// of the installation otherwise.
fn s3_config(bucket: String) -> Result<S3Config> {
    let variable = |ours: &str, usual: &str| {
        [usual, ours]
            .iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let required = |ours: &str, usual: &str| {
        variable(ours, usual)
            .with_context(|| format!("{usual} is not set: it is needed for s3://{bucket}"))
    };
    let region = variable("ATTUNE_S3_REGION", "AWS_REGION").unwrap_or_else(|| "us-east-1".into());
    let endpoint = variable("ATTUNE_S3_ENDPOINT", "AWS_ENDPOINT_URL")
        .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    Ok(S3Config {
        endpoint,
        region,
        access_key_id: required("ATTUNE_S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID")?,
        secret_access_key: required("ATTUNE_S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY")?,
        bucket,
        prefix: String::new(),
        path_style: true,
    })
}

async fn fetch_hub(owner: &str, name: &str) -> Result<Fetched> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    tracing::info!("Fetching `{owner}/{name}` from the Hugging Face hub");
    HFClient::new()
        .context("cannot set up a client of the Hugging Face hub")?
        .model(owner, name)
        .snapshot_download()
        .allow_patterns(WANTED.iter().map(|&pattern| pattern.to_owned()).collect())
        // `*` reaches into folders.
        .ignore_patterns(vec!["*/*".to_owned()])
        .local_dir(folder.path().to_owned())
        .send()
        .await
        .with_context(|| format!("cannot fetch `{owner}/{name}` from the Hugging Face hub"))?;
    Ok(Fetched::Temporary(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_by_their_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(
            Source::parse(path).unwrap(),
            Source::Local(folder.path().to_owned())
        );
        let s3 = Source::S3 {
            bucket: "b".to_owned(),
            prefix: "a/model/".to_owned(),
        };
        assert_eq!(Source::parse("s3://b/a/model/").unwrap(), s3);
        let hub = Source::Hub {
            owner: "org".to_owned(),
            name: "name-1.0".to_owned(),
        };
        assert_eq!(Source::parse("org/name-1.0").unwrap(), hub);
        for nothing in [
            "no-such-file.gguf",
            "s3://bucket",
            "./a/b",
            "/no/such",
            "a/b/c",
        ] {
            let message = Source::parse(nothing).unwrap_err().to_string();
            assert!(message.contains(nothing), "{message}");
        }
    }

    #[test]
    fn only_the_models_own_files_are_wanted() {
        for name in ["config.json", "model-00001-of-00002.safetensors", "m.gguf"] {
            assert!(is_wanted(name), "{name}");
        }
        for name in ["README.md", "onnx/model.safetensors", "pytorch_model.bin"] {
            assert!(!is_wanted(name), "{name}");
        }
    }
}
