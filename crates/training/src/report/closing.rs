//! What a run's owner is told once it is over.

use serde_json::Value;

use crate::train::Trained;

/// Something worth saying of a run that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Remark {
    /// For people.
    pub text: String,
    /// Whether it is a warning.
    pub is_warning: bool,
    /// The numbers in it, for programs.
    pub data: Option<Value>,
}

/// Where the run ended, which of its states became the model, and what that one forgot.
pub fn closing_remarks(trained: &Trained) -> Vec<Remark> {
    let plain = |text| Remark {
        text,
        is_warning: false,
        data: None,
    };
    let stopped = trained.stopped_early.then(|| {
        plain(format!(
            "Stopped after step {}: the validation loss did not fall any more",
            trained.steps
        ))
    });
    let chosen = (trained.chosen_step < trained.steps).then(|| {
        plain(format!(
            "The model is that of step {}, which had the lowest validation loss",
            trained.chosen_step
        ))
    });
    let perplexity = trained.forgetting.as_ref().map(|forgetting| Remark {
        data: serde_json::to_value(forgetting).ok(),
        ..plain(format!(
            "Perplexity of a general text: {:.2} before, {:.2} after",
            forgetting.perplexity_before, forgetting.perplexity_after
        ))
    });
    let forgotten = trained.forgetting.as_ref().and_then(|forgetting| {
        Some(Remark {
            is_warning: true,
            ..plain(forgetting.warning()?)
        })
    });
    let said = [stopped, chosen, perplexity, forgotten];
    said.into_iter().flatten().collect()
}
