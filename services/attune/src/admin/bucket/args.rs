//! How the command line names a bucket, and what is not taken.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use store::buckets::Settings;

use super::super::secret_file;

/// How long a prefix may be: with it, no key of ours comes near S3's limit.
const MAX_PREFIX_BYTES: usize = 512;

/// Where the bucket is, and who we are to it.
#[derive(Debug, Args)]
pub struct BucketArgs {
    /// `https://host[:port]`, without the bucket. A private address is fine
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// The region that requests are signed for
    #[arg(long)]
    region: String,
    /// The bucket, which must exist
    #[arg(long)]
    bucket: String,
    /// What goes before every key
    #[arg(long, default_value = "")]
    prefix: String,
    /// The public half of the credentials
    #[arg(long, value_name = "ID")]
    access_key_id: String,
    /// A file that holds the secret half, and nothing else
    #[arg(long, value_name = "FILE")]
    secret_key_file: PathBuf,
    /// Put the bucket into the path of a request, not before the endpoint's name: MinIO and most others, but AWS
    #[arg(long)]
    path_style: bool,
}

impl BucketArgs {
    /// Each place in one spelling: it is compared with what is stored.
    pub(super) fn settings(&self) -> Result<Settings> {
        let endpoint = self.endpoint.trim_end_matches('/');
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| endpoint.strip_prefix(scheme));
        let is_plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
        ensure!(
            host.is_some_and(is_plain),
            "--endpoint is `{}`, which is not https://host[:port] or http://host[:port]",
            self.endpoint
        );
        ensure!(
            !self.bucket.is_empty() && !self.bucket.contains('/'),
            "--bucket is `{}`, which is no name of a bucket; what comes before keys is --prefix",
            self.bucket
        );
        ensure!(!self.region.is_empty(), "--region is empty");
        ensure!(!self.access_key_id.is_empty(), "--access-key-id is empty");
        Ok(Settings {
            endpoint: endpoint.to_owned(),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: prefix(&self.prefix)?,
            path_style: self.path_style,
            access_key_id: self.access_key_id.clone(),
        })
    }

    /// The secret half of the credentials.
    pub(super) fn secret(&self) -> Result<String> {
        secret(&self.secret_key_file)
    }
}

/// Empty, or segments that end in `/`.
fn prefix(text: &str) -> Result<String> {
    let plain = text.trim_matches('/');
    if plain.is_empty() {
        return Ok(String::new());
    }
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..");
    let has_odd = plain.chars().any(|c| c.is_control() || c == '\\');
    ensure!(
        plain.split('/').all(is_plain) && !has_odd && plain.len() <= MAX_PREFIX_BYTES,
        "--prefix is `{text}`; it takes up to {MAX_PREFIX_BYTES} bytes, without empty, `.` or `..` segments, control \
         characters or backslashes"
    );
    Ok(format!("{plain}/"))
}

fn secret(path: &Path) -> Result<String> {
    let is_one = |word: &str| !word.contains(char::is_whitespace);
    secret_file::read("--secret-key-file", path, "the secret", is_one)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn args(endpoint: &str, bucket: &str, prefix: &str) -> BucketArgs {
        BucketArgs {
            endpoint: endpoint.to_owned(),
            region: "eu-central-1".to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            access_key_id: "AK".to_owned(),
            secret_key_file: PathBuf::new(),
            path_style: true,
        }
    }

    #[test]
    fn a_place_has_one_spelling() {
        let settings = args("https://s3.example.com/", "models", "/attune/acme").settings();
        let settings = settings.unwrap();
        assert_eq!(settings.endpoint, "https://s3.example.com");
        assert_eq!(settings.prefix, "attune/acme/");
        let bare = args("http://10.0.0.7:9000", "models", "").settings();
        assert_eq!(bare.unwrap().prefix, "");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (endpoint, bucket, prefix, named) in [
            ("s3.example.com", "b", "", "--endpoint"),
            ("https://", "b", "", "--endpoint"),
            ("https://user@host", "b", "", "--endpoint"),
            ("https://host/bucket", "b", "", "--endpoint"),
            ("https://host", "", "", "--bucket"),
            ("https://host", "b/c", "", "--bucket"),
            ("https://host", "b", "a/../b", "--prefix"),
            ("https://host", "b", "a//b", "--prefix"),
            ("https://host", "b", "a\\b", "--prefix"),
        ] {
            let message = args(endpoint, bucket, prefix).settings().unwrap_err();
            assert!(message.to_string().contains(named), "{message}");
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "the-secret\n").unwrap();
        assert_eq!(secret(&path).unwrap(), "the-secret");
        for text in ["", "\n", "id the-secret"] {
            fs::write(&path, text).unwrap();
            let message = secret(&path).unwrap_err().to_string();
            assert!(message.contains("--secret-key-file"), "{message}");
            assert!(!message.contains("the-secret"), "{message}");
        }
        assert!(secret(&folder.path().join("none")).is_err());
    }
}
