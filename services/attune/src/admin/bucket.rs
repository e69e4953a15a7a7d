//! `attune admin project bucket`: a bucket of a project's own.

mod args;

use anyhow::{Context, Result, bail};
use artifacts::ObjectStore;
use clap::Subcommand;
use domain::{Clock, ProjectId};
use serde_json::{Value, json};
use store::audit::Act;
use store::buckets::{self, Change, Held, ProjectBucket};
use time::format_description::well_known::Rfc3339;

use self::args::BucketArgs;
use super::installation::{Installation, organization, project};
use super::{Answer, Within, record};

/// Arguments of `attune admin project bucket`.
#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Give a project a bucket, which is tried first; or other credentials for the one it has
    Set {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        bucket: BucketArgs,
        #[command(flatten)]
        within: Within,
    },
    /// Show a project's bucket, without the secret
    Show {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
    /// Let a project's objects be in the installation's bucket again. Only while it has none
    Remove {
        /// The project, by id or slug
        project: String,
        #[command(flatten)]
        within: Within,
    },
}

impl BucketCommand {
    pub(super) fn within(&self) -> &Within {
        match self {
            Self::Set { within, .. } | Self::Show { within, .. } | Self::Remove { within, .. } => {
                within
            }
        }
    }
}

/// Works in transactions of its own: none is open while the bucket is tried.
pub(super) async fn act(command: &BucketCommand, installation: &Installation) -> Result<Answer> {
    match command {
        BucketCommand::Set {
            project,
            bucket,
            within,
        } => set(project, bucket, within, installation).await,
        BucketCommand::Show {
            project: name,
            within,
        } => {
            let mut tx = installation.store.operator_tx().await?;
            let org = organization(&mut tx, &within.org).await?;
            let id = project(&mut tx, &org, name).await?.project.id;
            let found = buckets::show(&mut tx, id).await?;
            Ok(match found {
                Some(bucket) => Answer::new(shown(id, &bucket), described(id, &bucket)),
                None => Answer::new(
                    json!({"project_id": id, "bucket": null}),
                    format!(
                        "`{id}` has no bucket of its own: its objects are in the installation's"
                    ),
                ),
            })
        }
        BucketCommand::Remove { project, within } => remove(project, within, installation).await,
    }
}

async fn set(
    name: &str,
    args: &BucketArgs,
    within: &Within,
    installation: &Installation,
) -> Result<Answer> {
    let keyring = installation.keyring()?;
    let settings = args.settings()?;
    let secret = args.secret()?;
    let mut tx = installation.store.operator_tx().await?;
    let org = organization(&mut tx, &within.org).await?;
    let id = project(&mut tx, &org, name).await?.project.id;
    tx.commit().await?;

    ObjectStore::connect(&::buckets::s3_config_of(&settings, &secret))
        .probe(id)
        .await
        .with_context(|| {
            format!(
                "the bucket `{}` cannot be used, so nothing was changed",
                settings.bucket
            )
        })?;

    let now = Clock::system().now();
    let tx = installation.store.operator_tx().await?;
    let (mut tx, change) = buckets::set(tx, &keyring, id, &settings, &secret, now).await?;
    if let Change::Refused(held) = change {
        bail!(left_behind(name, held));
    }
    let bucket = buckets::show(&mut tx, id).await?;
    let bucket = bucket.context("the bucket was just stored")?;
    let act = Act::new("project_bucket.updated", "organization.project", id).project(id);
    let act = act.details(json!({
        "endpoint": settings.endpoint,
        "bucket": settings.bucket,
        "prefix": settings.prefix,
        "access_key_id": settings.access_key_id,
    }));
    record(&mut tx, org.id, &act, now).await?;
    tx.commit().await?;
    let text = match change {
        Change::Updated => format!("`{id}` reaches its bucket with these credentials from now on"),
        _ => format!("All objects of `{id}` go to this bucket from now on"),
    };
    let text = format!("{text}\n{}", described(id, &bucket));
    Ok(Answer::new(shown(id, &bucket), text))
}

async fn remove(name: &str, within: &Within, installation: &Installation) -> Result<Answer> {
    let now = Clock::system().now();
    let mut tx = installation.store.operator_tx().await?;
    let org = organization(&mut tx, &within.org).await?;
    let id = project(&mut tx, &org, name).await?.project.id;
    let (mut tx, change) = buckets::remove(tx, id).await?;
    match change {
        Change::Refused(held) => bail!(left_behind(name, held)),
        Change::Nothing => bail!("the project `{name}` has no bucket of its own"),
        Change::Moved | Change::Updated => {}
    }
    let act = Act::new("project_bucket.deleted", "organization.project", id).project(id);
    record(&mut tx, org.id, &act, now).await?;
    tx.commit().await?;
    let text = format!("The objects of `{id}` go to the installation's bucket from now on");
    Ok(Answer::new(json!({"project_id": id, "bucket": null}), text))
}

fn left_behind(name: &str, held: Held) -> String {
    format!(
        "the project `{name}` has objects where they are now, and objects are not moved: {held}. Delete them and wait until \
         the sweep has taken them away (minutes), or make another project, give it the bucket, and upload there"
    )
}

fn shown(id: ProjectId, bucket: &ProjectBucket) -> Value {
    let settings = &bucket.settings;
    json!({
        "project_id": id,
        "bucket": {
            "endpoint": settings.endpoint,
            "region": settings.region,
            "bucket": settings.bucket,
            "prefix": settings.prefix,
            "path_style": settings.path_style,
            "access_key_id": settings.access_key_id,
            "configured_at": bucket.configured_at.format(&Rfc3339).unwrap_or_default(),
        },
    })
}

fn described(id: ProjectId, bucket: &ProjectBucket) -> String {
    let settings = &bucket.settings;
    format!(
        "{id}  {}  {}  bucket `{}`  prefix `{}`  key `{}`{}",
        settings.endpoint,
        settings.region,
        settings.bucket,
        settings.prefix,
        settings.access_key_id,
        if settings.path_style {
            "  path style"
        } else {
            ""
        }
    )
}
