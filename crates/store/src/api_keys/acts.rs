//! What the audit log says of keys, whether a route did it or the command line.

use domain::ApiKeyId;
use serde_json::{Value, json};

use super::ApiKey;
use crate::audit::Act;

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAct {
    /// It was made.
    Created,
    /// Another one took its place: this one.
    Rotated(ApiKeyId),
    /// It was revoked.
    Deleted,
}

impl ApiKey {
    /// That `act` was done to this key.
    pub fn act(&self, act: KeyAct) -> Act {
        let (actions, object_kind) = if self.project_id.is_some() {
            let actions = ["api_key.created", "api_key.rotated", "api_key.deleted"];
            (actions, "organization.project.api_key")
        } else {
            let actions = [
                "admin_api_key.created",
                "admin_api_key.rotated",
                "admin_api_key.deleted",
            ];
            (actions, "organization.admin_api_key")
        };
        let [created, rotated, deleted] = actions;
        let (action, details) = match act {
            KeyAct::Created => (created, self.details()),
            KeyAct::Rotated(by) => (rotated, json!({"replaced_by": by.to_string()})),
            KeyAct::Deleted => (deleted, json!({})),
        };
        let act = Act::new(action, object_kind, self.id).details(details);
        match self.project_id {
            Some(id) => act.project(id),
            None => act,
        }
    }

    /// What it may do, and for how long.
    fn details(&self) -> Value {
        let mut details = json!({
            "name": self.name,
            "expires_at": self.expires_at.map(time::OffsetDateTime::unix_timestamp),
        });
        if self.project_id.is_none() {
            return details;
        }
        details["scopes"] = self.rights.scopes.words().into();
        // A service account's keys have its role.
        match self.rights.service_account {
            Some(id) => details["service_account_id"] = id.to_string().into(),
            None => details["role"] = self.rights.role.as_str().into(),
        }
        details
    }
}
