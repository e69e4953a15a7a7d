//! LoRA: against the composed matrix, its gradients, and its files.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use lm::{Adapter, CausalLm, Device, Dropout, LoadError, LoraConfig, Ragged, Target, WeightSource};
use serde_json::{Value, json};

use crate::forward::values;
use crate::tiny::{self, RandomWeights, families, largest_difference, lora, random};

/// An adapter whose B is not zero.
pub(crate) fn random_adapter(model: &CausalLm) -> Adapter {
    Adapter::init(&lora(), model, 1).map(|name, tensor| {
        let [rows, columns] = tensor.dims();
        let values = random(name, rows * columns)
            .iter()
            .map(|value| value * 0.3)
            .collect();
        Tensor::from_data(
            TensorData::new::<f32, _>(values, [rows, columns]),
            &tensor.device(),
        )
    })
}

pub(crate) fn batch() -> Ragged {
    Ragged::from_rows([&[1, 2, 3, 4][..], &[5, 6, 7]])
}

pub(crate) fn hidden(model: &CausalLm, adapter: Option<&Adapter>) -> Vec<f32> {
    values(model.hidden(&batch(), adapter, None))
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let model = tiny::model(json!({}));
    let adapter = Adapter::init(&lora(), &model, 42);
    assert_eq!(hidden(&model, Some(&adapter)), hidden(&model, None));
}

#[test]
fn seeds_differ_and_repeat() {
    let model = tiny::model(json!({}));
    let first_a = |seed| {
        let adapter = Adapter::init(&lora(), &model, seed);
        values(adapter.named_tensors().next().unwrap().1.clone())
    };
    assert_eq!(first_a(1), first_a(1));
    assert_ne!(first_a(1), first_a(2));
}

/// The same model with `W + scale · B·A` in place of each adapted W.
fn composed(model: &CausalLm, adapter: &Adapter) -> CausalLm {
    let tensors: HashMap<_, _> = adapter.named_tensors().collect();
    let mut replaced = HashMap::new();
    for (name, a) in tensors.iter().filter(|(name, _)| name.contains("lora_A")) {
        let b = tensors[&name.replace("lora_A", "lora_B")].clone();
        let delta = (*a)
            .clone()
            .matmul(b)
            .mul_scalar(adapter.config().scale())
            .transpose();
        let [n_out, n_in] = delta.dims();
        let name = name
            .trim_start_matches("base_model.model.")
            .replace(".lora_A", "");
        let weight = RandomWeights::default()
            .tensor(&name, &[n_out, n_in])
            .unwrap();
        let sum = weight
            .iter()
            .zip(values(delta))
            .map(|(w, delta)| w + delta)
            .collect();
        replaced.insert(name, sum);
    }
    assert_eq!(replaced.len(), model.config().n_layers * Target::ALL.len());
    tiny::build(model.config(), RandomWeights { replaced })
}

#[test]
fn the_factored_form_equals_the_composed_matrix() {
    for changes in families() {
        let model = tiny::model(changes);
        let adapter = random_adapter(&model);
        let expected = hidden(&composed(&model, &adapter), None);
        let found = hidden(&model, Some(&adapter));
        assert!(largest_difference(&found, &expected) < 2e-5);
        assert!(largest_difference(&found, &hidden(&model, None)) > 1e-2);
    }
}

#[test]
fn gradients_reach_the_adapter_and_nothing_else() {
    let model = tiny::model(json!({})).autodiff();
    assert!(
        !model.hidden(&batch(), None, None).is_tracked(),
        "a base tensor is tracked"
    );
    let adapter = random_adapter(&model).require_grad();
    let gradients = model
        .hidden(&batch(), Some(&adapter), None)
        .square()
        .sum()
        .backward();
    for (name, tensor) in adapter.named_tensors() {
        let gradient = values(tensor.grad(&gradients).unwrap());
        assert!(gradient.iter().any(|value| *value != 0.0), "{name}");
    }
}

/// A loss that is not symmetric in the hidden values.
fn loss(model: &CausalLm, adapter: &Adapter, dropout: Option<&Dropout>) -> Tensor<1> {
    let hidden = model.hidden(&batch(), Some(adapter), dropout);
    let [rows, columns] = hidden.dims();
    let weights = TensorData::new(random("weights", rows * columns), [rows, columns]);
    (hidden.clone() * Tensor::from_data(weights, &hidden.device())).sum()
}

/// `adapter` with one element of tensor `name` moved by `by`.
fn nudged(adapter: &Adapter, name: &str, element: usize, by: f32) -> Adapter {
    adapter.clone().map(|found, tensor| {
        if found != name {
            return tensor;
        }
        let (shape, device) = (tensor.dims(), tensor.device());
        let mut moved = values(tensor);
        moved[element] += by;
        Tensor::from_data(TensorData::new(moved, shape), &device)
    })
}

#[test]
fn gradients_equal_finite_differences() {
    let step = 2e-3;
    let dropout = Dropout { rate: 0.2, key: 3 };
    for changes in families() {
        let model = tiny::model(changes);
        let adapter = random_adapter(&model);
        let tracked = adapter.clone().require_grad();
        let gradients = loss(&model.autodiff(), &tracked, Some(&dropout)).backward();
        let at = |adapter: &Adapter| values(loss(&model, adapter, Some(&dropout)))[0];
        for (index, (name, tensor)) in tracked.named_tensors().enumerate() {
            let gradient = values(tensor.grad(&gradients).unwrap());
            let element = index * 5 % gradient.len();
            let up = at(&nudged(&adapter, &name, element, step));
            let down = at(&nudged(&adapter, &name, element, -step));
            let expected = (up - down) / (2.0 * step);
            let found = gradient[element];
            assert!(
                (found - expected).abs() < 0.02 * (1.0 + found.abs()),
                "{name}: {found} {expected}"
            );
        }
    }
}

#[test]
fn dropout_is_a_function_of_its_key() {
    let model = tiny::model(json!({}));
    let adapter = random_adapter(&model);
    let with = |rate, key| values(loss(&model, &adapter, Some(&Dropout { rate, key })));
    assert_eq!(with(0.5, 1), with(0.5, 1));
    assert_ne!(with(0.5, 1), with(0.5, 2));
    assert_eq!(with(0.0, 1), values(loss(&model, &adapter, None)));
}

pub(crate) fn saved(adapter: &Adapter) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    adapter.save(dir.path(), "some/base").unwrap();
    dir
}

#[test]
fn a_saved_adapter_loads_bit_equal() {
    let model = tiny::model(json!({}));
    let config = LoraConfig {
        target_modules: vec![Target::V, Target::Q],
        dropout: 0.1,
        ..lora()
    };
    for adapter in [random_adapter(&model), Adapter::init(&config, &model, 9)] {
        let dir = saved(&adapter);
        let loaded = Adapter::load(dir.path(), model.config(), &Device::cpu()).unwrap();
        assert_eq!(loaded.config().rank, adapter.config().rank);
        let bits = |adapter: &Adapter| {
            let tensors = adapter.named_tensors();
            tensors
                .map(|(name, tensor)| (name, values(tensor.clone())))
                .collect::<Vec<_>>()
        };
        assert_eq!(bits(&loaded), bits(&adapter));
        let left: BTreeSet<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        let files = ["adapter_config.json", "adapter_model.safetensors"].map(Into::into);
        assert_eq!(left, BTreeSet::from(files));
    }
}

#[test]
fn files_have_the_names_and_shapes_that_peft_expects() {
    let model = tiny::model(json!({}));
    let dir = saved(&random_adapter(&model));
    let bytes = fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
    let prefix = "base_model.model.model.layers.1";
    assert_eq!(
        shape(&format!("{prefix}.self_attn.k_proj.lora_A.weight")),
        [3, 24]
    );
    assert_eq!(
        shape(&format!("{prefix}.self_attn.k_proj.lora_B.weight")),
        [16, 3]
    );
    assert_eq!(
        shape(&format!("{prefix}.mlp.down_proj.lora_A.weight")),
        [3, 40]
    );
    let config = read_config(dir.path());
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["use_rslora"], false);
    assert_eq!(config["target_modules"][6], "down_proj");
    assert_eq!(config["base_model_name_or_path"], "some/base");
}

fn read_config(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn settings_that_are_not_supported_are_refused_by_name() {
    let model = tiny::model(json!({}));
    let dir = saved(&random_adapter(&model));
    let original = read_config(dir.path());
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("bias", json!("all")),
        ("rank_pattern", json!({"q_proj": 4})),
        ("modules_to_save", json!(["lm_head"])),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!(".*")),
        ("r", json!(0)),
        ("lora_alpha", json!(-1.0)),
        ("lora_dropout", json!(1.0)),
    ] {
        let mut changed = original.clone();
        changed[key] = value;
        fs::write(dir.path().join("adapter_config.json"), changed.to_string()).unwrap();
        let error = Adapter::load(dir.path(), model.config(), &Device::cpu()).unwrap_err();
        let word = if key == "r" {
            "rank"
        } else {
            key.trim_start_matches("lora_")
        };
        assert!(error.to_string().contains(word), "{key}: {error}");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let model = tiny::model(json!({}));
    let dir = saved(&random_adapter(&model));
    let load = |changes| Adapter::load(dir.path(), &tiny::config(changes), &Device::cpu());
    let wider = load(json!({"intermediate_size": 48})).unwrap_err();
    assert!(matches!(wider, LoadError::WrongShape { .. }), "{wider}");
    let deeper = load(json!({"num_hidden_layers": 3})).unwrap_err();
    assert!(matches!(deeper, LoadError::MissingTensor(_)), "{deeper}");
    let shallower = load(json!({"num_hidden_layers": 1})).unwrap_err();
    assert!(
        matches!(shallower, LoadError::UnexpectedTensor(_)),
        "{shallower}"
    );
}

#[test]
fn files_that_lie_or_are_absent_are_refused() {
    let model = tiny::model(json!({}));
    let dir = saved(&random_adapter(&model));
    let path = dir.path().join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let load = || Adapter::load(dir.path(), model.config(), &Device::cpu()).unwrap_err();

    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    fs::write(&path, huge).unwrap();
    assert!(matches!(load(), LoadError::HeaderTooLarge { .. }));

    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(matches!(load(), LoadError::Corrupt { .. }));

    let mut infinite = bytes.clone();
    let end = infinite.len();
    infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, infinite).unwrap();
    assert!(matches!(load(), LoadError::NonFinite(_)));

    fs::remove_file(&path).unwrap();
    assert!(matches!(load(), LoadError::MissingFile(_)));
}
