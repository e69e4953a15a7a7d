//! Settings that make sense alone and not together.

use super::{Hyperparameters, MethodKind, Quantization, TuningKind, join};
use crate::config::Precision;
use crate::field::FieldError;

/// # Errors
/// The first setting that does not go with the others, by name.
pub(super) fn check(asked: &Hyperparameters, path: &str, has_lora: bool) -> Result<(), FieldError> {
    let refuse = |name: &str, message: String| Err(FieldError::new(join(path, name), message));
    if asked.learning_rate.is_some() && asked.learning_rate_multiplier.is_some() {
        let message = "cannot be given together with `learning_rate`; leave one of them out";
        return refuse("learning_rate_multiplier", message.to_owned());
    }
    check_method(asked, path)?;
    if asked.tuning == Some(TuningKind::Full) {
        let full = "means nothing when every weight learns (`tuning` is `full`); leave it out";
        if has_lora {
            return refuse("lora", full.to_owned());
        }
        if !matches!(asked.quantization, None | Some(Quantization::None)) {
            let message =
                "weights that learn cannot be quantised; leave it out, or set `tuning` to `lora`";
            return refuse("quantization", message.to_owned());
        }
        if asked.precision == Some(Precision::Bf16) {
            let message =
                "weights that learn are 32-bit, or small updates would be lost; leave it out";
            return refuse("precision", message.to_owned());
        }
    } else if asked.train_embeddings.is_some() {
        let message =
            "is a setting of `tuning`: `full`; an adapter leaves the embeddings as they are";
        return refuse("train_embeddings", message.to_owned());
    }
    let is_quantised = !matches!(asked.quantization, None | Some(Quantization::None));
    if is_quantised && asked.precision == Some(Precision::F32) {
        let message = "`f32` does not go with `quantization`: what is decoded is multiplied in 16 bits; leave it out";
        return refuse("precision", message.to_owned());
    }
    Ok(())
}

/// A number that belongs to another method would be ignored, so it is refused.
fn check_method(asked: &Hyperparameters, path: &str) -> Result<(), FieldError> {
    let method = asked.method.unwrap_or(MethodKind::Supervised);
    let given = [
        ("beta", asked.beta.is_some()),
        ("gamma", asked.gamma.is_some()),
        ("desirable_weight", asked.desirable_weight.is_some()),
        ("undesirable_weight", asked.undesirable_weight.is_some()),
        ("kl_weight", asked.kl_weight.is_some()),
    ];
    for (name, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        if method.settings().contains(&name) {
            continue;
        }
        let takers: Vec<String> = MethodKind::ALL
            .into_iter()
            .filter(|(_, kind)| kind.settings().contains(&name))
            .map(|(taker, _)| format!("`{taker}`"))
            .collect();
        let message = format!(
            "is a setting of the method {}, and the method is `{}`",
            takers.join(", "),
            method.name()
        );
        return Err(FieldError::new(join(path, name), message));
    }
    Ok(())
}
