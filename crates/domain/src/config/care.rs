//! What keeps a model from forgetting what it knew, and a run from going on when it only gets worse.

use serde::{Deserialize, Serialize};

/// Which of a run's states becomes the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The one after the last step.
    #[default]
    Last,
    /// Of those that were measured on the validation file, the one with the lowest loss.
    Best,
}

/// Settings of careful training. The default does nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Care {
    /// Rows of another file among those of the training file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// The weight of `KL(base ‖ model)` per supervised token beside the cross-entropy, both in nats; 0 leaves it out.
    #[serde(skip_serializing_if = "is_zero")]
    pub kl_weight: f64,
    /// Which state becomes the model.
    pub keep: Keep,
    /// Ends the run early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Warns when the perplexity of a general text grows by more than this share of what it was; `None` does not
    /// measure it.
    pub max_perplexity_increase: Option<f64>,
}

/// Rows of another file, mixed in so that what they show is not forgotten (Rolnick et al. 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The share of replayed rows among all rows of an epoch, above 0 and below 1.
    pub ratio: f64,
    /// The file: an id in the API, absent where the file is given beside the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Ends a run whose validation loss does not fall any more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Measurements without a gain, after which the run ends.
    pub patience: u64,
    /// What counts as a gain: a loss lower by more than this, in nats.
    #[serde(default)]
    pub min_delta: f64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Replay {
    /// Replayed rows of an epoch over `n_rows` rows of the training file: at least one.
    #[expect(clippy::cast_precision_loss, reason = "row counts stay below 2^52")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive"
    )]
    pub fn rows_per_epoch(&self, n_rows: u64) -> u64 {
        let rows = n_rows as f64 * self.ratio / (1.0 - self.ratio);
        (rows.round() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_a_share_of_the_whole() {
        let replay = |ratio| Replay { ratio, file: None };
        assert_eq!(replay(0.5).rows_per_epoch(100), 100);
        assert_eq!(replay(0.1).rows_per_epoch(90), 10);
        assert_eq!(replay(0.01).rows_per_epoch(3), 1);
    }
}
