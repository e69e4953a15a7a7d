//! The settings of a job, gathered from the places where clients put them.
//!
//! OpenAI's own stand in `method.TYPE.hyperparameters`, or in `hyperparameters` (older clients), which says nothing where
//! the other is given; ours stand in `attune`, the same object as `job.json`. A setting may be said there too if it says
//! the same.

use domain::config::MethodKind;
use domain::{FieldError, Hyperparameters};
use serde_json::{Map, Value};

const OPENAI_KNOBS: [&str; 3] = ["n_epochs", "batch_size", "learning_rate_multiplier"];
/// The methods that OpenAI's clients can name, and what each may set.
const METHODS: [(&str, MethodKind, &[&str]); 2] = [
    ("supervised", MethodKind::Supervised, &OPENAI_KNOBS),
    (
        "dpo",
        MethodKind::Dpo,
        &["n_epochs", "batch_size", "learning_rate_multiplier", "beta"],
    ),
];

/// The place of a method that is named without settings.
const METHOD: &str = "method";

/// What a client asks for, all places together. `null`, `"auto"` and absence say nothing.
///
/// # Errors
/// The first field that cannot be used, or that contradicts another one, by its full path.
pub(super) fn gather(request: &Map<String, Value>) -> Result<Hyperparameters, FieldError> {
    let given = |name: &str| request.get(name).filter(|value| !value.is_null());
    let mut places = Vec::new();
    if let Some(method) = given("method") {
        places.push(of_method(method)?);
    }
    if let Some(value) = given("hyperparameters") {
        let older = openai_place("hyperparameters".to_owned(), value, None, &OPENAI_KNOBS)?;
        // The place for which it is deprecated wins, also where that says `"auto"`.
        if places.iter().all(|(path, _)| path == METHOD) {
            places.push(older);
        }
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

fn of_method(method: &Value) -> Result<Place, FieldError> {
    let method = method
        .as_object()
        .ok_or_else(|| FieldError::new("method", "must be a JSON object"))?;
    let unknown = |what: String| {
        let message = format!(
            "{what}; `supervised` and `dpo` are supported here, and more in `attune.method`"
        );
        FieldError::new("method.type", message)
    };
    let given = method.get("type").and_then(Value::as_str);
    let given = given.ok_or_else(|| unknown("is missing".to_owned()))?;
    let found = METHODS.into_iter().find(|(name, ..)| *name == given);
    let (name, kind, knobs) = found.ok_or_else(|| {
        let given: String = given.chars().take(40).collect();
        unknown(format!("`{given}` is not supported here"))
    })?;
    let path = format!("method.{name}");
    let alone = Hyperparameters {
        method: Some(kind),
        ..Hyperparameters::default()
    };
    // Clients may send the objects of other methods along; the type says which one counts.
    let Some(of_kind) = method.get(name).filter(|value| !value.is_null()) else {
        return Ok((METHOD.to_owned(), alone));
    };
    let of_kind = of_kind
        .as_object()
        .ok_or_else(|| FieldError::new(path.clone(), "must be a JSON object"))?;
    match of_kind
        .get("hyperparameters")
        .filter(|value| !value.is_null())
    {
        None => Ok((METHOD.to_owned(), alone)),
        Some(value) => openai_place(format!("{path}.hyperparameters"), value, Some(kind), knobs),
    }
}

/// What stands at `path`. `kind` is the method that the place belongs to, if it belongs to one.
fn openai_place(
    path: String,
    value: &Value,
    kind: Option<MethodKind>,
    knobs: &[&str],
) -> Result<Place, FieldError> {
    let mut given = value
        .as_object()
        .cloned()
        .ok_or_else(|| FieldError::new(path.clone(), "must be a JSON object"))?;
    if let Some(name) = given.keys().find(|key| !knobs.contains(&key.as_str())) {
        let known = knobs.iter().map(|knob| format!("`{knob}`"));
        let message = format!(
            "is not one of {}; every other setting belongs in `attune`",
            known.collect::<Vec<_>>().join(", ")
        );
        let name: String = name.chars().take(64).collect();
        return Err(FieldError::new(format!("{path}.{name}"), message));
    }
    if let Some(kind) = kind {
        given.insert("method".to_owned(), kind.name().into());
    }
    let read = Hyperparameters::parse(&path, &Value::Object(given))?;
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
        method: agreed_method(places)?,
        beta: agreed("beta", places, |place| place.beta)?,
        ..ours
    };
    if merged.learning_rate.is_some() && merged.learning_rate_multiplier.is_some() {
        let message =
            "cannot be given together with a `learning_rate_multiplier`; leave one of them out";
        return Err(FieldError::new("attune.learning_rate", message));
    }
    Ok(merged)
}

/// `supervised` and `dpo` in OpenAI's words may be made precise in ours: a loss over the same kind of rows.
fn agreed_method(places: &[Place]) -> Result<Option<MethodKind>, FieldError> {
    let mut given = places
        .iter()
        .filter_map(|(path, place)| Some((path, place.method?)));
    let (Some((path, first)), second) = (given.next(), given.next()) else {
        return Ok(None);
    };
    match second {
        None => Ok(Some(first)),
        Some((_, second)) if second == first => Ok(Some(first)),
        Some((_, second)) if first == MethodKind::Dpo && second.row_kind() == first.row_kind() => {
            Ok(Some(second))
        }
        Some((_, second)) => {
            let message = format!(
                "is `{}`, but `{path}` says `{}`; give one of them only",
                second.name(),
                first.name()
            );
            Err(FieldError::new("attune.method", message))
        }
    }
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
                json!({"attune": {"batch_size": 3},
                       "method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4}}}}),
                "attune.batch_size",
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
    fn the_settings_of_the_method_win_over_the_older_place() {
        let older = json!({"n_epochs": 3, "batch_size": 5});
        let with = |method: Value| {
            let request = json!({"hyperparameters": older, "method": method});
            let read = gathered(&request).unwrap();
            (read.n_epochs, read.batch_size)
        };
        let settings = json!({"n_epochs": "auto", "batch_size": 4});
        let method = json!({"type": "supervised", "supervised": {"hyperparameters": settings}});
        assert_eq!(with(method), (None, Some(4)));
        let method = json!({"type": "dpo", "dpo": {"hyperparameters": {}}});
        assert_eq!(with(method), (None, None));
        // A method without settings leaves them where they are.
        let method = json!({"type": "supervised"});
        assert_eq!(with(method), (Some(3), Some(5)));
        // What does not count is no excuse for what cannot be.
        let wrong = json!({"hyperparameters": {"n_epochs": 0}, "method": {"type": "supervised", "supervised": {"hyperparameters": {}}}});
        assert!(
            gathered(&wrong)
                .unwrap_err()
                .starts_with("hyperparameters.n_epochs: ")
        );
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
            (json!({"method": {"type": "reinforcement"}}), "method.type"),
            (
                json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}),
                "method.dpo.hyperparameters.beta",
            ),
            (
                json!({"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}}),
                "method.supervised.hyperparameters.beta",
            ),
            (
                json!({"method": {"type": "supervised"}, "attune": {"method": "orpo"}}),
                "attune.method",
            ),
            (
                json!({"method": {"type": "dpo"}, "attune": {"method": "kto"}}),
                "attune.method",
            ),
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
        let expected = Hyperparameters {
            method: Some(MethodKind::Supervised),
            ..Hyperparameters::default()
        };
        assert_eq!(gathered(&request), Ok(expected));
    }

    #[test]
    fn openais_dpo_is_read_and_may_be_made_precise() {
        let mut request = json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3, "n_epochs": 2}}}});
        let read = gathered(&request).unwrap();
        assert_eq!(
            (read.method, read.beta, read.n_epochs),
            (Some(MethodKind::Dpo), Some(0.3), Some(2))
        );
        request["attune"] = json!({"method": "ipo"});
        let read = gathered(&request).unwrap();
        assert_eq!((read.method, read.beta), (Some(MethodKind::Ipo), Some(0.3)));
        let ours = json!({"attune": {"method": "simpo", "gamma": 0.5}});
        assert_eq!(gathered(&ours).unwrap().method, Some(MethodKind::SimPo));
    }
}
