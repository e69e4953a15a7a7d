//! GGUF's tensor names in Hugging Face's words, and back.

/// Modules of a block: GGUF's name, then Hugging Face's.
const MODULES: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];
/// Tensors outside the blocks, in the same order.
const WHOLE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
/// Llama 3's rotary frequencies.
pub(crate) const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// What a GGUF tensor is in a Hugging Face model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HuggingFaceName {
    /// A tensor of that name.
    Tensor(String),
    /// No tensor: Llama 3's rotary frequencies, which Hugging Face has as numbers in
    /// `config.json`.
    RopeDivisors,
}

/// `None` for a tensor that no supported model has. To ignore it would be to compute something
/// else than the model does.
pub(super) fn hugging_face(name: &str) -> Option<HuggingFaceName> {
    if name == ROPE_DIVISORS {
        return Some(HuggingFaceName::RopeDivisors);
    }
    let whole = WHOLE.iter().find(|(gguf, _)| *gguf == name);
    let tensor = match whole {
        Some((_, theirs)) => Some((*theirs).to_owned()),
        None => in_block(name),
    };
    tensor.map(HuggingFaceName::Tensor)
}

/// The GGUF name of the tensor that Hugging Face calls `name`; `None` when GGUF has none for it.
pub(crate) fn gguf(name: &str) -> Option<String> {
    if let Some((ours, _)) = WHOLE.iter().find(|(_, theirs)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (module, _) = MODULES.iter().find(|(_, theirs)| *theirs == module)?;
    let ours = format!("blk.{layer}.{module}.{kind}");
    // Only what reads back as the same tensor.
    (hugging_face(&ours)? == HuggingFaceName::Tensor(name.to_owned())).then_some(ours)
}

fn in_block(name: &str) -> Option<String> {
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // Written back as a number, so that `blk.01` cannot stand for `blk.1`.
    let layer: u32 = block.parse().ok()?;
    if layer.to_string() != block {
        return None;
    }
    let (module, kind) = rest.rsplit_once('.')?;
    let (_, module) = MODULES.iter().find(|(ours, _)| *ours == module)?;
    matches!(kind, "weight" | "bias").then(|| format!("model.layers.{layer}.{module}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_translated() {
        let tensor = |name: &str| Some(HuggingFaceName::Tensor(name.to_owned()));
        assert_eq!(hugging_face("output.weight"), tensor("lm_head.weight"));
        assert_eq!(
            hugging_face("blk.12.attn_q.bias"),
            tensor("model.layers.12.self_attn.q_proj.bias")
        );
        assert_eq!(
            hugging_face("blk.0.attn_k_norm.weight"),
            tensor("model.layers.0.self_attn.k_norm.weight")
        );
        assert_eq!(
            hugging_face("rope_freqs.weight"),
            Some(HuggingFaceName::RopeDivisors)
        );
    }

    #[test]
    fn every_name_goes_there_and_back() {
        for name in [
            "lm_head.weight",
            "model.embed_tokens.weight",
            "model.layers.31.self_attn.q_norm.weight",
            "model.layers.0.mlp.down_proj.bias",
        ] {
            let ours = gguf(name).unwrap();
            let back = HuggingFaceName::Tensor(name.to_owned());
            assert_eq!(hugging_face(&ours), Some(back), "{ours}");
        }
        for name in [
            "model.layers.01.mlp.up_proj.weight",
            "model.layers.0.x.weight",
        ] {
            assert_eq!(gguf(name), None, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_not() {
        for name in [
            "blk.0.ffn_gate_inp.weight",
            "blk.01.attn_q.weight",
            "blk.x.attn_q.weight",
            "blk.0.attn_q.scale",
            "blk.0",
            "v.blk.0.attn_q.weight",
            "blk.+1.attn_q.weight",
        ] {
            assert_eq!(hugging_face(name), None, "{name}");
        }
    }
}
