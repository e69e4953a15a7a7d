-- A role of its own for the one thing that looks across projects on behalf of streams: which jobs have news. As in
-- 0001, the role may exist already, and another database of the cluster may be making it at this moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app_feed') THEN
        CREATE ROLE app_feed NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = 'app_feed'::regrole AND member = 'attune_api'::regrole
    ) THEN
        GRANT app_feed TO attune_api;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
GRANT USAGE ON SCHEMA public TO app_feed;

SET LOCAL ROLE attune_owner;

CREATE TABLE idempotency_keys (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL REFERENCES projects (id),
    route text NOT NULL,
    key text CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    status smallint NOT NULL,
    body bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);
CREATE UNIQUE INDEX idempotency_keys_by_key ON idempotency_keys (project_id, route, key)
    WHERE key IS NOT NULL;
CREATE INDEX idempotency_keys_by_fingerprint ON idempotency_keys (project_id, route, fingerprint, created_at DESC)
    WHERE key IS NULL;
CREATE INDEX idempotency_keys_by_end ON idempotency_keys (expires_at);
COMMENT ON TABLE idempotency_keys IS 'The answers of requests that made something, written in the transaction that made it: a repetition is told the same.';
COMMENT ON COLUMN idempotency_keys.route IS 'Method and pattern: the same key on another route is another key.';
COMMENT ON COLUMN idempotency_keys.key IS 'As the client chose it. NULL when it sent none: such a row is found by its fingerprint, by a retry that says it is one.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 of the path and the body.';
COMMENT ON COLUMN idempotency_keys.body IS 'Byte for byte as it was answered. No route whose answer shows a secret keeps it here.';
COMMENT ON COLUMN idempotency_keys.expires_at IS 'From then on the row counts as gone; a sweep deletes it.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO app_tenant;
CREATE POLICY tenant_isolation ON idempotency_keys TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
-- To delete by the end, a sweep must read it; it reads no key and no answer.
GRANT DELETE ON idempotency_keys TO app_worker;
GRANT SELECT (id, expires_at) ON idempotency_keys TO app_worker;
CREATE POLICY worker_sweep ON idempotency_keys TO app_worker USING (true);

-- How fast jobs of a base model ran lately, which estimates ask.
CREATE INDEX jobs_succeeded_by_base ON jobs (project_id, base_model, created_at DESC) WHERE status = 'succeeded';

-- That a job has news, and whether it is over, but not what the news is: a stream reads that as its tenant.
GRANT SELECT (project_id, job_id, seq) ON job_events TO app_feed;
GRANT SELECT (project_id, id, status) ON jobs TO app_feed;
CREATE POLICY feed_all ON job_events FOR SELECT TO app_feed USING (true);
CREATE POLICY feed_all ON jobs FOR SELECT TO app_feed USING (true);

RESET ROLE;
