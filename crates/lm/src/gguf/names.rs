//! GGUF's tensor names in Hugging Face's words.

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
    let whole = match name {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        "rope_freqs.weight" => return Some(HuggingFaceName::RopeDivisors),
        _ => return in_block(name).map(HuggingFaceName::Tensor),
    };
    Some(HuggingFaceName::Tensor(whole.to_owned()))
}

fn in_block(name: &str) -> Option<String> {
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // Written back as a number, so that `blk.01` cannot stand for `blk.1`.
    let layer: u32 = block.parse().ok()?;
    if layer.to_string() != block {
        return None;
    }
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
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
