-- Reports to Weights & Biases. What is sent comes from what workers stored, so no training waits for it.

SET LOCAL ROLE attune_owner;

CREATE TABLE wandb_accounts (
    id uuid NOT NULL UNIQUE,
    project_id uuid PRIMARY KEY REFERENCES projects (id),
    api_key bytea NOT NULL,
    base_url text NOT NULL,
    entity text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE wandb_accounts IS 'Whose key a project''s jobs report to Weights & Biases with. The operator sets it; a project without a row may not report.';
COMMENT ON COLUMN wandb_accounts.id IS 'Of this key: another one is another row.';
COMMENT ON COLUMN wandb_accounts.api_key IS 'Sealed.';
COMMENT ON COLUMN wandb_accounts.base_url IS 'Of the server''s API, without a slash at the end.';
COMMENT ON COLUMN wandb_accounts.entity IS 'The user or team of runs that name none. NULL: the key''s own.';

CREATE TABLE wandb_runs (
    project_id uuid NOT NULL,
    job_id uuid NOT NULL,
    integration smallint NOT NULL CHECK (integration >= 0),
    entity text,
    wandb_project text,
    last_step bigint NOT NULL DEFAULT 0 CHECK (last_step >= 0),
    next_line bigint NOT NULL DEFAULT 0 CHECK (next_line >= 0),
    wakes_at timestamptz NOT NULL DEFAULT 'infinity',
    has_news boolean NOT NULL DEFAULT false,
    lease_token uuid,
    n_failures integer NOT NULL DEFAULT 0 CHECK (n_failures >= 0),
    last_error text,
    warned_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, job_id, integration),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id) ON DELETE CASCADE,
    CONSTRAINT a_place_is_whole CHECK ((entity IS NULL) = (wandb_project IS NULL)),
    CONSTRAINT a_finished_run_has_no_lease CHECK (finished_at IS NULL OR lease_token IS NULL)
);
CREATE INDEX wandb_runs_due ON wandb_runs (wakes_at) WHERE finished_at IS NULL;
COMMENT ON TABLE wandb_runs IS 'What Weights & Biases knows of a job: one row for each of its integrations.';
COMMENT ON COLUMN wandb_runs.integration IS 'The place in jobs.integrations, from 0.';
COMMENT ON COLUMN wandb_runs.entity IS 'Where the run is, as the server answered. NULL until it was made there.';
COMMENT ON COLUMN wandb_runs.last_step IS 'The last step that was sent; 0 before the first.';
COMMENT ON COLUMN wandb_runs.next_line IS 'Where the next line goes in the run''s history, from 0. What is sent again goes to the same place.';
COMMENT ON COLUMN wandb_runs.wakes_at IS 'When to look at it, by the database''s clock. infinity: when its job moves. While somebody reports, when to take that one for dead.';
COMMENT ON COLUMN wandb_runs.has_news IS 'Its job moved after somebody had begun to report.';
COMMENT ON COLUMN wandb_runs.lease_token IS 'The fence of who reports; NULL when nobody does.';
COMMENT ON COLUMN wandb_runs.n_failures IS 'Since the last success.';
COMMENT ON COLUMN wandb_runs.last_error IS 'What went wrong last, since the last success. Of a finished run: why it was given up.';
COMMENT ON COLUMN wandb_runs.warned_at IS 'When the job was told that reporting fails. It is told once.';
COMMENT ON COLUMN wandb_runs.finished_at IS 'Nothing is sent any more since then: the run is over, or was given up.';

CREATE TRIGGER set_updated_at BEFORE UPDATE ON wandb_accounts FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON wandb_runs FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE wandb_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE wandb_accounts FORCE ROW LEVEL SECURITY;
ALTER TABLE wandb_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE wandb_runs FORCE ROW LEVEL SECURITY;

GRANT SELECT ON wandb_accounts TO app_tenant;
GRANT SELECT, INSERT, UPDATE ON wandb_runs TO app_tenant;
CREATE POLICY tenant_isolation ON wandb_accounts TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON wandb_runs TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));

-- One loop takes runs of every project. It reads a job and its account as that project's tenant.
GRANT SELECT, UPDATE ON wandb_runs TO app_worker;
CREATE POLICY worker_all ON wandb_runs TO app_worker USING (true);

-- A key that is set anew is tried at once. `attune admin secrets rotate` seals again what an older key sealed.
GRANT SELECT, INSERT, UPDATE, DELETE ON wandb_accounts TO app_operator;
GRANT SELECT (project_id, n_failures, lease_token, finished_at), UPDATE (wakes_at) ON wandb_runs TO app_operator;
CREATE POLICY operator_all ON wandb_accounts TO app_operator USING (true);
CREATE POLICY operator_all ON wandb_runs TO app_operator USING (true);

-- In the transaction that moves the job and with its rights, whoever moves it. A run that fails keeps to its pauses.
CREATE FUNCTION wake_wandb_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wandb_runs
    SET has_news = true,
        wakes_at = CASE WHEN lease_token IS NULL AND n_failures = 0 THEN now() ELSE wakes_at END
    WHERE project_id = NEW.project_id AND job_id = NEW.id AND finished_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER wake_wandb_runs AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND NEW.integrations <> '[]'
          AND NEW.status IN ('running', 'succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION wake_wandb_runs();

RESET ROLE;
