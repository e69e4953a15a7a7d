//! Writes GGUF files, sound or not, for tests.

use crate::gguf::names;
use crate::gguf::rows::interleaved;
use crate::gguf::write::{self, ALIGNMENT, MetadataValue, TensorEntry};

/// A tensor's description, its offset `None` when it follows the tensor before, and its bytes.
#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    type_code: u32,
    offset: Option<u64>,
    data: Vec<u8>,
}

/// Collects metadata and tensors, then lays them out as a GGUF file of version 3.
#[derive(Debug, Clone)]
pub struct GgufWriter {
    architecture: String,
    metadata: Vec<(String, MetadataValue)>,
    tensors: Vec<Tensor>,
}

impl GgufWriter {
    /// A file with nothing but `general.architecture`.
    pub fn new(architecture: &str) -> Self {
        let value = MetadataValue::string(architecture);
        Self {
            architecture: architecture.to_owned(),
            metadata: vec![("general.architecture".to_owned(), value)],
            tensors: Vec::new(),
        }
    }

    /// Sets `key`, in the place where it was if it was there.
    pub fn set(&mut self, key: &str, value: MetadataValue) {
        match self.metadata.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.push(key, value),
        }
    }

    /// Appends `key`, also when it is there already.
    pub fn push(&mut self, key: &str, value: MetadataValue) {
        self.metadata.push((key.to_owned(), value));
    }

    /// Sets `{architecture}.{key}`.
    pub fn architecture_u32(&mut self, key: &str, value: u32) {
        self.set(
            &format!("{}.{key}", self.architecture),
            MetadataValue::U32(value),
        );
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(name, _)| name != key);
    }

    /// Appends a tensor of raw bytes; `dimensions` in GGUF order, the row length first.
    pub fn tensor(
        &mut self,
        name: &str,
        dimensions: &[u64],
        type_code: u32,
        offset: Option<u64>,
        data: Vec<u8>,
    ) {
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        self.tensors.push(Tensor {
            name,
            dimensions,
            type_code,
            offset,
            data,
        });
    }

    /// Appends an f32 tensor known by its Hugging Face name, with q and k rows put in GGUF's order.
    ///
    /// # Panics
    /// When the name is not one of a Llama model.
    pub fn hugging_face_tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
        n_heads: usize,
        n_kv_heads: usize,
    ) {
        let permuted = match name {
            _ if name.contains(".q_proj.") => interleaved(values, shape[0], n_heads),
            _ if name.contains(".k_proj.") => interleaved(values, shape[0], n_kv_heads),
            _ => values.to_vec(),
        };
        let data = permuted
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let dimensions: Vec<u64> = shape.iter().rev().map(|&n| n as u64).collect();
        let name = names::gguf(name).expect("a Llama model's tensor");
        self.tensor(&name, &dimensions, 0, None, data);
    }

    /// Stores a tensor, f32 so far and known by its Hugging Face name, as `encode` writes its values, in type `type_code`.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn encode(&mut self, name: &str, type_code: u32, encode: impl Fn(&[f32]) -> Vec<u8>) {
        let name = names::gguf(name).expect("a Llama model's tensor");
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        let tensor = tensor.unwrap_or_else(|| panic!("no tensor {name}"));
        let (values, _) = tensor.data.as_chunks();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensor.type_code = type_code;
        tensor.data = encode(&values);
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
            entries.push(TensorEntry {
                name: tensor.name.clone(),
                dimensions: tensor.dimensions.clone(),
                type_code: tensor.type_code,
                offset: tensor.offset.unwrap_or(data.len() as u64),
            });
            data.extend_from_slice(&tensor.data);
        }
        let mut file = write::header(&self.metadata, &entries);
        file.extend_from_slice(&data);
        file
    }
}
