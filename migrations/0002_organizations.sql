SET LOCAL ROLE attune_owner;

CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE organizations IS 'One customer of this installation.';
COMMENT ON COLUMN organizations.slug IS 'Part of the name of every model that the organization trains.';

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations (id),
    name text NOT NULL,
    slug text NOT NULL CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org_id, slug),
    UNIQUE (org_id, id)
);
COMMENT ON TABLE projects IS 'The tenant. Its id is the project_id of everything a tenant owns.';

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations (id),
    project_id uuid,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('project', 'admin')),
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz,
    CHECK ((kind = 'project') = (project_id IS NOT NULL)),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id)
);
CREATE INDEX api_keys_by_org ON api_keys (org_id, created_at);
COMMENT ON COLUMN api_keys.project_id IS 'NULL for an admin key, which belongs to the organization.';
COMMENT ON COLUMN api_keys.prefix IS 'The first characters of the secret, for people to tell keys apart.';
COMMENT ON COLUMN api_keys.hash IS 'HMAC-SHA256 of the secret under the server''s pepper. The secret is not stored.';
COMMENT ON COLUMN api_keys.last_used_at IS 'To the minute: a write for every request would be a queue at this row.';
COMMENT ON COLUMN api_keys.expires_at IS 'NULL: never.';

CREATE TRIGGER set_updated_at BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE projects FORCE ROW LEVEL SECURITY;
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;

GRANT SELECT ON organizations, projects TO app_tenant;
CREATE POLICY tenant_isolation ON projects TO app_tenant
    USING (id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
-- The inner query runs under the policy above, so it finds one project or none.
CREATE POLICY tenant_isolation ON organizations TO app_tenant
    USING (id = (SELECT projects.org_id FROM projects));

GRANT SELECT ON organizations, projects, api_keys TO app_auth;
GRANT UPDATE (last_used_at) ON api_keys TO app_auth;
CREATE POLICY auth_all ON organizations FOR SELECT TO app_auth USING (true);
CREATE POLICY auth_all ON projects FOR SELECT TO app_auth USING (true);
CREATE POLICY auth_all ON api_keys TO app_auth USING (true);

GRANT SELECT, INSERT, UPDATE ON organizations, projects, api_keys TO app_operator;
CREATE POLICY operator_all ON organizations TO app_operator USING (true);
CREATE POLICY operator_all ON projects TO app_operator USING (true);
CREATE POLICY operator_all ON api_keys TO app_operator USING (true);

RESET ROLE;
