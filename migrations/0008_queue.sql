SET LOCAL ROLE attune_owner;

-- Waiting for the tenant. A worker that is at a paused job keeps its lease until it has written a checkpoint.
ALTER TABLE jobs DROP CONSTRAINT jobs_status_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_status_check CHECK (
    status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')
);

ALTER TABLE jobs
    ADD COLUMN needs_device text NOT NULL DEFAULT 'any' CHECK (needs_device IN ('any', 'cpu', 'cuda')),
    ADD COLUMN needs_memory_bytes bigint NOT NULL DEFAULT 0 CHECK (needs_memory_bytes >= 0);
COMMENT ON COLUMN jobs.needs_device IS 'The kind of worker that may take it.';
COMMENT ON COLUMN jobs.needs_memory_bytes IS 'What a run takes at least; its rows come on top. 0: unknown.';

-- In the order in which one project's jobs for one kind of worker are claimed. The last column is there to be filtered by
-- without a look at the table.
ALTER TABLE jobs ADD COLUMN queue text COLLATE "C" GENERATED ALWAYS AS (project_id::text || needs_device) STORED;
COMMENT ON COLUMN jobs.queue IS 'Project and kind of worker as one key: a claim asks for nothing else, so no other index can tempt the planner.';
DROP INDEX jobs_claimable;
CREATE INDEX jobs_waiting ON jobs (queue, created_at, id, needs_memory_bytes)
    WHERE lease_token IS NULL AND status IN ('validating_files', 'queued');
-- Each claim leaves a dead entry at the head of an index; vacuum must keep up with them.
ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, fillfactor = 80);

-- Whose turn it is. A claim takes the project whose clock is behind all others' and moves it on by 1 / weight.
CREATE TABLE project_queues (
    project_id uuid PRIMARY KEY REFERENCES projects (id),
    weight double precision NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0.001 AND 1000),
    priority integer NOT NULL DEFAULT 0,
    max_running_jobs integer CHECK (max_running_jobs >= 0),
    n_waiting bigint NOT NULL DEFAULT 0 CHECK (n_waiting >= 0),
    n_running bigint NOT NULL DEFAULT 0 CHECK (n_running >= 0),
    virtual_time double precision NOT NULL DEFAULT 0,
    served_virtual_time double precision NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE project_queues SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, fillfactor = 50);
CREATE INDEX project_queues_turn ON project_queues (priority DESC, virtual_time, project_id) WHERE n_waiting > 0;
CREATE INDEX project_queues_served ON project_queues (served_virtual_time);
COMMENT ON TABLE project_queues IS 'One row per project that ever had a job: its share of the workers, and its clock.';
COMMENT ON COLUMN project_queues.weight IS 'Of two projects that both wait, one of weight 2 gets twice the claims of one of weight 1.';
COMMENT ON COLUMN project_queues.priority IS 'A project waits as long as one of higher priority has a job that may be claimed.';
COMMENT ON COLUMN project_queues.max_running_jobs IS 'Jobs at workers at the same time; NULL: any number.';
COMMENT ON COLUMN project_queues.n_waiting IS 'Jobs that nobody holds and that may be claimed, now or after a pause between attempts.';
COMMENT ON COLUMN project_queues.n_running IS 'Jobs that a worker holds.';
COMMENT ON COLUMN project_queues.virtual_time IS 'The lowest is served next.';
COMMENT ON COLUMN project_queues.served_virtual_time IS 'What virtual_time was at the last claim. The highest of all is now, to this clock.';
-- No trigger for updated_at: each claim writes a row here, and says so itself.

-- The owner too is under row security, and a migration is nobody's tenant.
ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY;
INSERT INTO project_queues (project_id, n_waiting, n_running)
SELECT project_id,
       count(*) FILTER (WHERE lease_token IS NULL AND status IN ('validating_files', 'queued')),
       count(*) FILTER (WHERE lease_token IS NOT NULL)
FROM jobs GROUP BY project_id;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;

ALTER TABLE project_queues ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_queues FORCE ROW LEVEL SECURITY;
GRANT SELECT ON project_queues TO app_tenant;
CREATE POLICY tenant_isolation ON project_queues TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
-- UPDATE is what locking a row asks for.
GRANT SELECT, UPDATE ON project_queues TO app_worker;
CREATE POLICY worker_all ON project_queues TO app_worker USING (true);
GRANT SELECT, INSERT, UPDATE ON project_queues TO app_operator;
CREATE POLICY operator_all ON project_queues TO app_operator USING (true);
-- The two functions below run as their owner, which nobody can log in as or become but who migrates.
CREATE POLICY owner_all ON project_queues TO attune_owner USING (true);

-- Keeps the counts and the clock beside the jobs, in the transaction that moves a job and whoever moves it: a count
-- that some statement forgot would hold a project's jobs back for good.
CREATE FUNCTION count_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
    WHERE project_id = mine;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION count_job() FROM PUBLIC;
CREATE TRIGGER count_new_job AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION count_job();
-- A heartbeat changes neither, and must not come here.
CREATE TRIGGER count_moved_job AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status OR (OLD.lease_token IS NULL) <> (NEW.lease_token IS NULL))
    EXECUTE FUNCTION count_job();

-- How many jobs will be claimed before the asking project's `n_own`-th, if nothing is added: a number, and nothing else
-- of what others have.
CREATE FUNCTION jobs_ahead(n_own bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asking AS (
        SELECT NULLIF(current_setting('app.project_id', true), '')::uuid AS project_id
    ), mine AS (
        SELECT a.project_id, COALESCE(q.priority, 0) AS priority, COALESCE(q.weight, 1) AS weight,
               -- With nothing waiting, its clock will go on from now.
               greatest(q.virtual_time, CASE WHEN COALESCE(q.n_waiting, 0) = 0 THEN
                   (SELECT max(served_virtual_time) FROM project_queues) END, 0) AS virtual_time
        FROM asking a LEFT JOIN project_queues q USING (project_id)
    )
    SELECT n_own + COALESCE(sum(
        CASE
            WHEN other.priority > mine.priority THEN other.n_waiting
            WHEN other.priority < mine.priority THEN 0
            ELSE least(
                other.n_waiting,
                greatest(0, ceil((mine.virtual_time + n_own / mine.weight - other.virtual_time) * other.weight))
            )
        END
    ), 0)::bigint
    FROM mine JOIN project_queues other ON other.n_waiting > 0 AND other.project_id <> mine.project_id
$$;
REVOKE ALL ON FUNCTION jobs_ahead(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION jobs_ahead(bigint) TO app_tenant;

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    device text NOT NULL CHECK (device IN ('cpu', 'cuda')),
    memory_bytes bigint NOT NULL CHECK (memory_bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE workers IS 'Processes that claim jobs. The installation''s, not a tenant''s: no row security.';
COMMENT ON COLUMN workers.id IS 'Of the process: names repeat.';
COMMENT ON COLUMN workers.updated_at IS 'When it was last heard of.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON workers FOR EACH ROW EXECUTE FUNCTION set_updated_at();
GRANT SELECT, INSERT, UPDATE, DELETE ON workers TO app_worker;
-- So that a new job can say that nobody could take it.
GRANT SELECT (id, device, memory_bytes, updated_at) ON workers TO app_tenant;
GRANT SELECT ON workers TO app_operator;

ALTER TABLE projects ADD COLUMN compat text CHECK (compat = 'openai');
COMMENT ON COLUMN projects.compat IS '''openai'': show only what OpenAI''s own enumerations have, as if each request said so. NULL: show all.';

RESET ROLE;
