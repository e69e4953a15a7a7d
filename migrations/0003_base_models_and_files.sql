SET LOCAL ROLE attune_owner;

CREATE TABLE base_models (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name <> '' AND name NOT LIKE 'ft:%'),
    fingerprint text NOT NULL,
    architecture text NOT NULL,
    n_params bigint NOT NULL CHECK (n_params > 0),
    context_length bigint NOT NULL CHECK (context_length > 0),
    d_model bigint NOT NULL CHECK (d_model > 0),
    n_layers bigint NOT NULL CHECK (n_layers > 0),
    n_heads bigint NOT NULL CHECK (n_heads > 0),
    n_kv_heads bigint NOT NULL CHECK (n_kv_heads > 0),
    d_ff bigint NOT NULL CHECK (d_ff > 0),
    vocab_size bigint NOT NULL CHECK (vocab_size > 0),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    files jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE base_models IS 'What every project may train on. The installation''s, not a tenant''s: no row security.';
COMMENT ON COLUMN base_models.name IS 'As clients write it. ''ft:'' begins the names of fine-tuned models.';
COMMENT ON COLUMN base_models.fingerprint IS 'SHA-256 over the configuration and the weights.';
COMMENT ON COLUMN base_models.files IS 'Array of {name, size_bytes, sha256}: the objects of this model.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON base_models FOR EACH ROW EXECUTE FUNCTION set_updated_at();
GRANT SELECT ON base_models TO app_tenant, app_worker, app_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON base_models TO app_operator;

CREATE TABLE files (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL REFERENCES projects (id),
    filename text NOT NULL,
    purpose text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    n_lines bigint CHECK (n_lines >= 0),
    status text NOT NULL CHECK (status IN ('uploaded', 'processed', 'error')),
    status_details text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (project_id, id)
);
CREATE INDEX files_listing ON files (project_id, created_at DESC, id DESC);
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON TABLE files IS 'Uploaded and produced files. A row appears once the object is whole and goes before the object does.';
COMMENT ON COLUMN files.purpose IS 'OpenAI''s word, for instance fine-tune or fine-tune-results.';
COMMENT ON COLUMN files.n_lines IS 'NULL when nothing counted them.';
COMMENT ON COLUMN files.expires_at IS 'NULL: never.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE files ENABLE ROW LEVEL SECURITY;
ALTER TABLE files FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON files TO app_tenant;
CREATE POLICY tenant_isolation ON files TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
-- The sweepers look for expired files and for objects that no row names.
GRANT SELECT ON files TO app_worker;
CREATE POLICY worker_all ON files FOR SELECT TO app_worker USING (true);

RESET ROLE;
