//! What a run minimises: the loss, with the numbers that belong to it.

use serde::{Deserialize, Serialize};

/// The loss of a run. Every preference loss but ORPO and SimPO compares the model with its reference: the model that the
/// run started from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(from = "MethodFields", into = "MethodFields")]
pub enum Method {
    /// Cross-entropy of what the assistant said.
    #[default]
    Supervised,
    /// Direct preference optimisation (Rafailov et al. 2023).
    Dpo {
        /// How close to the reference: the larger, the closer.
        beta: f64,
    },
    /// Identity preference optimisation (Azar et al. 2023).
    Ipo {
        /// As DPO's.
        beta: f64,
    },
    /// Odds-ratio preference optimisation (Hong et al. 2024): supervised on the preferred output, and no reference.
    Orpo {
        /// The weight of the odds ratio beside the supervised loss, λ in the paper.
        beta: f64,
    },
    /// Simple preference optimisation (Meng et al. 2024): no reference.
    SimPo {
        /// The scale of a token's mean log-probability.
        beta: f64,
        /// The margin by which the preferred output is to win.
        gamma: f64,
    },
    /// Kahneman-Tversky optimisation (Ethayarajh et al. 2024), of rows that are each good or bad.
    Kto {
        /// As DPO's.
        beta: f64,
        /// The weight of good rows.
        desirable_weight: f64,
        /// The weight of bad rows.
        undesirable_weight: f64,
    },
}

/// A method without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "documented at Method")]
pub enum MethodKind {
    #[default]
    Supervised,
    Dpo,
    Ipo,
    Orpo,
    SimPo,
    Kto,
}

/// The numbers of a method, as far as they were chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented at Method")]
pub struct Numbers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desirable_weight: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undesirable_weight: Option<f64>,
}

/// [`Method`] as settings say it.
#[derive(Serialize, Deserialize)]
struct MethodFields {
    #[serde(default)]
    method: MethodKind,
    #[serde(flatten)]
    numbers: Numbers,
}

/// What a row of the dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// A conversation to learn from: `messages`.
    Chat,
    /// A prompt with a better and a worse answer: `input`, `preferred_output`, `non_preferred_output`.
    Preference,
    /// A conversation that is good or bad: `messages`, `label`.
    Judged,
}

impl MethodKind {
    /// Every method under the name that settings give it.
    pub const ALL: [(&'static str, Self); 6] = [
        ("supervised", Self::Supervised),
        ("dpo", Self::Dpo),
        ("ipo", Self::Ipo),
        ("orpo", Self::Orpo),
        ("simpo", Self::SimPo),
        ("kto", Self::Kto),
    ];

    /// The name that settings give it.
    pub fn name(self) -> &'static str {
        let (name, _) = Self::ALL[self as usize];
        name
    }

    /// The numbers that a client may set.
    pub(in crate::config) fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Supervised => &["kl_weight"],
            Self::Dpo | Self::Ipo | Self::Orpo => &["beta"],
            Self::SimPo => &["beta", "gamma"],
            Self::Kto => &["beta", "desirable_weight", "undesirable_weight"],
        }
    }

    /// The rows it learns from.
    pub fn row_kind(self) -> RowKind {
        match self {
            Self::Supervised => RowKind::Chat,
            Self::Dpo | Self::Ipo | Self::Orpo | Self::SimPo => RowKind::Preference,
            Self::Kto => RowKind::Judged,
        }
    }
}

impl Method {
    /// The method with these numbers; those that were not chosen are what its paper and the field's libraries begin with.
    pub fn new(kind: MethodKind, numbers: &Numbers) -> Self {
        let beta = |usual| numbers.beta.unwrap_or(usual);
        match kind {
            MethodKind::Supervised => Self::Supervised,
            MethodKind::Dpo => Self::Dpo { beta: beta(0.1) },
            MethodKind::Ipo => Self::Ipo { beta: beta(0.1) },
            MethodKind::Orpo => Self::Orpo { beta: beta(0.1) },
            MethodKind::SimPo => Self::SimPo {
                beta: beta(2.0),
                gamma: numbers.gamma.unwrap_or(1.0),
            },
            MethodKind::Kto => Self::Kto {
                beta: beta(0.1),
                desirable_weight: numbers.desirable_weight.unwrap_or(1.0),
                undesirable_weight: numbers.undesirable_weight.unwrap_or(1.0),
            },
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> MethodKind {
        match self {
            Self::Supervised => MethodKind::Supervised,
            Self::Dpo { .. } => MethodKind::Dpo,
            Self::Ipo { .. } => MethodKind::Ipo,
            Self::Orpo { .. } => MethodKind::Orpo,
            Self::SimPo { .. } => MethodKind::SimPo,
            Self::Kto { .. } => MethodKind::Kto,
        }
    }

    /// The rows it learns from.
    pub fn row_kind(&self) -> RowKind {
        self.kind().row_kind()
    }

    /// Whether each step also runs the reference.
    pub fn has_reference(&self) -> bool {
        matches!(self, Self::Dpo { .. } | Self::Ipo { .. } | Self::Kto { .. })
    }
}

impl From<MethodFields> for Method {
    fn from(fields: MethodFields) -> Self {
        Self::new(fields.method, &fields.numbers)
    }
}

impl From<Method> for MethodFields {
    fn from(method: Method) -> Self {
        let mut numbers = Numbers::default();
        match method {
            Method::Supervised => {}
            Method::Dpo { beta } | Method::Ipo { beta } | Method::Orpo { beta } => {
                numbers.beta = Some(beta);
            }
            Method::SimPo { beta, gamma } => {
                numbers.beta = Some(beta);
                numbers.gamma = Some(gamma);
            }
            Method::Kto {
                beta,
                desirable_weight,
                undesirable_weight,
            } => {
                numbers.beta = Some(beta);
                numbers.desirable_weight = Some(desirable_weight);
                numbers.undesirable_weight = Some(undesirable_weight);
            }
        }
        Self {
            method: method.kind(),
            numbers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_name() {
        for (name, kind) in MethodKind::ALL {
            assert_eq!(kind.name(), name);
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
        let dpo = serde_json::to_value(Method::Dpo { beta: 0.1 }).unwrap();
        assert_eq!(dpo, serde_json::json!({"method": "dpo", "beta": 0.1}));
    }
}
