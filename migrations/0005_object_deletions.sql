SET LOCAL ROLE attune_owner;

CREATE TABLE object_deletions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    project_id uuid NOT NULL REFERENCES projects (id),
    job_id uuid,
    key text NOT NULL CHECK (key <> ''),
    is_prefix boolean NOT NULL,
    not_before timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    CONSTRAINT a_prefix_ends_at_a_slash CHECK (NOT is_prefix OR key LIKE '%/'),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id)
);
CREATE INDEX object_deletions_due ON object_deletions (not_before);
COMMENT ON TABLE object_deletions IS 'Objects to delete, written in the transaction that drops the row that named them. A sweeper empties it.';
COMMENT ON COLUMN object_deletions.job_id IS 'Wait until this job is final: a checkpoint may still be needed to resume. NULL: at once.';
COMMENT ON COLUMN object_deletions.is_prefix IS 'Whether key is the beginning of many keys. It ends with a slash then, or step-1 would take step-10 along.';
COMMENT ON COLUMN object_deletions.not_before IS 'Moved forward when a sweeper takes the row; one that dies leaves it for the next.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON object_deletions FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE object_deletions ENABLE ROW LEVEL SECURITY;
ALTER TABLE object_deletions FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT ON object_deletions TO app_tenant;
CREATE POLICY tenant_isolation ON object_deletions TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
GRANT SELECT, UPDATE, DELETE ON object_deletions TO app_worker;
CREATE POLICY worker_all ON object_deletions TO app_worker USING (true);

RESET ROLE;
