//! From hidden states to a loss: what a run minimises.
//!
//! Each loss has a file of its own. They sum over *units* (supervised tokens, pairs or judged rows), and a step divides by
//! the units of all its micro-batches together, so the loss does not depend on how a batch is split.
//!
//! Legend: `n` supervised tokens, `d` model width, `r` rows of a micro-batch.

mod dpo;
mod ipo;
mod kto;
mod log_probs;
mod orpo;
mod pairs;
mod simpo;
mod supervised;

use burn::tensor::Tensor;
use domain::TrainingConfig;
use domain::config::Method;
use lm::{Adapter, CausalLm};

use crate::batch::MicroBatch;
use crate::rows::Sample;

use pairs::Pairs;

/// A loss.
pub trait Objective {
    /// What the loss is a mean over: how many of them a micro-batch holds.
    fn n_units(&self, batch: &MicroBatch) -> usize;

    /// A number that the losses of all micro-batches of a step share.
    fn baseline(&self, _policy: &Policy<'_>, _samples: &[Sample]) -> f64 {
        0.0
    }

    /// The loss of a micro-batch.
    fn loss(&self, forward: Forward<'_>) -> Loss;
}

/// What a loss is computed from.
pub struct Forward<'a> {
    /// The model whose head predicts. It records a graph if the loss is to be differentiated.
    pub model: &'a CausalLm,
    /// The rows.
    pub batch: &'a MicroBatch,
    /// After the final norm. `[tokens, d]`
    pub hidden: Tensor<2>,
    /// What the model is compared with.
    pub reference: Reference<'a>,
    /// What [`Objective::baseline`] gave.
    pub baseline: f64,
}

/// The model that a run started from. It records no graph.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The base.
    pub model: &'a CausalLm,
    /// What it had learned before.
    pub adapter: Option<&'a Adapter>,
}

/// The model as it is now, without a graph, and its reference.
#[derive(Debug, Clone)]
pub struct Policy<'a> {
    /// The base, or the model itself where its own weights learn.
    pub model: CausalLm,
    /// What it has learned beside.
    pub adapter: Option<&'a Adapter>,
    /// What it is compared with.
    pub reference: Reference<'a>,
}

/// The loss of one micro-batch.
pub struct Loss {
    /// Summed over the units, on the graph. `[1]`
    pub sum: Tensor<1>,
    /// Units that the model gets right: tokens that it would have said itself, pairs that it orders as they are.
    pub n_correct: u64,
}

/// The loss that settings ask for.
pub fn of(config: &TrainingConfig) -> Box<dyn Objective> {
    match config.method {
        Method::Supervised => Box::new(supervised::Supervised {
            kl_weight: config.care.kl_weight,
        }),
        Method::Dpo { beta } => Box::new(Pairs(dpo::Dpo { beta })),
        Method::Ipo { beta } => Box::new(Pairs(ipo::Ipo { beta })),
        Method::Orpo { beta } => Box::new(Pairs(orpo::Orpo { beta })),
        Method::SimPo { beta, gamma } => Box::new(Pairs(simpo::SimPo { beta, gamma })),
        Method::Kto {
            beta,
            desirable_weight,
            undesirable_weight,
        } => Box::new(kto::Kto {
            beta,
            desirable_weight,
            undesirable_weight,
        }),
    }
}

/// A whole number that was counted on the device.
#[expect(clippy::cast_possible_truncation, reason = "a whole number")]
#[expect(clippy::cast_sign_loss, reason = "not negative")]
fn count(value: f32) -> u64 {
    value as u64
}
