SET LOCAL ROLE attune_owner;

CREATE TABLE uploads (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL REFERENCES projects (id),
    filename text NOT NULL,
    purpose text NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    expires_after_secs bigint CHECK (expires_after_secs > 0),
    status text NOT NULL CHECK (status IN ('pending', 'completed', 'cancelled', 'expired')),
    part_ids uuid[],
    md5 text,
    file_id uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (project_id, id),
    CONSTRAINT a_completed_upload_names_its_file CHECK (
        (status = 'completed') = (file_id IS NOT NULL) AND (status = 'completed') = (part_ids IS NOT NULL)
    )
);
CREATE INDEX uploads_expiring ON uploads (expires_at) WHERE status = 'pending';
COMMENT ON TABLE uploads IS 'Files that come in parts. A completed upload has become a row of files.';
COMMENT ON COLUMN uploads.size_bytes IS 'As declared at the beginning. The parts that make the file add up to exactly this.';
COMMENT ON COLUMN uploads.expires_after_secs IS 'When the file, not the upload, expires after its making. NULL: never.';
COMMENT ON COLUMN uploads.part_ids IS 'What it was completed with, in order: a client that asks the same again gets the same answer.';
COMMENT ON COLUMN uploads.md5 IS 'As the client claimed it when it completed the upload; NULL if it did not.';
COMMENT ON COLUMN uploads.file_id IS 'No foreign key: the file may be deleted, the upload stays.';
COMMENT ON COLUMN uploads.expires_at IS 'No part is taken after this.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON uploads FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE upload_parts (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    upload_id uuid NOT NULL,
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, upload_id, id),
    FOREIGN KEY (project_id, upload_id) REFERENCES uploads (project_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE upload_parts IS 'Parts of pending uploads, each an object. They go when the upload is no longer pending.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON upload_parts FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE batches (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL REFERENCES projects (id),
    endpoint text NOT NULL,
    completion_window text NOT NULL,
    input_file uuid NOT NULL,
    output_expires_after_secs bigint CHECK (output_expires_after_secs > 0),
    metadata jsonb,
    status text NOT NULL CHECK (
        status IN ('validating', 'in_progress', 'finalizing', 'completed', 'failed', 'expired', 'cancelling', 'cancelled')
    ),
    model text,
    errors jsonb,
    n_total bigint NOT NULL DEFAULT 0 CHECK (n_total >= 0),
    n_completed bigint NOT NULL DEFAULT 0 CHECK (n_completed >= 0),
    n_failed bigint NOT NULL DEFAULT 0 CHECK (n_failed >= 0),
    input_tokens bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    cached_tokens bigint NOT NULL DEFAULT 0 CHECK (cached_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    reasoning_tokens bigint NOT NULL DEFAULT 0 CHECK (reasoning_tokens >= 0),
    output_file uuid,
    error_file uuid,
    last_turn_at timestamptz NOT NULL DEFAULT '-infinity',
    lease_token uuid,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    in_progress_at timestamptz,
    finalizing_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    cancelling_at timestamptz,
    cancelled_at timestamptz,
    PRIMARY KEY (project_id, id),
    CONSTRAINT a_batch_lease_has_an_end CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CONSTRAINT a_final_batch_has_no_lease CHECK (
        status NOT IN ('completed', 'failed', 'expired', 'cancelled') OR lease_token IS NULL
    )
);
CREATE INDEX batches_listing ON batches (project_id, created_at DESC, id DESC);
CREATE INDEX batches_open ON batches (last_turn_at, created_at, id)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling');
COMMENT ON TABLE batches IS 'Chat completions asked for by the file. Worked off in turns, each under a lease.';
COMMENT ON COLUMN batches.input_file IS 'No foreign key: a finished batch outlives its input.';
COMMENT ON COLUMN batches.output_expires_after_secs IS 'Of the files it makes. NULL: they stay.';
COMMENT ON COLUMN batches.model IS 'That of the first line; NULL until the input was read.';
COMMENT ON COLUMN batches.errors IS 'Array of {code, line, message, param}: why the input was refused. NULL unless failed.';
COMMENT ON COLUMN batches.n_completed IS 'Lines answered well. With n_failed and the tokens it is counted in the transaction that records the line.';
COMMENT ON COLUMN batches.last_turn_at IS 'When it was last worked on, by the database''s clock: whoever waits longest is next. -infinity is never.';
COMMENT ON COLUMN batches.lease_token IS 'The fence of the current turn; NULL when nobody works on it.';
COMMENT ON COLUMN batches.lease_expires_at IS 'By the database''s clock. NULL without a lease.';
COMMENT ON COLUMN batches.expires_at IS 'The end of the completion window; what is not answered by then is not answered.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON batches FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE batch_lines (
    project_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    line bigint NOT NULL CHECK (line > 0),
    custom_id text NOT NULL,
    start_byte bigint NOT NULL CHECK (start_byte >= 0),
    n_bytes bigint NOT NULL CHECK (n_bytes > 0),
    answer text,
    is_error boolean,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, batch_id, line),
    FOREIGN KEY (project_id, batch_id) REFERENCES batches (project_id, id) ON DELETE CASCADE,
    CONSTRAINT an_answer_goes_to_one_file CHECK ((answer IS NULL) = (is_error IS NULL))
);
CREATE INDEX batch_lines_waiting ON batch_lines (project_id, batch_id, line) WHERE answer IS NULL;
COMMENT ON TABLE batch_lines IS 'The requests of batches that are under way. They go when the output files are written.';
COMMENT ON COLUMN batch_lines.line IS 'In the input file, from 1.';
COMMENT ON COLUMN batch_lines.start_byte IS 'Where the line begins in the input file: requests are read from there, not kept here.';
COMMENT ON COLUMN batch_lines.answer IS 'The line of the output or the error file, whole. Written once; NULL until then.';
COMMENT ON COLUMN batch_lines.is_error IS 'Which file it goes to.';
CREATE TRIGGER set_updated_at BEFORE UPDATE ON batch_lines FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE uploads ENABLE ROW LEVEL SECURITY;
ALTER TABLE uploads FORCE ROW LEVEL SECURITY;
ALTER TABLE upload_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE upload_parts FORCE ROW LEVEL SECURITY;
ALTER TABLE batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE batches FORCE ROW LEVEL SECURITY;
ALTER TABLE batch_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE batch_lines FORCE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE ON uploads, batches TO app_tenant;
GRANT SELECT, INSERT, DELETE ON upload_parts TO app_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_lines TO app_tenant;
CREATE POLICY tenant_isolation ON uploads TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON upload_parts TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON batches TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON batch_lines TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));

-- The sweep looks for uploads whose time is over; the loop that answers batches takes turns over every project's.
GRANT SELECT ON uploads TO app_worker;
GRANT SELECT, UPDATE ON batches TO app_worker;
CREATE POLICY worker_all ON uploads FOR SELECT TO app_worker USING (true);
CREATE POLICY worker_all ON batches TO app_worker USING (true);

RESET ROLE;
