-- An attempt that goes on from a checkpoint repeats the steps after it, and their events were deleted so that each step is
-- told once. A client that had been told one of them and lost its connection could not go on from there. Now they are
-- withdrawn: no longer told, but a place to go on from.

SET LOCAL ROLE attune_owner;

ALTER TABLE job_events ADD COLUMN withdrawn_at timestamptz;
COMMENT ON COLUMN job_events.withdrawn_at IS 'When an attempt began to repeat the step that it tells of. NULL: it counts. A withdrawn event is not told, but its id stays a cursor.';

-- job_events_listing stays as it is. What it passes over are the steps between a checkpoint and the end of an attempt, and
-- whatever asks for the latest events finds what the next attempt said before it meets them.

-- What was told is never changed. Workers of the release before still delete; that right can go with the next.
REVOKE UPDATE ON job_events FROM app_tenant;
GRANT UPDATE (withdrawn_at) ON job_events TO app_tenant;
GRANT SELECT (withdrawn_at) ON job_events TO app_feed;

RESET ROLE;
