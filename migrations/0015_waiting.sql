SET LOCAL ROLE attune_owner;

-- That nobody can take a job is told once, and so is that somebody can again.
ALTER TABLE jobs ADD COLUMN stranded_at timestamptz;
COMMENT ON COLUMN jobs.stranded_at IS 'When its tenant was told that no worker can take it, by the database''s clock. NULL: one can, or nothing was told.';
CREATE INDEX jobs_stranded ON jobs (stranded_at)
    WHERE stranded_at IS NOT NULL AND lease_token IS NULL AND status IN ('validating_files', 'queued');

ALTER TABLE workers ADD COLUMN left_at timestamptz;
COMMENT ON COLUMN workers.left_at IS 'When it took its leave; NULL: it has not. Its row stays for a while, since another may be on its way to take its place.';

ALTER TABLE jobs ADD COLUMN last_failure jsonb;
COMMENT ON COLUMN jobs.last_failure IS '{attempt, message}: the latest temporary failure that a worker reported. NULL: none did.';

RESET ROLE;
