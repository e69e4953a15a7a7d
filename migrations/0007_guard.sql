-- Who did what, in a chain that shows when it was tampered with; and what a project may use at most.

-- As in the first migration: roles belong to the cluster, and another database may be creating them at this moment.
CREATE OR REPLACE FUNCTION pg_temp.ensure_role(role_name text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I %s', role_name, options);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pg_temp.ensure_member(group_name text, member_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = group_name::regrole AND member = member_name::regrole
    ) THEN
        EXECUTE format('GRANT %I TO %I', group_name, member_name);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- Administers the organization named by app.org_id.
SELECT pg_temp.ensure_role('app_org', 'NOLOGIN');
SELECT pg_temp.ensure_member('app_org', 'attune_api');
GRANT USAGE ON SCHEMA public TO app_org;

SET LOCAL ROLE attune_owner;

CREATE TABLE audit_log (
    org_id uuid NOT NULL REFERENCES organizations (id),
    seq bigint NOT NULL CHECK (seq > 0),
    at timestamptz NOT NULL,
    actor_kind text NOT NULL CHECK (actor_kind <> ''),
    actor_id text NOT NULL,
    actor_name text NOT NULL,
    key_id text,
    address text,
    request_id text,
    action text NOT NULL CHECK (action <> ''),
    object_kind text NOT NULL,
    object_id text NOT NULL,
    project_id uuid,
    details json NOT NULL,
    prev_hash bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (org_id, seq),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id)
);
CREATE INDEX audit_log_by_object ON audit_log (org_id, object_id, seq);
COMMENT ON TABLE audit_log IS 'Who did what to which object. Rows are added by append_audit, and never changed or removed.';
COMMENT ON COLUMN audit_log.seq IS 'From 1, per organization, without a gap.';
COMMENT ON COLUMN audit_log.at IS 'By the clock of the service that did it; seq is the order.';
COMMENT ON COLUMN audit_log.actor_kind IS 'For instance api_key, user, service_account, operator.';
COMMENT ON COLUMN audit_log.actor_name IS 'As it was then.';
COMMENT ON COLUMN audit_log.key_id IS 'The API key that the request came with; NULL when it came with none.';
COMMENT ON COLUMN audit_log.address IS 'Where the request came from; NULL for a command on the operator''s machine.';
COMMENT ON COLUMN audit_log.project_id IS 'NULL for what belongs to the organization itself.';
COMMENT ON COLUMN audit_log.details IS 'json, not jsonb: the hash is over these very bytes.';
COMMENT ON COLUMN audit_log.prev_hash IS 'The hash of seq - 1; 32 zero bytes at the first row.';
COMMENT ON COLUMN audit_log.hash IS 'SHA-256 over all other columns, as docs/security.md lays them out.';

CREATE TABLE audit_heads (
    org_id uuid PRIMARY KEY REFERENCES organizations (id),
    seq bigint NOT NULL DEFAULT 0,
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(hash) = 32)
);
ALTER TABLE audit_heads SET (fillfactor = 50);
COMMENT ON TABLE audit_heads IS 'The end of each organization''s chain. Its row is the lock that keeps the chain one.';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_heads FORCE ROW LEVEL SECURITY;
-- For append_audit, which runs as its owner. Nobody can log in as that role or become it but who migrates.
CREATE POLICY owner_append ON audit_log FOR INSERT TO attune_owner WITH CHECK (true);
CREATE POLICY owner_all ON audit_heads TO attune_owner USING (true);
-- A project writes through append_audit and reads nothing.
GRANT SELECT ON audit_log TO app_org;
CREATE POLICY org_isolation ON audit_log FOR SELECT TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
GRANT SELECT ON audit_log, audit_heads TO app_operator;
CREATE POLICY operator_reads ON audit_log FOR SELECT TO app_operator USING (true);
CREATE POLICY operator_reads ON audit_heads FOR SELECT TO app_operator USING (true);

-- One field of a row as it is hashed: a zero byte if it is absent; else a one, its length in eight bytes, its bytes.
CREATE FUNCTION audit_field(field text) RETURNS bytea LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT CASE
        WHEN field IS NULL THEN '\x00'::bytea
        ELSE '\x01'::bytea || int8send(octet_length(convert_to(field, 'UTF8'))) || convert_to(field, 'UTF8')
    END
$$;

-- Adds a row at the end of an organization's chain. Hashed here, so that no service can forge a row's place: all it
-- chooses is what the row says. The head stays locked until the transaction ends, so this is a transaction's last
-- statement but the commit.
CREATE FUNCTION append_audit(
    the_org uuid, the_project uuid, the_time timestamptz, the_actor_kind text, the_actor_id text, the_actor_name text,
    the_key text, the_address text, the_request text, the_action text, the_object_kind text, the_object_id text,
    the_details text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    project uuid := the_project;
    head audit_heads;
    fresh bytea;
BEGIN
    -- The role of the transaction, not of this function.
    CASE current_setting('role')
        WHEN 'app_tenant' THEN
            -- Whose project it is, is held by the foreign key.
            project := NULLIF(current_setting('app.project_id', true), '')::uuid;
            IF project IS NULL THEN
                RAISE EXCEPTION 'no project is set' USING ERRCODE = 'insufficient_privilege';
            END IF;
        WHEN 'app_org' THEN
            IF the_org IS DISTINCT FROM NULLIF(current_setting('app.org_id', true), '')::uuid THEN
                RAISE EXCEPTION 'another organization' USING ERRCODE = 'insufficient_privilege';
            END IF;
        WHEN 'app_operator' THEN
            NULL;
        ELSE
            RAISE EXCEPTION 'this role writes no audit log' USING ERRCODE = 'insufficient_privilege';
    END CASE;

    INSERT INTO audit_heads (org_id) VALUES (the_org) ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM audit_heads WHERE org_id = the_org FOR UPDATE;
    head.seq := head.seq + 1;
    fresh := sha256(
        convert_to('attune audit v1', 'UTF8') || head.hash
        || audit_field('org-' || replace(the_org::text, '-', ''))
        || audit_field(head.seq::text)
        || audit_field(to_char(the_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || audit_field(the_actor_kind) || audit_field(the_actor_id) || audit_field(the_actor_name)
        || audit_field(the_key) || audit_field(the_address) || audit_field(the_request)
        || audit_field(the_action) || audit_field(the_object_kind) || audit_field(the_object_id)
        || audit_field('proj_' || replace(project::text, '-', ''))
        || audit_field(the_details)
    );
    INSERT INTO audit_log (org_id, seq, at, actor_kind, actor_id, actor_name, key_id, address, request_id, action,
        object_kind, object_id, project_id, details, prev_hash, hash)
    VALUES (the_org, head.seq, the_time, the_actor_kind, the_actor_id, the_actor_name, the_key, the_address,
        the_request, the_action, the_object_kind, the_object_id, project, the_details::json, head.hash, fresh);
    UPDATE audit_heads SET seq = head.seq, hash = fresh WHERE org_id = the_org;
END
$$;
REVOKE ALL ON FUNCTION append_audit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_audit TO app_tenant, app_org, app_operator;

CREATE TABLE project_quotas (
    org_id uuid NOT NULL,
    project_id uuid NOT NULL,
    max_queued_jobs bigint CHECK (max_queued_jobs >= 0),
    max_storage_bytes bigint CHECK (max_storage_bytes >= 0),
    max_trained_tokens_per_day bigint CHECK (max_trained_tokens_per_day >= 0),
    max_requests_per_minute bigint CHECK (max_requests_per_minute > 0),
    max_tokens_per_minute bigint CHECK (max_tokens_per_minute > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- With the organization in the key, no organization can come upon another's row; a project has one organization.
    PRIMARY KEY (org_id, project_id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id)
);
CREATE INDEX project_quotas_by_project ON project_quotas (project_id);
COMMENT ON TABLE project_quotas IS 'What a project may use at most. NULL, and no row: as much as there is.';
COMMENT ON COLUMN project_quotas.max_queued_jobs IS 'Jobs that wait for a worker.';
COMMENT ON COLUMN project_quotas.max_storage_bytes IS 'Of all files, uploaded and produced.';
COMMENT ON COLUMN project_quotas.max_trained_tokens_per_day IS 'From midnight to midnight, UTC.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON project_quotas FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE project_usage (
    project_id uuid PRIMARY KEY REFERENCES projects (id),
    storage_bytes bigint NOT NULL DEFAULT 0 CHECK (storage_bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE project_usage SET (fillfactor = 50);
COMMENT ON TABLE project_usage IS 'What a project uses, counted in the transaction that changes it.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON project_usage FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE job_token_estimates (
    project_id uuid NOT NULL,
    job_id uuid NOT NULL,
    n_tokens bigint NOT NULL CHECK (n_tokens >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, job_id),
    FOREIGN KEY (project_id, job_id) REFERENCES jobs (project_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE job_token_estimates IS 'What unfinished jobs of projects with a daily limit are expected to train.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON job_token_estimates FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- What was trained today is asked for at every new job of a project with a daily limit.
CREATE INDEX jobs_finished ON jobs (project_id, finished_at) WHERE finished_at IS NOT NULL;

ALTER TABLE project_quotas ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_quotas FORCE ROW LEVEL SECURITY;
ALTER TABLE project_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_usage FORCE ROW LEVEL SECURITY;
ALTER TABLE job_token_estimates ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_token_estimates FORCE ROW LEVEL SECURITY;

GRANT SELECT ON project_quotas, project_usage TO app_tenant;
GRANT SELECT, INSERT, DELETE ON job_token_estimates TO app_tenant;
CREATE POLICY tenant_isolation ON project_quotas TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON project_usage TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON job_token_estimates TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));

GRANT SELECT, INSERT, UPDATE ON project_quotas TO app_org, app_operator;
CREATE POLICY org_isolation ON project_quotas TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY operator_all ON project_quotas TO app_operator USING (true);
GRANT SELECT ON project_usage TO app_operator;
CREATE POLICY operator_reads ON project_usage FOR SELECT TO app_operator USING (true);
-- For count_file, which runs as its owner.
CREATE POLICY owner_all ON project_usage TO attune_owner USING (true);

-- Beside the rows themselves and whoever writes them: a sum that one statement forgot would be wrong for good. The row
-- of the project is locked by it, so what a transaction reads there after its own write is exact.
CREATE FUNCTION count_file() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mine uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.project_id ELSE NEW.project_id END;
    change bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        change := change - OLD.size_bytes;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        change := change + NEW.size_bytes;
    END IF;
    INSERT INTO project_usage AS u (project_id) VALUES (mine) ON CONFLICT DO NOTHING;
    UPDATE project_usage SET storage_bytes = storage_bytes + change WHERE project_id = mine;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION count_file() FROM PUBLIC;
-- Before the sum is taken: it locks the table against writes, so no file is missed and none is counted twice.
CREATE TRIGGER count_file AFTER INSERT OR DELETE OR UPDATE OF size_bytes ON files
    FOR EACH ROW EXECUTE FUNCTION count_file();

-- Row security, forced, shows the owner no rows either; it has to look once.
ALTER TABLE files NO FORCE ROW LEVEL SECURITY;
INSERT INTO project_usage (project_id, storage_bytes)
SELECT project_id, sum(size_bytes) FROM files GROUP BY project_id;
ALTER TABLE files FORCE ROW LEVEL SECURITY;

RESET ROLE;
