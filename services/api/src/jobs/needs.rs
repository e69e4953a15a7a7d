//! What a new job needs of a worker, from what is known before its rows are read.

use domain::cost::ModelShape;
use domain::{Needs, TrainingConfig};
use store::base_models::BaseModel;

/// What a run takes at least. What the catalogue does not say is taken as what needs less: heads as wide as they usually
/// are, and no head beside the embeddings.
pub(super) fn needs(base: &BaseModel, config: &TrainingConfig) -> Needs {
    let head_width = base.d_model / base.n_heads.max(1);
    let n_layers = usize::try_from(base.n_layers).unwrap_or_default();
    let shape = ModelShape {
        vocabulary: base.vocab_size,
        width: base.d_model,
        mlp_width: base.d_ff,
        query_width: base.d_model,
        key_width: base.n_kv_heads * head_width,
        tied_head: true,
        windows: vec![None; n_layers.min(MAX_LAYERS)],
    };
    Needs::of(&shape, config)
}

/// More than any model has: a catalogue that says otherwise is wrong, and must not cost memory here.
const MAX_LAYERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_needs_its_weights_and_more_with_more_precision() {
        let base = BaseModel {
            id: domain::BaseModelId::new(),
            name: "tiny".to_owned(),
            fingerprint: String::new(),
            architecture: "llama".to_owned(),
            n_params: 135_000_000,
            context_length: 2048,
            d_model: 576,
            n_layers: 30,
            n_heads: 9,
            n_kv_heads: 3,
            d_ff: 1536,
            vocab_size: 49_152,
            size_bytes: 0,
            files: vec![],
            created_at: time::OffsetDateTime::UNIX_EPOCH,
        };
        let full = TrainingConfig::default();
        let half = TrainingConfig {
            precision: domain::config::Precision::Bf16,
            ..full.clone()
        };
        let [full, half] = [full, half].map(|config| needs(&base, &config).memory_bytes);
        assert!((4 * 134_000_000..900_000_000).contains(&full), "{full}");
        assert!(half < full);
    }
}
