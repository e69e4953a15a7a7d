//! What an operator says about the identity provider.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use domain::{ProjectId, Role};
use serde::Deserialize;

use crate::auth::sign_in::raise;

/// Whose tokens are believed, and what they are worth.
///
/// | variable | meaning |
/// |---|---|
/// | `ATTUNE_OIDC_ISSUER` | the issuer's URL, exactly as its tokens name it; without it no token is believed |
/// | `ATTUNE_OIDC_AUDIENCE` | what `aud` must hold one of: names, separated by commas |
/// | `ATTUNE_OIDC_GROUPS` | a JSON object from a group's name to `{"project": "proj_…", "role": "owner\|member\|viewer"}` |
/// | `ATTUNE_OIDC_GROUPS_CLAIM` | the claim that lists the groups; `groups` unless set |
/// | `ATTUNE_OIDC_CREATE_USERS` | `true`: a group's member who is new becomes a user; otherwise users are added first |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// The issuer.
    pub issuer: String,
    /// Names of this service.
    pub audiences: Vec<String>,
    /// What groups may do.
    pub groups: BTreeMap<String, Grant>,
    /// The claim that lists the groups.
    pub groups_claim: String,
    /// Whether members of those groups need not be added by hand.
    pub create_users: bool,
}

/// A role in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The project.
    pub project: ProjectId,
    /// The role.
    pub role: Role,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantText {
    project: ProjectId,
    role: String,
}

impl OidcConfig {
    /// Reads the variables above; none if there is no issuer.
    ///
    /// # Errors
    /// The variable that is missing or cannot be used, by name.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(issuer) = variable("ATTUNE_OIDC_ISSUER") else {
            return Ok(None);
        };
        ensure!(
            issuer.starts_with("https://") || issuer.starts_with("http://"),
            "ATTUNE_OIDC_ISSUER is `{issuer}`, which is no URL"
        );
        let audiences: Vec<_> = variable("ATTUNE_OIDC_AUDIENCE")
            .context(
                "ATTUNE_OIDC_AUDIENCE is not set: without it any token of the issuer would do",
            )?
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        ensure!(!audiences.is_empty(), "ATTUNE_OIDC_AUDIENCE names nothing");
        let create_users = match variable("ATTUNE_OIDC_CREATE_USERS").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                anyhow::bail!("ATTUNE_OIDC_CREATE_USERS is `{other}`, not `true` or `false`")
            }
        };
        Ok(Some(Self {
            issuer,
            audiences,
            groups: groups(variable("ATTUNE_OIDC_GROUPS"))?,
            groups_claim: variable("ATTUNE_OIDC_GROUPS_CLAIM")
                .unwrap_or_else(|| "groups".to_owned()),
            create_users,
        }))
    }

    /// What members of these groups may do, by project.
    pub fn roles(&self, groups: &[String]) -> BTreeMap<ProjectId, Role> {
        let mut roles = BTreeMap::new();
        for grant in groups.iter().filter_map(|name| self.groups.get(name)) {
            raise(&mut roles, grant.project, grant.role);
        }
        roles
    }
}

fn groups(text: Option<String>) -> anyhow::Result<BTreeMap<String, Grant>> {
    let Some(text) = text else {
        return Ok(BTreeMap::new());
    };
    let read: BTreeMap<String, GrantText> = serde_json::from_str(&text).context(
        "ATTUNE_OIDC_GROUPS must be a JSON object like {\"ml-team\": {\"project\": \"proj_…\", \"role\": \"member\"}}",
    )?;
    read.into_iter()
        .map(|(name, grant)| {
            let role = grant
                .role
                .parse()
                .with_context(|| format!("ATTUNE_OIDC_GROUPS, group `{name}`"))?;
            let project = grant.project;
            Ok((name, Grant { project, role }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(groups: &str) -> anyhow::Result<OidcConfig> {
        let read = OidcConfig::from_variables(|name| match name {
            "ATTUNE_OIDC_ISSUER" => Some("https://id.example.com".to_owned()),
            "ATTUNE_OIDC_AUDIENCE" => Some("attune, other".to_owned()),
            "ATTUNE_OIDC_GROUPS" => Some(groups.to_owned()),
            _ => None,
        });
        Ok(read?.expect("an issuer is set"))
    }

    #[test]
    fn the_greater_of_two_roles_counts() {
        let project = ProjectId::new();
        let config = read(&format!(
            r#"{{"a": {{"project": "{project}", "role": "viewer"}}, "b": {{"project": "{project}", "role": "owner"}}}}"#
        ))
        .unwrap();
        let roles = config.roles(&["b".to_owned(), "a".to_owned(), "unknown".to_owned()]);
        assert_eq!(roles, BTreeMap::from([(project, Role::Owner)]));
        assert_eq!(config.audiences, ["attune", "other"]);
        assert!(!config.create_users);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let project = ProjectId::new();
        for groups in [
            "[]".to_owned(),
            r#"{"a": {"project": "x", "role": "owner"}}"#.to_owned(),
            format!(r#"{{"a": {{"project": "{project}", "role": "king"}}}}"#),
        ] {
            let message = read(&groups).unwrap_err().to_string();
            assert!(message.contains("ATTUNE_OIDC_GROUPS"), "{message}");
        }
        let nothing = OidcConfig::from_variables(|_| None).unwrap();
        assert_eq!(nothing, None);
        let message = OidcConfig::from_variables(|name| {
            (name == "ATTUNE_OIDC_ISSUER").then(|| "https://id".to_owned())
        });
        assert!(
            message
                .unwrap_err()
                .to_string()
                .contains("ATTUNE_OIDC_AUDIENCE")
        );
    }
}
