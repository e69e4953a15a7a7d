//! Which tuned models a job can go on from: what is to learn now has to fit what learned before.

use super::Tuning;

/// What a tuned model consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunedModel {
    /// Its base and an adapter.
    Adapter,
    /// Weights in the place of its base's.
    Weights {
        /// Whether the table of token embeddings is among them.
        with_embeddings: bool,
    },
}

impl TunedModel {
    /// Whether a job that tunes like `tuning` can go on from this model, which clients call `model`, on the base `base`.
    /// Whether two adapters have the same settings is not looked at here.
    ///
    /// # Errors
    /// Why not, and the ways out.
    pub fn check(self, tuning: &Tuning, model: &str, base: &str) -> Result<(), IncompatibleModel> {
        let (model, base) = (model.to_owned(), base.to_owned());
        match (self, tuning) {
            (Self::Adapter, Tuning::Full { .. }) => Err(IncompatibleModel::Adapter { model, base }),
            (Self::Weights { .. }, Tuning::Lora(_)) => {
                Err(IncompatibleModel::Weights { model, base })
            }
            (
                Self::Weights {
                    with_embeddings: true,
                },
                Tuning::Full {
                    train_embeddings: false,
                },
            ) => Err(IncompatibleModel::Embeddings { model, base }),
            (Self::Adapter, Tuning::Lora(_)) | (Self::Weights { .. }, Tuning::Full { .. }) => {
                Ok(())
            }
        }
    }
}

impl From<&Tuning> for TunedModel {
    fn from(tuning: &Tuning) -> Self {
        match tuning {
            Tuning::Lora(_) => Self::Adapter,
            Tuning::Full { train_embeddings } => Self::Weights {
                with_embeddings: *train_embeddings,
            },
        }
    }
}

/// A tuned model that a job cannot go on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the model's name and its base's, as clients write them"
)]
pub enum IncompatibleModel {
    /// Weights, and an adapter is to learn.
    #[error(
        "`{model}` has weights of its own, and an adapter needs a base model under it; set `tuning` to `full`, or start \
         from its base `{base}`"
    )]
    Weights { model: String, base: String },
    /// An adapter, and the weights are to learn.
    #[error(
        "`{model}` is an adapter, and `tuning` is `full`; set `tuning` to `lora`, or start from its base `{base}`"
    )]
    Adapter { model: String, base: String },
    /// The new model would be kept without its embeddings, and answer with the base's.
    #[error(
        "the embeddings of `{model}` were trained, and whoever goes on from it trains them too; set `train_embeddings` to \
         `true`, or start from its base `{base}`"
    )]
    Embeddings { model: String, base: String },
}

impl IncompatibleModel {
    /// The word by which programs know it.
    pub const CODE: &'static str = "incompatible_model";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrainingConfig;

    fn lora() -> Tuning {
        let tuning = TrainingConfig::default().tuning;
        assert!(matches!(tuning, Tuning::Lora(_)));
        tuning
    }

    fn full(train_embeddings: bool) -> Tuning {
        Tuning::Full { train_embeddings }
    }

    fn check(made: &Tuning, wanted: &Tuning) -> Result<(), String> {
        let checked = TunedModel::from(made).check(wanted, "ft:tiny:acme::1", "tiny");
        checked.map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn a_job_goes_on_from_what_learned_as_it_does() {
        for (made, wanted) in [
            (lora(), lora()),
            (full(false), full(false)),
            (full(true), full(true)),
            (full(false), full(true)),
        ] {
            assert_eq!(check(&made, &wanted), Ok(()), "{made:?} {wanted:?}");
        }
    }

    #[test]
    fn another_job_is_told_what_to_change() {
        for (made, wanted, way_out) in [
            (full(false), lora(), "set `tuning` to `full`"),
            (full(true), lora(), "set `tuning` to `full`"),
            (lora(), full(true), "set `tuning` to `lora`"),
            (full(true), full(false), "set `train_embeddings` to `true`"),
        ] {
            let message = check(&made, &wanted).unwrap_err();
            for part in ["`ft:tiny:acme::1`", "its base `tiny`", way_out] {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
    }
}
