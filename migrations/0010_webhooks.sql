SET LOCAL ROLE attune_owner;

CREATE TABLE webhook_endpoints (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL REFERENCES projects (id),
    name text NOT NULL,
    url text NOT NULL,
    event_types text[] NOT NULL CHECK (cardinality(event_types) > 0),
    secret bytea NOT NULL,
    secret_hint text NOT NULL,
    old_secret bytea,
    old_secret_expires_at timestamptz,
    failing_since timestamptz,
    last_failure text,
    disabled_at timestamptz,
    configured_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    CONSTRAINT an_old_secret_has_an_end CHECK ((old_secret IS NULL) = (old_secret_expires_at IS NULL))
);
CREATE INDEX webhook_endpoints_listing ON webhook_endpoints (project_id, created_at DESC, id DESC);
COMMENT ON TABLE webhook_endpoints IS 'Addresses that are told when a job or a batch ends.';
COMMENT ON COLUMN webhook_endpoints.secret IS 'Sealed; what deliveries are signed with.';
COMMENT ON COLUMN webhook_endpoints.secret_hint IS 'The secret''s end, by which people recognise it.';
COMMENT ON COLUMN webhook_endpoints.old_secret IS 'Sealed; signs beside the new one for a day after a rotation that asked for it.';
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'The first failure since the last success. NULL while all is well.';
COMMENT ON COLUMN webhook_endpoints.disabled_at IS 'Nothing is told any more since then, because nobody listened for days. An update enables it again.';
COMMENT ON COLUMN webhook_endpoints.configured_at IS 'What clients see as updated_at: the last change of the settings or the secret.';

CREATE TABLE webhook_deliveries (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    object_id text NOT NULL,
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    FOREIGN KEY (project_id, endpoint_id) REFERENCES webhook_endpoints (project_id, id) ON DELETE CASCADE
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (project_id, endpoint_id, next_attempt_at);
COMMENT ON TABLE webhook_deliveries IS 'The outbox: one row per event and endpoint, written with the change it tells of, gone once told or given up.';
COMMENT ON COLUMN webhook_deliveries.id IS 'The header webhook-id: the same in every attempt.';
COMMENT ON COLUMN webhook_deliveries.event_id IS 'The same for every endpoint that is told of the event.';
COMMENT ON COLUMN webhook_deliveries.attempt IS 'How often it was taken on. A deliverer that comes back late finds it changed and writes nothing.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'By the database''s clock. While somebody delivers, when to take that one for dead.';

CREATE TRIGGER set_updated_at BEFORE UPDATE ON webhook_endpoints FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON webhook_deliveries FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries FORCE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints TO app_tenant;
GRANT SELECT, INSERT ON webhook_deliveries TO app_tenant;
CREATE POLICY tenant_isolation ON webhook_endpoints TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY tenant_isolation ON webhook_deliveries TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));

-- Jobs that the queue fails are told of too, and one loop delivers for every project.
GRANT SELECT, UPDATE ON webhook_endpoints TO app_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO app_worker;
CREATE POLICY worker_all ON webhook_endpoints TO app_worker USING (true);
CREATE POLICY worker_all ON webhook_deliveries TO app_worker USING (true);

-- `attune admin secrets rotate` seals again what an older key sealed.
GRANT SELECT (id, project_id, secret, old_secret), UPDATE (secret, old_secret) ON webhook_endpoints TO app_operator;
CREATE POLICY operator_all ON webhook_endpoints TO app_operator USING (true);

RESET ROLE;
