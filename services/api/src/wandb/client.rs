//! The two requests that Weights & Biases' own client makes: one that makes a run, one that adds to it.

use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use store::sealed::Plaintext;
use store::wandb::accounts::Account;
use store::wandb::runs::Place;

use crate::outbound::target::{Lookup, Policy, PublicOnly, TargetError};
use crate::outbound::{self, Answer, Outbound, OutboundError};

/// The name that goes with an API key.
const USER: &str = "api";

/// Finds the run of this name or makes it, so that asking twice makes one.
const UPSERT_RUN: &str = "\
mutation UpsertBucket($name: String, $project: String, $entity: String, $displayName: String, $config: JSONString, \
$jobType: String, $tags: [String!]) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, displayName: $displayName, \
config: $config, jobType: $jobType, tags: $tags}) {
    bucket { id name project { name entity { name } } }
  }
}";

/// Why something was not taken, in words for the tenant. Nothing that the server says is among them: it could repeat the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReportError {
    #[error(
        "the project has no account there any more; whoever runs this installation sets one (`attune admin project \
         wandb set`)"
    )]
    NoAccount,
    #[error("the account's key cannot be read; whoever runs this installation sets it again")]
    Key,
    #[error("{0}")]
    Outbound(#[from] OutboundError),
    #[error(
        "it refuses the account's key (401); whoever runs this installation sets another (`attune admin project wandb set`)"
    )]
    Unauthenticated,
    #[error("the account may not write to this entity and project ({0})")]
    Forbidden(u16),
    #[error("it refuses the run: is there such an entity, and may the account write to it?")]
    Refused,
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer is not one of Weights & Biases'")]
    Unreadable,
}

impl ReportError {
    /// Whether it may be over in a minute, without anybody doing something.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Outbound(OutboundError::Target(reason)) => *reason == TargetError::UnknownHost,
            Self::Outbound(_) => true,
            Self::Status(status) => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// The address of a server's API as an account keeps it.
///
/// # Errors
/// What is wrong with it. Whether this installation sends anything there is asked when it does.
pub fn base_url(text: &str) -> Result<String, TargetError> {
    let anywhere = PublicOnly {
        policy: Policy {
            allow_http: true,
            allow_private: true,
        },
        lookup: Lookup::system(),
    };
    let url = anywhere.parse(text)?;
    if url.query().is_some() {
        return Err(TargetError::Extra);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// An account and its key.
pub(super) struct Credentials {
    pub(super) account: Account,
    pub(super) key: Plaintext,
}

/// The way to servers of Weights & Biases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Outbound);

impl Client {
    /// A client under the operator's policy.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(policy: Policy, lookup: Lookup) -> reqwest::Result<Self> {
        Outbound::new(policy, lookup).map(Self)
    }

    /// Makes the run that `variables` describe, unless it is there, and says where it is.
    pub(super) async fn upsert_run(
        &self,
        credentials: &Credentials,
        variables: &Value,
    ) -> Result<Place, ReportError> {
        let url = format!("{}/graphql", credentials.account.base_url);
        let body = json!({
            "operationName": "UpsertBucket",
            "query": UPSERT_RUN,
            "variables": variables,
        });
        let answer = self.post(credentials, &url, &body).await?;
        let answer: Upserted =
            serde_json::from_slice(&answer.body).map_err(|_| ReportError::Unreadable)?;
        let made = answer.data.and_then(|data| data.upsert_bucket);
        let project = made.ok_or(ReportError::Refused)?.bucket.project;
        Ok(Place {
            entity: project.entity.name,
            project: project.name,
        })
    }

    /// Adds to the files of a run.
    pub(super) async fn stream(
        &self,
        credentials: &Credentials,
        place: &Place,
        run_name: &str,
        body: &Value,
    ) -> Result<(), ReportError> {
        let base_url = &credentials.account.base_url;
        let mut url = Url::parse(base_url).map_err(|_| ReportError::Unreadable)?;
        url.path_segments_mut()
            .map_err(|()| ReportError::Unreadable)?
            .pop_if_empty()
            .extend([
                "files",
                &place.entity,
                &place.project,
                run_name,
                "file_stream",
            ]);
        self.post(credentials, url.as_str(), body).await.map(drop)
    }

    async fn post(
        &self,
        credentials: &Credentials,
        url: &str,
        body: &Value,
    ) -> Result<Answer, ReportError> {
        let request = self.0.post(url).map_err(OutboundError::from)?;
        let request = authenticated(request, &credentials.key)?.json(body);
        let answer = outbound::send(request).await?;
        match answer.status {
            200..=299 => Ok(answer),
            401 => Err(ReportError::Unauthenticated),
            status @ (403 | 404) => Err(ReportError::Forbidden(status)),
            // A redirect is not followed: it could lead anywhere, and the key would go along.
            status => Err(ReportError::Status(status)),
        }
    }
}

fn authenticated(request: RequestBuilder, key: &Plaintext) -> Result<RequestBuilder, ReportError> {
    let key = key.expose_text().map_err(|_| ReportError::Key)?;
    Ok(request.basic_auth(USER, Some(key)))
}

#[derive(Deserialize)]
struct Upserted {
    data: Option<UpsertedData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpsertedData {
    upsert_bucket: Option<UpsertedBucket>,
}

#[derive(Deserialize)]
struct UpsertedBucket {
    bucket: Bucket,
}

#[derive(Deserialize)]
struct Bucket {
    project: Project,
}

#[derive(Deserialize)]
struct Project {
    name: String,
    entity: Entity,
}

#[derive(Deserialize)]
struct Entity {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_address_is_kept_without_what_does_not_belong_to_it() {
        for (text, kept) in [
            ("https://api.wandb.ai", "https://api.wandb.ai"),
            (
                "https://wandb.example.com:8443/",
                "https://wandb.example.com:8443",
            ),
            ("http://10.0.0.7/wandb/", "http://10.0.0.7/wandb"),
        ] {
            assert_eq!(base_url(text).as_deref(), Ok(kept));
        }
        for text in [
            "api.wandb.ai",
            "ftp://h",
            "https://u:p@h",
            "https://h?x=1",
            "https://h#x",
        ] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }
}
