//! The settings of a job, gathered from the places where clients put them.
//!
//! OpenAI's own three stand in `hyperparameters` (older clients) or in `method.supervised.hyperparameters`; ours
//! stand in `attune`, the same object as `job.json`. A setting may be said in two places if it says the same.

use domain::{FieldError, Hyperparameters};
use serde_json::{Map, Value};

const OPENAI_KNOBS: [&str; 3] = ["n_epochs", "batch_size", "learning_rate_multiplier"];

/// What a client asks for, all places together. `null`, `"auto"` and absence say nothing.
///
/// # Errors
/// The first field that cannot be used, or that contradicts another one, by its full path.
pub(super) fn gather(request: &Map<String, Value>) -> Result<Hyperparameters, FieldError> {
    let given = |name: &str| request.get(name).filter(|value| !value.is_null());
    let mut places = Vec::new();
    if let Some(method) = given("method") {
        places.extend(of_method(method)?);
    }
    if let Some(value) = given("hyperparameters") {
        places.push(openai_place("hyperparameters".to_owned(), value)?);
    }
    if let Some(seed) = given("seed") {
        let seed = Map::from_iter([("seed".to_owned(), seed.clone())]);
        places.push((
            String::new(),
            Hyperparameters::parse("", &Value::Object(seed))?,
        ));
    }
    let ours = match given("attune") {
        Some(value) => Hyperparameters::parse("attune", value)?,
        None => Hyperparameters::default(),
    };
    places.push(("attune".to_owned(), ours.clone()));
    merge(ours, &places)
}

/// Where a setting was found, and all settings found there.
type Place = (String, Hyperparameters);

fn of_method(method: &Value) -> Result<Option<Place>, FieldError> {
    let method = method
        .as_object()
        .ok_or_else(|| FieldError::new("method", "must be a JSON object"))?;
    match method.get("type").and_then(Value::as_str) {
        Some("supervised") => {}
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            let message = format!("`{other}` is not supported here; only `supervised` is");
            return Err(FieldError::new("method.type", message));
        }
        None => {
            return Err(FieldError::new(
                "method.type",
                "is missing; only `supervised` is supported here",
            ));
        }
    }
    // Clients may send the objects of other methods along; the type says which one counts.
    let Some(supervised) = method.get("supervised").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let supervised = supervised
        .as_object()
        .ok_or_else(|| FieldError::new("method.supervised", "must be a JSON object"))?;
    supervised
        .get("hyperparameters")
        .filter(|value| !value.is_null())
        .map(|value| openai_place("method.supervised.hyperparameters".to_owned(), value))
        .transpose()
}

fn openai_place(path: String, value: &Value) -> Result<Place, FieldError> {
    let foreign = value.as_object().and_then(|object| {
        object
            .keys()
            .find(|key| !OPENAI_KNOBS.contains(&key.as_str()))
    });
    if let Some(name) = foreign {
        let message = "is not one of `n_epochs`, `batch_size`, `learning_rate_multiplier`; every other \
                       setting belongs in `attune`";
        let name: String = name.chars().take(64).collect();
        return Err(FieldError::new(format!("{path}.{name}"), message));
    }
    let read = Hyperparameters::parse(&path, value)?;
    Ok((path, read))
}

fn merge(ours: Hyperparameters, places: &[Place]) -> Result<Hyperparameters, FieldError> {
    let merged = Hyperparameters {
        n_epochs: agreed("n_epochs", places, |place| place.n_epochs)?,
        batch_size: agreed("batch_size", places, |place| place.batch_size)?,
        learning_rate_multiplier: agreed("learning_rate_multiplier", places, |place| {
            place.learning_rate_multiplier
        })?,
        seed: agreed("seed", places, |place| place.seed)?,
        ..ours
    };
    if merged.learning_rate.is_some() && merged.learning_rate_multiplier.is_some() {
        let message =
            "cannot be given together with a `learning_rate_multiplier`; leave one of them out";
        return Err(FieldError::new("attune.learning_rate", message));
    }
    Ok(merged)
}

/// The one value that every place gives which gives one.
fn agreed<T: PartialEq + Copy + std::fmt::Display>(
    name: &str,
    places: &[Place],
    read: impl Fn(&Hyperparameters) -> Option<T>,
) -> Result<Option<T>, FieldError> {
    let mut first: Option<(String, T)> = None;
    for (path, place) in places {
        let Some(value) = read(place) else { continue };
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        match &first {
            Some((elsewhere, other)) if *other != value => {
                let message =
                    format!("is {value}, but `{elsewhere}` is {other}; give one of them only");
                return Err(FieldError::new(path, message));
            }
            Some(_) => {}
            None => first = Some((path, value)),
        }
    }
    Ok(first.map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gathered(request: &Value) -> Result<Hyperparameters, String> {
        gather(request.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_knob_given_differently_twice_is_refused_by_name() {
        for (request, field) in [
            (
                json!({"hyperparameters": {"n_epochs": 3}, "attune": {"n_epochs": 2}}),
                "attune.n_epochs",
            ),
            (
                json!({"hyperparameters": {"batch_size": 3},
                       "method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4}}}}),
                "hyperparameters.batch_size",
            ),
            (json!({"seed": 1, "attune": {"seed": 2}}), "attune.seed"),
            (
                json!({"hyperparameters": {"learning_rate_multiplier": 2}, "attune": {"learning_rate": 1e-4}}),
                "attune.learning_rate",
            ),
        ] {
            let message = gathered(&request).unwrap_err();
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
        }
    }

    #[test]
    fn one_knob_given_twice_alike_is_fine() {
        let read = gathered(&json!({
            "seed": 7,
            "hyperparameters": {"n_epochs": 3, "batch_size": "auto"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3.0}}},
            "attune": {"n_epochs": 3, "seed": 7, "batch_size": 2, "lora": {"rank": 4}},
        }));
        let read = read.unwrap();
        assert_eq!(
            (read.n_epochs, read.seed, read.batch_size),
            (Some(3), Some(7), Some(2))
        );
        assert_eq!(read.lora_rank, Some(4));
    }

    #[test]
    fn every_range_names_its_field() {
        for (request, field) in [
            (
                json!({"hyperparameters": {"n_epochs": 0}}),
                "hyperparameters.n_epochs",
            ),
            (
                json!({"hyperparameters": {"beta": 0.1}}),
                "hyperparameters.beta",
            ),
            (json!({"hyperparameters": []}), "hyperparameters"),
            (json!({"method": {"type": "dpo"}}), "method.type"),
            (json!({"method": {}}), "method.type"),
            (
                json!({"method": {"type": "supervised", "supervised": 1}}),
                "method.supervised",
            ),
            (
                json!({"method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 0}}}}),
                "method.supervised.hyperparameters.batch_size",
            ),
            (json!({"attune": {"lora": {"rank": 0}}}), "attune.lora.rank"),
            (json!({"seed": 2_147_483_648_u64}), "seed"),
        ] {
            let message = gathered(&request).unwrap_err();
            assert!(
                message.starts_with(&format!("{field}: ")),
                "{request}: {message}"
            );
        }
    }

    #[test]
    fn the_objects_of_other_methods_are_not_looked_at() {
        let request =
            json!({"method": {"type": "supervised", "dpo": {"hyperparameters": {"beta": 9}}}});
        assert_eq!(gathered(&request), Ok(Hyperparameters::default()));
    }
}
