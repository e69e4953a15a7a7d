//! What the audit log says of keys, whether a route did it or the command line.

use super::ApiKey;
use crate::audit::Act;

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAct {
    /// It was made.
    Created,
    /// Another one took its place.
    Rotated,
    /// It was revoked.
    Deleted,
}

impl ApiKey {
    /// That `act` was done to this key.
    pub fn act(&self, act: KeyAct) -> Act {
        let Some(project_id) = self.project_id else {
            let action = match act {
                KeyAct::Created => "admin_api_key.created",
                KeyAct::Rotated => "admin_api_key.rotated",
                KeyAct::Deleted => "admin_api_key.deleted",
            };
            return Act::new(action, "organization.admin_api_key", self.id);
        };
        let action = match act {
            KeyAct::Created => "api_key.created",
            KeyAct::Rotated => "api_key.rotated",
            KeyAct::Deleted => "api_key.deleted",
        };
        Act::new(action, "organization.project.api_key", self.id).project(project_id)
    }
}
