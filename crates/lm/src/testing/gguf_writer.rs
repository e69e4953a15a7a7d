//! Writes GGUF files, sound or not, for tests.

/// A metadata value that [`GgufWriter`] can write.
#[derive(Debug, Clone)]
pub enum MetadataValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    /// A type code and the bytes that follow it, for what no honest writer would write.
    Raw(u32, Vec<u8>),
}

impl MetadataValue {
    /// A string value.
    pub fn string(value: &str) -> Self {
        Self::String(value.to_owned())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(value) => tagged(out, 4, &value.to_le_bytes()),
            Self::F32(value) => tagged(out, 6, &value.to_le_bytes()),
            Self::Bool(value) => tagged(out, 7, &[u8::from(*value)]),
            Self::String(value) => {
                tagged(out, 8, &[]);
                write_string(out, value);
            }
            Self::Strings(values) => {
                array_head(out, 8, values.len());
                for value in values {
                    write_string(out, value);
                }
            }
            Self::I32s(values) => {
                array_head(out, 5, values.len());
                for value in values {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
            Self::Raw(code, bytes) => tagged(out, *code, bytes),
        }
    }
}

/// A tensor as the file describes it.
#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    /// GGUF order: the row length first.
    dimensions: Vec<u64>,
    type_code: u32,
    /// `None`: right behind the tensor before, aligned.
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

const ALIGNMENT: usize = 32;

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
            _ if name.contains(".q_proj.") => permute(values, shape, n_heads),
            _ if name.contains(".k_proj.") => permute(values, shape, n_kv_heads),
            _ => values.to_vec(),
        };
        let data = permuted
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let dimensions: Vec<u64> = shape.iter().rev().map(|&n| n as u64).collect();
        self.tensor(&gguf_name(name), &dimensions, 0, None, data);
    }

    /// Stores a tensor, f32 so far and known by its Hugging Face name, as `encode` writes its values, in type `type_code`.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn encode(&mut self, name: &str, type_code: u32, encode: impl Fn(&[f32]) -> Vec<u8>) {
        let name = gguf_name(name);
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        let tensor = tensor.unwrap_or_else(|| panic!("no tensor {name}"));
        let (values, _) = tensor.data.as_chunks();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensor.type_code = type_code;
        tensor.data = encode(&values);
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            value.write(&mut out);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            pad(&mut data);
            write_tensor_info(&mut out, tensor, data.len() as u64);
            data.extend_from_slice(&tensor.data);
        }
        pad(&mut out);
        out.extend_from_slice(&data);
        out
    }
}

fn write_tensor_info(out: &mut Vec<u8>, tensor: &Tensor, offset: u64) {
    write_string(out, &tensor.name);
    out.extend_from_slice(
        &u32::try_from(tensor.dimensions.len())
            .expect("few")
            .to_le_bytes(),
    );
    for dimension in &tensor.dimensions {
        out.extend_from_slice(&dimension.to_le_bytes());
    }
    out.extend_from_slice(&tensor.type_code.to_le_bytes());
    out.extend_from_slice(&tensor.offset.unwrap_or(offset).to_le_bytes());
}

fn tagged(out: &mut Vec<u8>, code: u32, bytes: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn array_head(out: &mut Vec<u8>, element_code: u32, len: usize) {
    tagged(out, 9, &element_code.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

fn write_string(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// Hugging Face keeps the two halves of a head apart; GGUF's Llama interleaves them, row by row.
fn permute(values: &[f32], shape: &[usize], n_heads: usize) -> Vec<f32> {
    let row = shape.get(1).copied().unwrap_or(1);
    let half = shape[0] / n_heads / 2;
    let mut permuted = Vec::with_capacity(values.len());
    for head in values.chunks_exact(2 * half * row) {
        for index in 0..half {
            for part in [index, half + index] {
                permuted.extend_from_slice(&head[part * row..(part + 1) * row]);
            }
        }
    }
    permuted
}

fn gguf_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
        "model.norm.weight" => return "output_norm.weight".to_owned(),
        "lm_head.weight" => return "output.weight".to_owned(),
        _ => {}
    }
    let rest = name
        .strip_prefix("model.layers.")
        .expect("a layer's tensor");
    let (layer, rest) = rest.split_once('.').expect("a number, then a name");
    let (module, kind) = rest
        .rsplit_once('.')
        .expect("a module, then weight or bias");
    let module = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => panic!("no GGUF name for {other}"),
    };
    format!("blk.{layer}.{module}.{kind}")
}
