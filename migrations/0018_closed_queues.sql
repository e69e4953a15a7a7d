-- Archiving a project ends all its jobs in one transaction, and each of them wrote the row of the project's queue. Nothing
-- clears the row's old versions away before that transaction ends, and each write has to pass all of them, so the time grew
-- with the square of the number of jobs. Now the queue is closed first: its counts are nothing from then on, and jobs that
-- end write it no more.

SET LOCAL ROLE attune_owner;

ALTER TABLE project_queues
    ADD COLUMN closed_at timestamptz,
    ADD CONSTRAINT a_closed_queue_has_no_jobs CHECK (closed_at IS NULL OR (n_waiting = 0 AND n_running = 0));
COMMENT ON COLUMN project_queues.closed_at IS 'When its project was archived: nothing is claimed from it any more, and nothing is counted. NULL: it is open.';

-- As in 0008, but that a closed queue counts nothing.
CREATE OR REPLACE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    waits integer := (NEW.lease_token IS NULL AND NEW.status IN ('validating_files', 'queued'))::integer;
    runs integer := (NEW.lease_token IS NOT NULL)::integer;
    mine uuid := NEW.project_id;
    present double precision;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        waits := waits - (OLD.lease_token IS NULL AND OLD.status IN ('validating_files', 'queued'))::integer;
        runs := runs - (OLD.lease_token IS NOT NULL)::integer;
    END IF;
    IF waits = 0 AND runs = 0 THEN
        RETURN NULL;
    END IF;
    SELECT max(served_virtual_time) INTO present FROM project_queues;
    IF runs = 1 THEN
        -- A claim is what costs. A project whose jobs nobody could take for a while (a pause between attempts, no worker
        -- of their kind) was not served meanwhile; 32 turns of that are made up for, and no more. Fewer would take away what
        -- a project is behind only because others are being served at this very instant, again and again.
        UPDATE project_queues
        SET n_waiting = n_waiting + waits, n_running = n_running + 1,
            served_virtual_time = greatest(virtual_time, present - 32),
            virtual_time = greatest(virtual_time, present - 32) + 1 / weight, updated_at = now()
        WHERE project_id = mine;
        RETURN NULL;
    END IF;
    INSERT INTO project_queues (project_id) VALUES (mine) ON CONFLICT DO NOTHING;
    -- Time in which a project had nothing to claim, or was at its cap, counts neither for nor against it: its clock
    -- goes on from now.
    UPDATE project_queues
    SET n_waiting = n_waiting + waits, n_running = n_running + runs, updated_at = now(),
        virtual_time = CASE
            WHEN n_waiting = 0 OR n_running >= max_running_jobs
            THEN greatest(virtual_time, present)
            ELSE virtual_time
        END
    WHERE project_id = mine AND closed_at IS NULL;
    RETURN NULL;
END
$$;

-- Closes the queue of the project in whose transaction it is called, if that is archived. Its open jobs must be locked
-- before, and end in the same transaction.
CREATE FUNCTION close_queue() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE project_queues q
    SET closed_at = now(), n_waiting = 0, n_running = 0, updated_at = now()
    FROM projects p
    WHERE p.id = NULLIF(current_setting('app.project_id', true), '')::uuid AND p.archived_at IS NOT NULL
      AND q.project_id = p.id
$$;
REVOKE ALL ON FUNCTION close_queue() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION close_queue() TO app_tenant;

RESET ROLE;
