SET LOCAL ROLE attune_owner;

CREATE TABLE jobs (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    org_id uuid NOT NULL,
    status text NOT NULL CHECK (
        status IN ('validating_files', 'queued', 'running', 'succeeded', 'failed', 'cancelled')
    ),
    model text NOT NULL,
    base_model text NOT NULL REFERENCES base_models (name),
    training_file uuid NOT NULL,
    validation_file uuid,
    suffix text,
    config jsonb NOT NULL,
    data jsonb,
    hyperparameters jsonb NOT NULL,
    method jsonb NOT NULL,
    integrations jsonb NOT NULL,
    metadata jsonb,
    model_name text NOT NULL UNIQUE,
    trained_tokens bigint CHECK (trained_tokens >= 0),
    result_file uuid,
    error jsonb,
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    worker text,
    lease_token uuid,
    lease_expires_at timestamptz,
    estimated_finish timestamptz,
    finished_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    CONSTRAINT a_lease_has_an_end CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT only_a_leased_job_runs CHECK (status <> 'running' OR lease_token IS NOT NULL),
    CONSTRAINT a_final_job_has_no_lease CHECK (
        status NOT IN ('succeeded', 'failed', 'cancelled') OR lease_token IS NULL
    ),
    CONSTRAINT a_failed_job_says_why CHECK ((status = 'failed') = (error IS NOT NULL))
);
CREATE INDEX jobs_listing ON jobs (project_id, created_at DESC, id DESC);
CREATE INDEX jobs_claimable ON jobs (created_at, id)
    WHERE lease_token IS NULL AND status IN ('validating_files', 'queued');
CREATE INDEX jobs_leased ON jobs (lease_expires_at) INCLUDE (project_id) WHERE lease_token IS NOT NULL;
COMMENT ON TABLE jobs IS 'Fine-tuning jobs, and the queue they wait in.';
COMMENT ON COLUMN jobs.model IS 'As the client named it: a base model, or a fine-tuned one to go on from.';
COMMENT ON COLUMN jobs.training_file IS 'No foreign key: a job outlives its file. A worker that finds it gone fails the job by name.';
COMMENT ON COLUMN jobs.config IS 'Every setting, resolved when the job was made: what is trained.';
COMMENT ON COLUMN jobs.data IS 'What a worker found in the files: rows, tokens, how many were cut. NULL until then.';
COMMENT ON COLUMN jobs.hyperparameters IS 'As the client asked: what is shown.';
COMMENT ON COLUMN jobs.metadata IS 'The client''s own notes; NULL for none.';
COMMENT ON COLUMN jobs.model_name IS 'The name the model will have. Shown once the job succeeded.';
COMMENT ON COLUMN jobs.error IS '{code, message, param}; NULL unless failed.';
COMMENT ON COLUMN jobs.attempt IS 'How often the job was claimed. Never goes back: object keys carry it.';
COMMENT ON COLUMN jobs.max_attempts IS 'Grows by one when a worker hands the job back for its own reasons, so that only failures use attempts up.';
COMMENT ON COLUMN jobs.next_attempt_at IS 'Not claimed before this, by the database''s clock.';
COMMENT ON COLUMN jobs.worker IS 'Who claimed it last, for the operator.';
COMMENT ON COLUMN jobs.lease_token IS 'The fence of the current claim; NULL when nobody holds the job. Every write of an attempt names it.';
COMMENT ON COLUMN jobs.lease_expires_at IS 'By the database''s clock. NULL without a lease.';

CREATE TABLE job_events (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    job_id uuid NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    level text NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    type text NOT NULL CHECK (type IN ('message', 'metrics')),
    message text NOT NULL,
    data jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id) ON DELETE CASCADE
);
CREATE INDEX job_events_listing ON job_events (project_id, job_id, seq DESC);
COMMENT ON COLUMN job_events.seq IS 'The order in which events happened. Times may be equal, and workers'' clocks differ.';

CREATE TABLE job_metrics (
    project_id uuid NOT NULL,
    job_id uuid NOT NULL,
    step bigint NOT NULL CHECK (step > 0),
    train_loss double precision NOT NULL,
    train_accuracy double precision NOT NULL,
    valid_loss double precision,
    valid_accuracy double precision,
    learning_rate double precision NOT NULL,
    grad_norm double precision NOT NULL,
    n_tokens bigint NOT NULL CHECK (n_tokens >= 0),
    n_loss_tokens bigint NOT NULL CHECK (n_loss_tokens >= 0),
    step_ms double precision NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, job_id, step),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE job_metrics IS 'One row per step of the run as it counts: an attempt that resumes drops the steps it will repeat.';
COMMENT ON COLUMN job_metrics.step IS 'From 1.';
COMMENT ON COLUMN job_metrics.valid_loss IS 'NULL on steps that did not evaluate.';

CREATE TABLE checkpoints (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    step bigint NOT NULL CHECK (step > 0),
    object_prefix text NOT NULL UNIQUE,
    metrics jsonb NOT NULL,
    manifest jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    UNIQUE (project_id, job_id, step),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id) ON DELETE CASCADE
);
COMMENT ON COLUMN checkpoints.object_prefix IS 'Carries the attempt: a late upload of an old attempt cannot overwrite a newer one.';
COMMENT ON COLUMN checkpoints.manifest IS 'File name to SHA-256, checked on resume.';

CREATE TABLE fine_tuned_models (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    name text NOT NULL UNIQUE,
    job_id uuid NOT NULL,
    base_model_id uuid NOT NULL REFERENCES base_models (id),
    adapter_prefix text NOT NULL,
    checkpoint_step bigint,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (project_id, id),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id),
    FOREIGN KEY (project_id, job_id, checkpoint_step) REFERENCES checkpoints (project_id, job_id, step)
);
CREATE INDEX fine_tuned_models_listing ON fine_tuned_models (project_id, created_at DESC, id DESC);
CREATE INDEX fine_tuned_models_by_prefix ON fine_tuned_models (adapter_prefix);
CREATE INDEX fine_tuned_models_by_job ON fine_tuned_models (project_id, job_id);
COMMENT ON TABLE fine_tuned_models IS 'What answers to a name that begins with ft:. A row means the objects are whole.';
COMMENT ON COLUMN fine_tuned_models.adapter_prefix IS 'Object prefix of adapter_config.json and adapter_model.safetensors.';
COMMENT ON COLUMN fine_tuned_models.checkpoint_step IS 'NULL for a job''s result; the step for one of its checkpoints.';
COMMENT ON COLUMN fine_tuned_models.deleted_at IS 'Deleted models keep their row, so that their name is never given to another.';

CREATE TRIGGER set_updated_at BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON job_events FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON job_metrics FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON checkpoints FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON fine_tuned_models FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
ALTER TABLE job_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_events FORCE ROW LEVEL SECURITY;
ALTER TABLE job_metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_metrics FORCE ROW LEVEL SECURITY;
ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkpoints FORCE ROW LEVEL SECURITY;
ALTER TABLE fine_tuned_models ENABLE ROW LEVEL SECURITY;
ALTER TABLE fine_tuned_models FORCE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE ON jobs TO app_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_events, job_metrics, checkpoints, fine_tuned_models TO app_tenant;
CREATE POLICY tenant_isolation ON jobs TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON job_events TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON job_metrics TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON checkpoints TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON fine_tuned_models TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));

-- The queue moves jobs of every project and says so in an event; the orphan sweep reads what is referenced.
GRANT SELECT, UPDATE ON jobs TO app_worker;
GRANT INSERT ON job_events TO app_worker;
GRANT SELECT ON checkpoints, fine_tuned_models TO app_worker;
CREATE POLICY worker_all ON jobs TO app_worker USING (true);
CREATE POLICY worker_insert ON job_events FOR INSERT TO app_worker WITH CHECK (true);
CREATE POLICY worker_all ON checkpoints FOR SELECT TO app_worker USING (true);
CREATE POLICY worker_all ON fine_tuned_models FOR SELECT TO app_worker USING (true);

RESET ROLE;
