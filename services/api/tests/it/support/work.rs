//! What operators and workers do around the API, done straight through the store.

use std::collections::BTreeMap;
use std::time::Duration;

use artifacts::keys;
use domain::job::Outcome;
use domain::{BaseModelId, DeviceKind, FileId, FineTunedModelId, Job, WorkerKind};
use serde_json::{Value, json};
use store::base_models::{self, BaseModel, BaseModelFile};
use store::checkpoints::{self, CheckpointMetrics, NewCheckpoint};
use store::files::{self, File, FileStatus};
use store::metrics::{self, StepMetrics};
use store::queue::{self, Claimed};
use store::{Store, lease, models};

use super::{START, TestApp};

/// One that can take what tests make.
pub(crate) const ANY_WORKER: WorkerKind = WorkerKind {
    device: DeviceKind::Cpu,
    memory_bytes: 1 << 40,
};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What there is to say of the base model `wordy`.
pub(crate) struct Wordy<'a> {
    pub(crate) name: &'a str,
    pub(crate) n_params: u64,
    pub(crate) template: &'a str,
    pub(crate) generation_config: Value,
    pub(crate) context_length: u64,
}

impl Default for Wordy<'_> {
    fn default() -> Self {
        Self {
            name: "wordy",
            n_params: 1_000_000,
            template: CHATML,
            generation_config: json!({}),
            context_length: 512,
        }
    }
}

/// A base model that nobody could load.
fn base_model(name: &str) -> BaseModel {
    BaseModel {
        id: BaseModelId::new(),
        name: name.to_owned(),
        fingerprint: "00".repeat(32),
        architecture: "llama".to_owned(),
        n_params: 1_000_000,
        context_length: 512,
        d_model: 64,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        d_ff: 128,
        vocab_size: 256,
        size_bytes: 0,
        files: Vec::new(),
        created_at: START,
    }
}

/// Registers the base model.
pub(crate) async fn register_base(store: &Store, name: &str) {
    let mut tx = store.operator_tx().await.unwrap();
    base_models::register(&mut tx, &base_model(name))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// A tokenizer of one token for each character of ASCII, with the two of `ChatML`.
pub(crate) fn tokenizer() -> Value {
    let special = ["<|im_start|>", "<|im_end|>"];
    let characters = (b' '..=b'~').map(char::from).chain(['\n']);
    let tokens = special
        .map(str::to_owned)
        .into_iter()
        .chain(characters.map(String::from));
    let vocab: BTreeMap<String, usize> = tokens.zip(0..).collect();
    let added = special.map(|token| {
        json!({"id": vocab[token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    json!({"version": "1.0", "added_tokens": added, "decoder": {"type": "Fuse"},
           "model": {"type": "BPE", "vocab": vocab, "merges": []}})
}

impl TestApp {
    /// Registers the base model `wordy`, which has no weights but reads and writes.
    pub(crate) async fn register_wordy(&self) {
        self.register_wordy_with(Wordy::default()).await;
    }

    /// The same, but for what is said otherwise.
    pub(crate) async fn register_wordy_with(&self, wordy: Wordy<'_>) {
        let Wordy {
            name,
            n_params,
            template,
            generation_config,
            context_length,
        } = wordy;
        let mut base = BaseModel {
            n_params,
            context_length,
            ..base_model(name)
        };
        for (name, document) in [
            ("tokenizer.json", tokenizer()),
            (
                "tokenizer_config.json",
                json!({"eos_token": "<|im_end|>", "chat_template": template}),
            ),
            ("config.json", json!({"tie_word_embeddings": true})),
            ("generation_config.json", generation_config),
        ] {
            let bytes = document.to_string();
            let key = keys::base(base.id, name);
            let stored = self
                .objects
                .put_bytes(&key, bytes.as_bytes())
                .await
                .unwrap();
            base.files.push(BaseModelFile {
                name: name.to_owned(),
                size_bytes: stored.size_bytes,
                sha256: stored.sha256,
            });
        }
        let mut tx = self.database.store().operator_tx().await.unwrap();
        base_models::register(&mut tx, &base).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Claims the job that waits longest.
    pub(crate) async fn claim(&self, worker: &Store) -> Claimed {
        let mut tx = worker.worker_tx().await.unwrap();
        let claimed = queue::claim(&mut tx, "test", ANY_WORKER, Duration::from_mins(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        claimed.expect("a job waits")
    }

    /// Does a worker's whole part of the job that waits longest: a checkpoint at step 1, then success.
    pub(crate) async fn finish_next_job(&self) -> Job {
        let worker = self.worker_store().await;
        let claimed = self.claim(&worker).await;
        let lease = claimed.lease.clone();
        let mut tx = worker.tenant_tx(lease.project_id).await.unwrap();
        let objects = self.buckets.of(&mut tx).await.unwrap();
        drop(tx);
        let put = async |key: String| objects.put_bytes(&key, b"data").await.unwrap();
        let attempt = u32::try_from(lease.attempt).unwrap();
        let prefix = keys::checkpoint(lease.project_id, lease.job_id, attempt, 1);
        put(format!("{prefix}adapter_model.safetensors")).await;
        let model_id = FineTunedModelId::new();
        let adapter = keys::adapter(lease.project_id, model_id);
        put(format!("{adapter}adapter_model.safetensors")).await;
        let result_file = FileId::new();
        put(keys::file(lease.project_id, result_file)).await;

        let mut tx = worker.tenant_tx(lease.project_id).await.unwrap();
        let job = claimed.job.start().unwrap();
        lease::save(&mut tx, &lease, &job).await.unwrap();
        metrics::record(&mut tx, &lease, &[step()]).await.unwrap();
        checkpoints::create(&mut tx, &lease, &checkpoint(prefix))
            .await
            .unwrap();
        files::create(&mut tx, &results(&job, result_file))
            .await
            .unwrap();
        models::publish(&mut tx, &lease, model_id, &adapter, 4, START)
            .await
            .unwrap();
        let job = job
            .succeed(
                &Outcome {
                    trained_tokens: 12,
                    result_file,
                },
                START,
            )
            .unwrap();
        lease::save(&mut tx, &lease, &job).await.unwrap();
        tx.commit().await.unwrap();
        job
    }

    /// An object of four bytes.
    pub(crate) async fn put(&self, key: &str) {
        self.objects.put_bytes(key, b"data").await.unwrap();
    }
}

/// 1,000 tokens in half a second.
fn step() -> StepMetrics {
    StepMetrics {
        step: 1,
        train_loss: 1.5,
        train_accuracy: 0.5,
        valid_loss: None,
        valid_accuracy: None,
        learning_rate: 1e-4,
        grad_norm: 1.0,
        n_tokens: 1_000,
        n_loss_tokens: 500,
        step_ms: 500.0,
    }
}

fn checkpoint(object_prefix: String) -> NewCheckpoint {
    let metrics = CheckpointMetrics {
        step: 1,
        train_loss: 1.5,
        train_mean_token_accuracy: 0.5,
        valid_loss: None,
        valid_mean_token_accuracy: None,
        full_valid_loss: None,
        full_valid_mean_token_accuracy: None,
    };
    NewCheckpoint {
        step: 1,
        object_prefix,
        metrics,
        manifest: BTreeMap::new(),
        size_bytes: 4,
        created_at: START,
    }
}

fn results(job: &Job, id: FileId) -> File {
    File {
        id,
        project_id: job.project_id,
        filename: "step_metrics.csv".to_owned(),
        purpose: "fine-tune-results".to_owned(),
        size_bytes: 4,
        sha256: "00".repeat(32),
        n_lines: None,
        status: FileStatus::Processed,
        status_details: None,
        created_at: START,
        expires_at: None,
    }
}
