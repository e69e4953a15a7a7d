//! What the tests find: made with the same functions that the API and the worker use.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use artifacts::{ObjectStore, keys};
use domain::job::Outcome;
use domain::{
    BaseModelId, DeviceKind, FileId, FineTunedModelId, Job, JobId, JobStatus, OrgId, ProjectId,
    TrainingConfig, WorkerKind,
};
use lm::{Adapter, BaseFiles, Device, LoraConfig, Precision, Target};
use store::base_models::{BaseModel, BaseModelFile};
use store::checkpoints::{CheckpointMetrics, NewCheckpoint};
use store::jobs::JobRequest;
use store::organizations::Organization;
use store::projects::Project;
use store::{Store, base_models, checkpoints, jobs, lease, models, organizations, projects, queue};
use time::OffsetDateTime;

use super::BASE;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
/// The step of the model's only checkpoint.
const CHECKPOINT_STEP: u64 = 4;

pub(super) struct Seeded {
    pub(super) owner: ProjectId,
    pub(super) stranger: ProjectId,
    pub(super) tuned: String,
}

pub(super) async fn run(store: &Store, objects: &ObjectStore, dir: &Path) -> Seeded {
    let (org_id, owner) = tenant(store, "acme").await;
    let (_, stranger) = tenant(store, "other").await;
    base_model(store, objects, &dir.join("base")).await;
    let tuned = tuned_model(store, objects, &dir.join("adapter"), org_id, owner).await;
    Seeded {
        owner,
        stranger,
        tuned,
    }
}

async fn tenant(store: &Store, slug: &str) -> (OrgId, ProjectId) {
    let (name, slug) = (slug.to_owned(), slug.to_owned());
    let organization = Organization {
        id: OrgId::new(),
        name: name.clone(),
        slug: slug.clone(),
        created_at: NOW,
    };
    let org_id = organization.id;
    let project = Project {
        id: ProjectId::new(),
        org_id,
        name,
        slug,
        created_at: NOW,
    };
    let mut tx = store.operator_tx().await.unwrap();
    organizations::create(&mut tx, &organization).await.unwrap();
    projects::create(&mut tx, &project).await.unwrap();
    tx.commit().await.unwrap();
    (org_id, project.id)
}

async fn base_model(store: &Store, objects: &ObjectStore, dir: &Path) {
    lm::testing::write_tiny_base(dir, 1);
    let id = BaseModelId::new();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let stored = objects
            .put_file(&keys::base(id, &name), &path)
            .await
            .unwrap();
        files.push(BaseModelFile {
            name,
            size_bytes: stored.size_bytes,
            sha256: stored.sha256,
        });
    }
    let model = BaseModel {
        id,
        name: BASE.to_owned(),
        fingerprint: "f1e2d3c4b5a69788".repeat(4),
        architecture: "llama".to_owned(),
        n_params: 1,
        context_length: 512,
        d_model: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_ff: 64,
        vocab_size: 300,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        files,
        created_at: NOW,
    };
    let mut tx = store.operator_tx().await.unwrap();
    base_models::register(&mut tx, &model).await.unwrap();
    tx.commit().await.unwrap();
}

/// A job from its making to its model, with one checkpoint on the way.
async fn tuned_model(
    store: &Store,
    objects: &ObjectStore,
    dir: &Path,
    org_id: OrgId,
    project_id: ProjectId,
) -> String {
    let job = job(org_id, project_id);
    let nothing = serde_json::Value::Null;
    let request = JobRequest {
        hyperparameters: nothing.clone(),
        method: nothing.clone(),
        integrations: nothing,
    };
    let mut tx = store.tenant_tx(project_id).await.unwrap();
    jobs::create(&mut tx, &job, &request).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.worker_tx().await.unwrap();
    let worker = WorkerKind {
        device: DeviceKind::Cpu,
        memory_bytes: 1 << 40,
    };
    let claimed = queue::claim(&mut tx, "test", worker, Duration::from_mins(1))
        .await
        .unwrap()
        .unwrap();
    tx.commit().await.unwrap();

    write_adapter(&dir.with_file_name("base"), dir);
    let checkpoint_prefix = keys::checkpoint(project_id, job.id, 1, CHECKPOINT_STEP);
    let model_id = FineTunedModelId::new();
    let adapter_prefix = keys::adapter(project_id, model_id);
    for prefix in [&checkpoint_prefix, &adapter_prefix] {
        upload(objects, dir, prefix).await;
    }
    let mut tx = store.tenant_tx(project_id).await.unwrap();
    let lease = &claimed.lease;
    let job = claimed.job.start().unwrap();
    lease::save(&mut tx, lease, &job).await.unwrap();
    checkpoints::create(&mut tx, lease, &checkpoint(checkpoint_prefix))
        .await
        .unwrap();
    let model = models::publish(&mut tx, lease, model_id, &adapter_prefix, 0, NOW)
        .await
        .unwrap();
    let outcome = Outcome {
        trained_tokens: 1,
        result_file: FileId::new(),
    };
    lease::save(&mut tx, lease, &job.succeed(&outcome, NOW).unwrap())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    model.name
}

fn job(org_id: OrgId, project_id: ProjectId) -> Job {
    Job {
        id: JobId::new(),
        project_id,
        org_id,
        status: JobStatus::ValidatingFiles,
        model: BASE.to_owned(),
        base_model: BASE.to_owned(),
        training_file: FileId::new(),
        validation_file: None,
        suffix: None,
        config: TrainingConfig::default(),
        metadata: None,
        model_name: format!("ft:{BASE}:acme::a1b2c3d4"),
        trained_tokens: None,
        result_file: None,
        error: None,
        attempt: 0,
        created_at: NOW,
        finished_at: None,
        estimated_finish: None,
        data: None,
    }
}

fn checkpoint(object_prefix: String) -> NewCheckpoint {
    let metrics = CheckpointMetrics {
        step: CHECKPOINT_STEP,
        train_loss: 1.0,
        train_mean_token_accuracy: 0.5,
        valid_loss: None,
        valid_mean_token_accuracy: None,
        full_valid_loss: None,
        full_valid_mean_token_accuracy: None,
    };
    let manifest = BTreeMap::new();
    NewCheckpoint {
        step: CHECKPOINT_STEP,
        object_prefix,
        metrics,
        manifest,
        size_bytes: 0,
        created_at: NOW,
    }
}

/// An adapter that changes every answer.
fn write_adapter(base: &Path, dir: &Path) {
    let config = LoraConfig {
        rank: 2,
        alpha: 4.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: Target::ALL.to_vec(),
    };
    let base = BaseFiles::open(base).unwrap();
    let model = base.load(&Device::cpu(), Precision::F32).unwrap();
    let adapter = Adapter::init(&config, &model, 3);
    let moved = adapter.map(|name, tensor| {
        if name.contains("lora_B") {
            tensor.add_scalar(0.5)
        } else {
            tensor
        }
    });
    moved.save(dir, BASE).unwrap();
}

async fn upload(objects: &ObjectStore, dir: &Path, prefix: &str) {
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        objects
            .put_file(&format!("{prefix}{name}"), &dir.join(name))
            .await
            .unwrap();
    }
}
