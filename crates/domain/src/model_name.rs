//! Names of fine-tuned models and their checkpoints: `ft:{base}:{org}:{suffix}:{tag}[:ckpt-step-{n}]`.

use std::fmt;

/// What stands before the name of every fine-tuned model.
pub const FINE_TUNED_PREFIX: &str = "ft:";

/// A name as a client writes it, split into what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelName {
    /// A base model of the installation.
    Base(String),
    /// A fine-tuned model, by its whole name.
    FineTuned {
        /// The name without a checkpoint's ending.
        name: String,
        /// The step of the checkpoint that is meant, if one is.
        checkpoint_step: Option<u64>,
    },
}

impl ModelName {
    /// Splits a name. Every string is a name of some kind; whether it exists is another question.
    pub fn parse(text: &str) -> Self {
        if !text.starts_with(FINE_TUNED_PREFIX) {
            return Self::Base(text.to_owned());
        }
        match text.rsplit_once(":ckpt-step-") {
            Some((name, step)) if step.parse::<u64>().is_ok_and(|n| n.to_string() == step) => {
                Self::FineTuned {
                    name: name.to_owned(),
                    checkpoint_step: step.parse().ok(),
                }
            }
            _ => Self::FineTuned {
                name: text.to_owned(),
                checkpoint_step: None,
            },
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base(name)
            | Self::FineTuned {
                name,
                checkpoint_step: None,
            } => f.write_str(name),
            Self::FineTuned {
                name,
                checkpoint_step: Some(step),
            } => f.write_str(&checkpoint_name(name, *step)),
        }
    }
}

/// The name a job's model gets. `tag` is random, so that two jobs with one suffix differ.
///
/// Of the suffix, letters, digits, `-`, `_` and `.` stay; each other character becomes a `-`, because colons separate the
/// parts of a name and names stand in paths.
pub fn fine_tuned_name(base: &str, org_slug: &str, suffix: Option<&str>, tag: &str) -> String {
    let is_kept = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let suffix: String = suffix
        .unwrap_or_default()
        .chars()
        .map(|c| if is_kept(c) { c } else { '-' })
        .collect();
    format!("{FINE_TUNED_PREFIX}{base}:{org_slug}:{suffix}:{tag}")
}

/// The name of a checkpoint of the model `name`.
pub fn checkpoint_name(name: &str, step: u64) -> String {
    format!("{name}:ckpt-step-{step}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_name_is_split_and_joined() {
        let name = fine_tuned_name("smollm2", "acme", None, "a1b2c3d4");
        assert_eq!(name, "ft:smollm2:acme::a1b2c3d4");
        let checkpoint = checkpoint_name(&name, 40);
        let parsed = ModelName::parse(&checkpoint);
        assert_eq!(
            parsed,
            ModelName::FineTuned {
                name,
                checkpoint_step: Some(40)
            }
        );
        assert_eq!(parsed.to_string(), checkpoint);
    }

    #[test]
    fn no_suffix_breaks_out_of_its_part_of_the_name() {
        for (suffix, part) in [
            ("Bot_2.1-é", "Bot_2.1-é"),
            ("our bot: v2/x\n🙂", "our-bot--v2-x--"),
            ("::", "--"),
        ] {
            let name = fine_tuned_name("smollm2", "acme", Some(suffix), "a1b2c3d4");
            assert_eq!(name, format!("ft:smollm2:acme:{part}:a1b2c3d4"));
        }
    }

    #[test]
    fn a_step_that_is_no_plain_number_is_part_of_the_name() {
        for text in [
            "ft:b:o:s:t:ckpt-step-",
            "ft:b:o:s:t:ckpt-step-007",
            "ft:b:o:s:t:ckpt-step-x",
        ] {
            let parsed = ModelName::parse(text);
            assert!(
                matches!(
                    parsed,
                    ModelName::FineTuned {
                        checkpoint_step: None,
                        ..
                    }
                ),
                "{text}"
            );
        }
    }
}
