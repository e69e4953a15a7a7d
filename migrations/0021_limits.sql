-- Limits of a project are set twice: by its organization's administrators, and by whoever runs the installation. Of each the
-- lower one counts, and neither can touch the other's. And the storage that a project uses is all of it: the largest objects
-- are its models.

SET LOCAL ROLE attune_owner;

-- An API of the release before cannot set limits until it is replaced: it knows one row of a project. What is there was set by
-- either, and stays what administrators may change, so that nothing holds that did not before.
ALTER TABLE project_quotas
    ADD COLUMN set_by text NOT NULL DEFAULT 'organization' CHECK (set_by IN ('organization', 'operator')),
    ADD COLUMN max_running_jobs bigint CHECK (max_running_jobs BETWEEN 0 AND 2147483647),
    DROP CONSTRAINT project_quotas_pkey,
    ADD PRIMARY KEY (org_id, project_id, set_by);
COMMENT ON TABLE project_quotas IS 'What a project may use at most: the least of what its rows say. NULL, and no row: as much as there is.';
COMMENT ON COLUMN project_quotas.set_by IS '''operator'': a ceiling, which the organization''s administrators see and cannot change.';
COMMENT ON COLUMN project_quotas.max_running_jobs IS 'Jobs at workers at the same time. Claims read it in project_queues.';

DROP POLICY org_isolation ON project_quotas;
CREATE POLICY org_isolation ON project_quotas FOR SELECT TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_inserts ON project_quotas FOR INSERT TO app_org
    WITH CHECK (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid) AND set_by = 'organization');
-- Of the row as it was and of the row as it becomes.
CREATE POLICY org_updates ON project_quotas FOR UPDATE TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid) AND set_by = 'organization');
-- For cap_queue, which runs as its owner. Nobody can log in as that role or become it but who migrates.
CREATE POLICY owner_reads ON project_quotas FOR SELECT TO attune_owner USING (true);

-- The number of running jobs was the operator's alone. Row security, forced, lets the owner add no rows either.
ALTER TABLE project_quotas NO FORCE ROW LEVEL SECURITY;
INSERT INTO project_quotas (org_id, project_id, set_by, max_running_jobs)
SELECT p.org_id, q.project_id, 'operator', q.max_running_jobs
FROM project_queues q JOIN projects p ON p.id = q.project_id
WHERE q.max_running_jobs IS NOT NULL;
ALTER TABLE project_quotas FORCE ROW LEVEL SECURITY;
COMMENT ON COLUMN project_queues.max_running_jobs IS 'The least of project_quotas, kept by cap_queue: each claim reads it. NULL: any number.';

-- Keeps the number that claims read. The queue's row is locked before the limits are read: of two who set them at once, the
-- second sees what the first has set.
CREATE FUNCTION cap_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.max_running_jobs IS NULL THEN
            RETURN NULL;
        END IF;
    ELSIF NEW.max_running_jobs IS NOT DISTINCT FROM OLD.max_running_jobs THEN
        RETURN NULL;
    END IF;
    INSERT INTO project_queues (project_id) VALUES (NEW.project_id) ON CONFLICT DO NOTHING;
    PERFORM FROM project_queues WHERE project_id = NEW.project_id FOR NO KEY UPDATE;
    -- The clock goes on from now: what was kept from a project by its old cap is not made up for.
    UPDATE project_queues
    SET max_running_jobs = (SELECT min(max_running_jobs) FROM project_quotas WHERE project_id = NEW.project_id),
        virtual_time = greatest(virtual_time, (SELECT max(served_virtual_time) FROM project_queues)),
        updated_at = now()
    WHERE project_id = NEW.project_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION cap_queue() FROM PUBLIC;
CREATE TRIGGER cap_queue AFTER INSERT OR UPDATE OF max_running_jobs ON project_quotas
    FOR EACH ROW EXECUTE FUNCTION cap_queue();

-- A checkpoint is a model, too, and its row here counts for both. Of models that are there nobody knows the size: they count
-- nothing, and rows that follow say theirs.
-- Nothing is what workers of the release before count, too: they do not name the column.
ALTER TABLE fine_tuned_models ADD COLUMN size_bytes bigint NOT NULL DEFAULT 0 CHECK (size_bytes >= 0);
COMMENT ON COLUMN fine_tuned_models.size_bytes IS 'Of all objects below adapter_prefix; 0 for models from before this column.';

-- As count_file counts files, but that a model's row stays when it is deleted, and must count no more.
CREATE FUNCTION count_model() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mine uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.project_id ELSE NEW.project_id END;
    change bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.deleted_at IS NULL THEN
        change := change - OLD.size_bytes;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.deleted_at IS NULL THEN
        change := change + NEW.size_bytes;
    END IF;
    IF change <> 0 THEN
        INSERT INTO project_usage (project_id) VALUES (mine) ON CONFLICT DO NOTHING;
        UPDATE project_usage SET storage_bytes = storage_bytes + change WHERE project_id = mine;
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION count_model() FROM PUBLIC;
CREATE TRIGGER count_model AFTER INSERT OR DELETE OR UPDATE OF size_bytes, deleted_at ON fine_tuned_models
    FOR EACH ROW EXECUTE FUNCTION count_model();

COMMENT ON COLUMN project_quotas.max_storage_bytes IS 'Of all files, uploaded and produced, of the parts of pending uploads, and of models with their checkpoints.';

RESET ROLE;
