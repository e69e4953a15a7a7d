-- A project that is archived stops: what it had under way is cancelled by whoever archives it, and nothing new begins.

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
