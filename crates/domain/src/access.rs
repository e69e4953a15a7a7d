//! Roles and scopes: what a user, a service account or a key may do.
//!
//! A role says what somebody may do in a project; a key's scopes narrow that further, never widen it.

use std::fmt;
use std::str::FromStr;

/// A word that is none of those expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not a {kind}: it must be one of {allowed}")]
pub struct WordError {
    given: String,
    kind: &'static str,
    allowed: String,
}

macro_rules! words {
    ($name:ident, $kind:literal, $($variant:ident = $word:literal),+) => {
        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it, on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(word: &str) -> Result<Self, WordError> {
                let found = Self::ALL.iter().copied().find(|each| each.as_str() == word);
                found.ok_or_else(|| WordError {
                    given: word.chars().take(64).collect(),
                    kind: $kind,
                    allowed: Self::ALL
                        .iter()
                        .map(|each| format!("`{each}`"))
                        .collect::<Vec<_>>()
                        .join(", "),
                })
            }
        }
    };
}

/// What somebody may do in a project. The greater may do what the lesser may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also uploads, trains, chats, and deletes files.
    Member,
    /// A member who answers for the project, and may delete its models.
    Owner,
}
words!(
    Role,
    "role",
    Viewer = "viewer",
    Member = "member",
    Owner = "owner"
);

impl Role {
    /// Whether the role allows more than reading.
    pub fn may_write(self) -> bool {
        self >= Self::Member
    }
}

/// What a user is in the organization, beside the roles in its projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrgRole {
    /// Administers the organization, as an admin key does.
    Owner,
    /// Is known to it.
    Reader,
}
words!(
    OrgRole,
    "role of an organization",
    Owner = "owner",
    Reader = "reader"
);

/// What a key can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Files and uploads.
    Files,
    /// Fine-tuning: jobs and the models they make.
    Jobs,
    /// Answers of models, one by one or in batches.
    Inference,
    /// Not an area: forbids everything that changes something or costs computation.
    ReadOnly,
}
words!(
    Scope,
    "scope",
    Files = "files",
    Jobs = "jobs",
    Inference = "inference",
    ReadOnly = "read_only"
);

/// The scopes of one key. None at all means that it is limited to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Whether only reading is left.
    pub fn is_read_only(&self) -> bool {
        self.0.contains(&Scope::ReadOnly)
    }

    /// Whether one of these areas is open. A key without an area has them all.
    pub fn open_one_of(&self, areas: &[Scope]) -> bool {
        let mut own = self
            .0
            .iter()
            .filter(|scope| **scope != Scope::ReadOnly)
            .peekable();
        own.peek().is_none() || own.any(|scope| areas.contains(scope))
    }

    /// Their words.
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// The scopes with these words.
    ///
    /// # Errors
    /// The first word that is no scope.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Result<Self, WordError> {
        words
            .into_iter()
            .map(|word| word.as_ref().parse())
            .collect::<Result<Vec<Scope>, _>>()
            .map(|scopes| scopes.into_iter().collect())
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut scopes: Vec<_> = scopes.into_iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_scopes_is_limited_to_nothing() {
        let scopes = Scopes::default();
        assert!(scopes.open_one_of(&[Scope::Jobs]) && !scopes.is_read_only());
    }

    #[test]
    fn read_only_closes_no_area_and_an_area_closes_the_others() {
        let reader = Scopes::from_iter([Scope::ReadOnly]);
        assert!(reader.open_one_of(&[Scope::Files]) && reader.is_read_only());
        let uploader = Scopes::from_iter([Scope::ReadOnly, Scope::Files]);
        assert!(uploader.open_one_of(&[Scope::Files]) && uploader.is_read_only());
        assert!(!uploader.open_one_of(&[Scope::Jobs, Scope::Inference]));
    }

    #[test]
    fn words_come_back_and_an_unknown_one_is_named() {
        let scopes = Scopes::parse(["jobs", "files", "jobs"]).unwrap();
        assert_eq!(scopes.words(), ["files", "jobs"]);
        let message = Scopes::parse(["admin"]).unwrap_err().to_string();
        assert!(
            message.contains("`admin`") && message.contains("`read_only`"),
            "{message}"
        );
        assert_eq!("owner".parse(), Ok(Role::Owner));
        assert!("Owner".parse::<Role>().is_err());
    }

    #[test]
    fn only_a_viewer_may_not_write() {
        let writers: Vec<_> = Role::ALL.iter().filter(|role| role.may_write()).collect();
        assert_eq!(writers, [&Role::Member, &Role::Owner]);
    }
}
