//! One type per kind of id: a UUIDv7 inside, a prefix in front on the wire.
//!
//! An id from a client is parsed once, at the edge; past it a `FileId` cannot be taken for a `JobId`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A string that is not an id of the expected kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{given}` is not a {kind} id: it should look like `{prefix}0190…` (32 hexadecimal digits)"
)]
pub struct ParseIdError {
    given: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// What stands before the digits on the wire.
            pub const PREFIX: &'static str = $prefix;

            /// A new id. UUIDv7 sorts by the time of its making, so cursors and indexes stay ordered.
            #[expect(clippy::new_without_default, reason = "a default id would be a different one each time")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .filter(|digits| digits.len() == 32)
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError {
                        given: text.chars().take(64).collect(),
                        kind: $kind,
                        prefix: $prefix,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// An organization: one customer of an installation.
    OrgId, "organization", "org-"
);
id_type!(
    /// A project of an organization: the tenant. Everything a tenant owns carries it.
    ProjectId, "project", "proj_"
);
id_type!(
    /// An API key's record, not its secret.
    ApiKeyId, "API key", "key_"
);
id_type!(
    /// An uploaded or produced file.
    FileId, "file", "file-"
);
id_type!(
    /// A fine-tuning job.
    JobId, "job", "ftjob-"
);
id_type!(
    /// An event of a job.
    EventId, "event", "ftevent-"
);
id_type!(
    /// A checkpoint of a job.
    CheckpointId, "checkpoint", "ftckpt_"
);
id_type!(
    /// A base model of the installation.
    BaseModelId, "base model", "base_"
);
id_type!(
    /// A fine-tuned model's record; clients see its name (`ft:…`) instead.
    FineTunedModelId, "model", "ftmodel_"
);
id_type!(
    /// A user of an organization.
    UserId, "user", "user-"
);
id_type!(
    /// A service account of a project.
    ServiceAccountId, "service account", "svc_acct_"
);
id_type!(
    /// A project's permission to use another project's model.
    PermissionId, "permission", "cp_"
);
id_type!(
    /// The fence of one claim: every later write of that attempt must carry it.
    LeaseToken, "lease token", "lease_"
);

id_type!(
    /// A file that comes in parts.
    UploadId, "upload", "upload_"
);
id_type!(
    /// A part of an upload.
    PartId, "part", "part_"
);
id_type!(
    /// A batch of requests.
    BatchId, "batch", "batch_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        assert!(id.to_string().starts_with("ftjob-"));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let file = FileId::new().to_string();
        let message = file.parse::<JobId>().unwrap_err().to_string();
        assert!(message.contains("is not a job id"), "{message}");
    }

    #[test]
    fn a_hyphenated_uuid_is_not_an_id() {
        assert!(
            format!("file-{}", Uuid::nil().hyphenated())
                .parse::<FileId>()
                .is_err()
        );
    }
}
