-- A project's own bucket: all of its objects are there and none in the installation's. Only the operator gives one.

SET LOCAL ROLE attune_owner;

CREATE TABLE project_buckets (
    id uuid NOT NULL UNIQUE,
    project_id uuid PRIMARY KEY REFERENCES projects (id),
    endpoint text NOT NULL CHECK (endpoint <> ''),
    region text NOT NULL CHECK (region <> ''),
    bucket text NOT NULL CHECK (bucket <> ''),
    prefix text NOT NULL,
    path_style boolean NOT NULL,
    access_key_id text NOT NULL CHECK (access_key_id <> ''),
    secret_access_key bytea NOT NULL,
    version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    configured_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT a_prefix_is_empty_or_ends_at_a_slash CHECK (prefix = '' OR prefix LIKE '%/')
);
COMMENT ON TABLE project_buckets IS 'Where the objects of a project are that does not keep them in the installation''s bucket.';
COMMENT ON COLUMN project_buckets.id IS 'The place: another bucket or prefix is another row. What a request stored elsewhere is known by it.';
COMMENT ON COLUMN project_buckets.prefix IS 'What goes before every key in this bucket.';
COMMENT ON COLUMN project_buckets.path_style IS 'Whether the bucket stands in the path of a request, or before the name of the endpoint.';
COMMENT ON COLUMN project_buckets.secret_access_key IS 'Sealed.';
COMMENT ON COLUMN project_buckets.version IS 'Grows with every change of how the bucket is reached, so that a client that was made before is known as old.';
COMMENT ON COLUMN project_buckets.configured_at IS 'When the operator last said how it is reached.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON project_buckets FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE project_buckets ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_buckets FORCE ROW LEVEL SECURITY;

-- A project reads where its own objects are, and where those of the models are that it was permitted to use.
GRANT SELECT ON project_buckets TO app_tenant;
CREATE POLICY tenant_isolation ON project_buckets FOR SELECT TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY permitted ON project_buckets FOR SELECT TO app_tenant
    USING (project_id IN (SELECT owner_project_id FROM checkpoint_permissions));

-- The sweep deletes objects of every project.
GRANT SELECT ON project_buckets TO app_worker;
CREATE POLICY worker_all ON project_buckets FOR SELECT TO app_worker USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON project_buckets TO app_operator;
CREATE POLICY operator_all ON project_buckets TO app_operator USING (true);

RESET ROLE;
