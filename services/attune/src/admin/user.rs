//! `attune admin user`.

use anyhow::{Result, ensure};
use clap::Subcommand;
use domain::{OrgRole, Role, UserId};
use serde_json::json;
use store::audit::Act;
use store::organizations::Organization;
use store::{OperatorTx, members, users};
use time::OffsetDateTime;

use super::installation::{open_project, organization};
use super::project::MAX_LISTED;
use super::{Answer, Common, Within, record};

/// Arguments of `attune admin user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add somebody to an organization, and to a project of it
    Create {
        /// The address that the identity provider vouches for
        #[arg(long)]
        email: String,
        /// Whether they administer the organization: `owner` or `reader`. Who is new is a `reader` unless this says
        /// otherwise; who is known stays what they are
        #[arg(long, value_name = "ROLE")]
        org_role: Option<OrgRole>,
        /// A project that they may use, by id or slug
        #[arg(long)]
        project: Option<String>,
        /// What they may do there: `owner`, `member` or `viewer`
        #[arg(long, default_value = "member", requires = "project")]
        role: Role,
        #[command(flatten)]
        within: Within,
    },
    /// Show an organization's users
    List {
        #[command(flatten)]
        within: Within,
    },
    /// Remove somebody from an organization and all its projects
    Revoke {
        /// The user's id, `user-…`
        user: UserId,
        #[command(flatten)]
        within: Within,
    },
}

impl UserCommand {
    fn within(&self) -> &Within {
        match self {
            Self::Create { within, .. } | Self::List { within } | Self::Revoke { within, .. } => {
                within
            }
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.within().common
    }
}

pub(super) async fn act(
    command: &UserCommand,
    tx: &mut OperatorTx,
    now: OffsetDateTime,
) -> Result<Answer> {
    let org = organization(tx, &command.within().org).await?;
    match command {
        UserCommand::Create {
            email,
            org_role,
            project,
            role,
            ..
        } => {
            let place = project.as_deref().map(|name| (name, *role));
            create(&org, email, *org_role, place, tx, now).await
        }
        UserCommand::List { .. } => {
            let page = users::list(tx, org.id, None, MAX_LISTED).await?;
            let listed = page.data.into_iter().map(|user| {
                let role = user.role.as_str();
                let json = json!({"user_id": user.id, "email": user.email, "role": role});
                (json, format!("{}  {}  {role}", user.id, user.email))
            });
            Ok(Answer::list(listed.collect(), "No users"))
        }
        UserCommand::Revoke { user, .. } => {
            let done = users::remove(tx, org.id, *user, now).await?;
            ensure!(done, "the organization `{}` has no user `{user}`", org.slug);
            let act = Act::new("user.deleted", "organization.user", user);
            record(tx, org.id, &act, now).await?;
            let json = json!({"user_id": user, "revoked": true});
            Ok(Answer::new(json, format!("Removed `{user}`")))
        }
    }
}

async fn create(
    org: &Organization,
    email: &str,
    org_role: Option<OrgRole>,
    place: Option<(&str, Role)>,
    tx: &mut OperatorTx,
    now: OffsetDateTime,
) -> Result<Answer> {
    ensure!(
        email.contains('@') && email.len() <= 254,
        "`{email}` is no email address"
    );
    let mut user = users::add(tx, org.id, email, OrgRole::Reader, now).await?;
    if let Some(role) = org_role {
        users::set_role(tx, org.id, user.id, role).await?;
        user.role = role;
    }
    let act = Act::new("user.added", "organization.user", user.id);
    let act = act.details(json!({"role": user.role.as_str()}));
    record(tx, org.id, &act, now).await?;
    if let Some((name, role)) = place {
        let project = open_project(tx, org, name).await?.project.id;
        members::set(tx, org.id, project, user.id, role, now).await?;
        let act = Act::new("project.user.added", "organization.project.user", user.id);
        let act = act.project(project).details(json!({"role": role.as_str()}));
        record(tx, org.id, &act, now).await?;
    }
    let json = json!({"user_id": user.id, "email": user.email, "role": user.role.as_str()});
    let text = format!("Added {} ({}) to `{}`", user.email, user.id, org.slug);
    Ok(Answer::new(json, text))
}
