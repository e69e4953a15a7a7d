-- A project that is archived stops: what it had under way is cancelled by whoever archives it, and nothing new begins.
-- What is in storage only for the time being, the parts of pending uploads, counts as files do.

SET LOCAL ROLE attune_owner;

-- For refuse_archived, which runs as its owner. Nobody can log in as that role or become it but who migrates.
CREATE POLICY owner_locks ON projects TO attune_owner USING (true);

-- A request that was let in a moment before its project was archived may come to its insert a moment after. The lock
-- meets the one that archiving holds until its end: whoever is second sees what the first has done.
CREATE FUNCTION refuse_archived() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    archived timestamptz;
BEGIN
    SELECT archived_at INTO archived FROM projects WHERE id = NEW.project_id FOR SHARE;
    IF archived IS NOT NULL THEN
        RAISE EXCEPTION 'the project is archived' USING ERRCODE = 'AT001';
    END IF;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION refuse_archived() FROM PUBLIC;
CREATE TRIGGER refuse_archived BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse_archived();
CREATE TRIGGER refuse_archived BEFORE INSERT ON batches FOR EACH ROW EXECUTE FUNCTION refuse_archived();
CREATE TRIGGER refuse_archived BEFORE INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION refuse_archived();

-- As count_file counts files, but by the statement: an upload that ends gives up thousands of parts at once.
CREATE FUNCTION count_parts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT project_id, sum(size_bytes) * CASE TG_OP WHEN 'DELETE' THEN -1 ELSE 1 END AS n_bytes
        FROM changed GROUP BY project_id
    LOOP
        INSERT INTO project_usage (project_id) VALUES (change.project_id) ON CONFLICT DO NOTHING;
        UPDATE project_usage SET storage_bytes = storage_bytes + change.n_bytes WHERE project_id = change.project_id;
    END LOOP;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION count_parts() FROM PUBLIC;
-- Before the sum is taken: it locks the table against writes, so no part is missed and none is counted twice.
CREATE TRIGGER count_new_parts AFTER INSERT ON upload_parts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_parts();
CREATE TRIGGER count_gone_parts AFTER DELETE ON upload_parts
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_parts();

-- Row security, forced, shows the owner no rows either; it has to look once.
ALTER TABLE upload_parts NO FORCE ROW LEVEL SECURITY;
INSERT INTO project_usage AS u (project_id, storage_bytes)
SELECT project_id, sum(size_bytes) FROM upload_parts GROUP BY project_id
ON CONFLICT (project_id) DO UPDATE SET storage_bytes = u.storage_bytes + EXCLUDED.storage_bytes;
ALTER TABLE upload_parts FORCE ROW LEVEL SECURITY;

COMMENT ON COLUMN project_quotas.max_storage_bytes IS 'Of all files, uploaded and produced, and of the parts of pending uploads.';

RESET ROLE;

-- Whoever runs the installation archives projects, too, and works as the project's tenant while its work is stopped. A
-- superuser can anyway; of others it is the login that migrates.
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = 'app_tenant'::regrole AND member = current_user::regrole
    ) THEN
        EXECUTE format('GRANT app_tenant TO %I', current_user);
    END IF;
EXCEPTION
    -- Another database of the cluster was faster.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;
