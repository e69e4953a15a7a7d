-- Who may do what inside an organization: users and their roles per project, service accounts, what a key is limited
-- to, and models that one project lets another use. An administrator of an organization works as `app_org`, which sees
-- the rows of the organization that app.org_id names and no others.

-- As in the first migration: roles belong to the cluster, and another database may be creating them at this moment.
CREATE OR REPLACE FUNCTION pg_temp.ensure_role(role_name text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I %s', role_name, options);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pg_temp.ensure_member(group_name text, member_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_auth_members
        WHERE roleid = group_name::regrole AND member = member_name::regrole
    ) THEN
        EXECUTE format('GRANT %I TO %I', group_name, member_name);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- Administers the organization named by app.org_id.
SELECT pg_temp.ensure_role('app_org', 'NOLOGIN');
SELECT pg_temp.ensure_member('app_org', 'attune_api');
GRANT USAGE ON SCHEMA public TO app_org;

SET LOCAL ROLE attune_owner;

ALTER TABLE organizations ADD COLUMN archived_at timestamptz;
COMMENT ON COLUMN organizations.archived_at IS 'Since when none of its keys and users is let in. NULL: in use.';
ALTER TABLE projects ADD COLUMN archived_at timestamptz;
COMMENT ON COLUMN projects.archived_at IS 'Since when nobody is let into it. Its rows and objects stay. NULL: in use.';

CREATE TABLE users (
    id uuid PRIMARY KEY,
    org_id uuid NOT NULL REFERENCES organizations (id),
    email text NOT NULL CHECK (email <> '' AND email = lower(email)),
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'reader')),
    issuer text,
    subject text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz,
    deleted_at timestamptz,
    UNIQUE (org_id, id),
    UNIQUE (org_id, email),
    UNIQUE (org_id, issuer, subject),
    CONSTRAINT a_subject_has_an_issuer CHECK ((issuer IS NULL) = (subject IS NULL))
);
CREATE INDEX users_by_subject ON users (issuer, subject);
CREATE INDEX users_by_email ON users (email);
COMMENT ON TABLE users IS 'People of an organization. They come with a token of the identity provider, never with a password.';
COMMENT ON COLUMN users.role IS 'In the organization: an owner administers it. What a user may do in a project stands in project_members.';
COMMENT ON COLUMN users.subject IS 'What the issuer calls the user. NULL until the first token whose verified email is this one.';
COMMENT ON COLUMN users.last_seen_at IS 'To the minute.';
COMMENT ON COLUMN users.deleted_at IS 'A removed user keeps the row, so that the next token does not make it anew.';

CREATE TABLE project_members (
    project_id uuid NOT NULL,
    user_id uuid NOT NULL,
    org_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    FOREIGN KEY (org_id, user_id) REFERENCES users (org_id, id)
);
CREATE INDEX project_members_by_user ON project_members (user_id);
COMMENT ON TABLE project_members IS 'Roles that were set here. Roles that follow from a token''s groups are not stored: they end with the token.';

CREATE TABLE service_accounts (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    org_id uuid NOT NULL,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (project_id, id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id)
);
COMMENT ON TABLE service_accounts IS 'Programs with a role in one project. Their keys have no role of their own.';
COMMENT ON COLUMN service_accounts.deleted_at IS 'Since when its keys are refused.';

ALTER TABLE api_keys
    ADD COLUMN role text NOT NULL DEFAULT 'owner' CHECK (role IN ('owner', 'member', 'viewer')),
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{}'
        CHECK (scopes <@ ARRAY['files', 'jobs', 'inference', 'read_only']),
    ADD COLUMN service_account_id uuid,
    ADD COLUMN replaces uuid REFERENCES api_keys (id),
    ADD FOREIGN KEY (project_id, service_account_id) REFERENCES service_accounts (project_id, id);
CREATE INDEX api_keys_by_project ON api_keys (project_id, id) WHERE project_id IS NOT NULL;
CREATE INDEX api_keys_by_service_account ON api_keys (service_account_id) WHERE service_account_id IS NOT NULL;
COMMENT ON COLUMN api_keys.role IS 'Of a key without a service account, in its project.';
COMMENT ON COLUMN api_keys.scopes IS 'What the key is limited to. Empty: to nothing.';
COMMENT ON COLUMN api_keys.replaces IS 'The key whose rotation made this one. That one expires after the grace it was given.';

CREATE TABLE checkpoint_permissions (
    id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    org_id uuid NOT NULL,
    owner_project_id uuid NOT NULL,
    model_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id),
    UNIQUE (model_id, project_id),
    FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, id),
    FOREIGN KEY (org_id, owner_project_id) REFERENCES projects (org_id, id),
    FOREIGN KEY (owner_project_id, model_id) REFERENCES fine_tuned_models (project_id, id)
        ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE checkpoint_permissions IS 'Models that a project may use though another project of the organization owns them.';
COMMENT ON COLUMN checkpoint_permissions.project_id IS 'Who may use the model.';
COMMENT ON COLUMN checkpoint_permissions.owner_project_id IS 'Whose model it is. Never of another organization: both keys name org_id.';

CREATE TRIGGER set_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON project_members FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON service_accounts FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON checkpoint_permissions FOR EACH ROW EXECUTE FUNCTION set_updated_at();

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
ALTER TABLE project_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE project_members FORCE ROW LEVEL SECURITY;
ALTER TABLE service_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE service_accounts FORCE ROW LEVEL SECURITY;
ALTER TABLE checkpoint_permissions ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkpoint_permissions FORCE ROW LEVEL SECURITY;

-- A project sees what it was given, and through that the model itself: to read, not to change or delete.
GRANT SELECT ON checkpoint_permissions TO app_tenant;
CREATE POLICY tenant_isolation ON checkpoint_permissions TO app_tenant
    USING (project_id = (SELECT NULLIF(current_setting('app.project_id', true), '')::uuid));
CREATE POLICY permitted ON fine_tuned_models FOR SELECT TO app_tenant
    USING (id IN (SELECT model_id FROM checkpoint_permissions));

-- Authentication turns a secret or a token's subject into who it is, and notes that it was seen.
GRANT SELECT ON users, project_members, service_accounts TO app_auth;
GRANT INSERT ON users TO app_auth;
GRANT UPDATE (issuer, subject, last_seen_at) ON users TO app_auth;
CREATE POLICY auth_all ON users TO app_auth USING (true);
CREATE POLICY auth_all ON project_members FOR SELECT TO app_auth USING (true);
CREATE POLICY auth_all ON service_accounts FOR SELECT TO app_auth USING (true);

GRANT SELECT, INSERT, UPDATE ON users, service_accounts TO app_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON project_members TO app_operator;
CREATE POLICY operator_all ON users TO app_operator USING (true);
CREATE POLICY operator_all ON project_members TO app_operator USING (true);
CREATE POLICY operator_all ON service_accounts TO app_operator USING (true);

-- No hash of a secret can be read by whoever administers an organization over HTTP.
GRANT SELECT ON organizations, projects TO app_org;
GRANT INSERT ON projects TO app_org;
GRANT UPDATE (name, archived_at) ON projects TO app_org;
GRANT SELECT (id, org_id, project_id, name, kind, prefix, created_at, updated_at, last_used_at, expires_at, revoked_at,
    role, scopes, service_account_id, replaces) ON api_keys TO app_org;
GRANT INSERT ON api_keys TO app_org;
GRANT UPDATE (name, expires_at, revoked_at) ON api_keys TO app_org;
GRANT SELECT, INSERT, UPDATE ON users, service_accounts TO app_org;
GRANT SELECT, INSERT, UPDATE, DELETE ON project_members TO app_org;
GRANT SELECT, INSERT, DELETE ON checkpoint_permissions TO app_org;
GRANT SELECT (id, project_id, name, deleted_at) ON fine_tuned_models TO app_org;
CREATE POLICY org_isolation ON organizations FOR SELECT TO app_org
    USING (id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON projects TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON api_keys TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON users TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON project_members TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON service_accounts TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
CREATE POLICY org_isolation ON checkpoint_permissions TO app_org
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
-- The inner query runs under the policy above, so it finds the organization's projects.
CREATE POLICY org_isolation ON fine_tuned_models FOR SELECT TO app_org
    USING (project_id IN (SELECT projects.id FROM projects));

RESET ROLE;
