//! `string_check`: one text against another.

use serde::{Deserialize, Serialize};

/// How two texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The texts are the same.
    Eq,
    /// They are not.
    Ne,
    /// The input holds the reference.
    Like,
    /// The input holds the reference, whatever the case.
    Ilike,
}

impl Operation {
    /// Whether it holds.
    pub fn holds(self, input: &str, reference: &str) -> bool {
        match self {
            Self::Eq => input == reference,
            Self::Ne => input != reference,
            Self::Like => input.contains(reference),
            Self::Ilike => input.to_lowercase().contains(&reference.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_looks_at_what_it_says() {
        for (operation, input, reference, holds) in [
            (Operation::Eq, "Yes", "Yes", true),
            (Operation::Eq, "Yes", "yes", false),
            (Operation::Ne, "Yes", "yes", true),
            (Operation::Like, "the answer is Yes.", "Yes", true),
            (Operation::Like, "the answer is Yes.", "yes", false),
            (Operation::Like, "Yes", "the answer is Yes", false),
            (Operation::Ilike, "DIE STRAẞE", "straße", true),
            // No wildcard of SQL's.
            (Operation::Like, "abc", "a%", false),
        ] {
            assert_eq!(
                operation.holds(input, reference),
                holds,
                "{operation:?} {input} {reference}"
            );
        }
    }
}
