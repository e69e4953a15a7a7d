SET LOCAL ROLE attune_owner;

-- How the jobs of the last minutes ended, whoever's they are: alarms go by it.
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;

RESET ROLE;
