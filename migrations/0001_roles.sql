-- Who may do what. Roles belong to the whole cluster, not to this database: they may exist already, and another
-- database of the same cluster may be creating them at this moment (tests do). An advisory lock would not help, since
-- its key space is one database's; so each step expects to find its work done.
--
-- Group roles hold the rights; login roles hold none, do not inherit, and own nothing. A statement outside a
-- transaction that took on a group role is therefore "permission denied" and never a leak.

CREATE FUNCTION pg_temp.ensure_role(role_name text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('CREATE ROLE %I %s', role_name, options);
    END IF;
EXCEPTION
    -- The second is what a race looks like: both looked, both inserted.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

CREATE FUNCTION pg_temp.ensure_member(group_name text, member_name text) RETURNS void LANGUAGE plpgsql AS $$
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

-- Owns every table; migrations run as it.
SELECT pg_temp.ensure_role('attune_owner', 'NOLOGIN');
-- Sees the rows of the project named by app.project_id.
SELECT pg_temp.ensure_role('app_tenant', 'NOLOGIN');
-- Runs the queue: claims, extends and reaps leases of every project.
SELECT pg_temp.ensure_role('app_worker', 'NOLOGIN');
-- Turns an API key into the project it belongs to.
SELECT pg_temp.ensure_role('app_auth', 'NOLOGIN');
-- Makes organizations, projects, keys and base models. No service's login may become it.
SELECT pg_temp.ensure_role('app_operator', 'NOLOGIN');

SELECT pg_temp.ensure_role('attune_api', 'LOGIN NOINHERIT');
SELECT pg_temp.ensure_role('attune_worker', 'LOGIN NOINHERIT');
SELECT pg_temp.ensure_role('attune_inference', 'LOGIN NOINHERIT');

SELECT pg_temp.ensure_member('app_tenant', 'attune_api');
SELECT pg_temp.ensure_member('app_auth', 'attune_api');
SELECT pg_temp.ensure_member('app_worker', 'attune_worker');
SELECT pg_temp.ensure_member('app_tenant', 'attune_worker');
SELECT pg_temp.ensure_member('app_tenant', 'attune_inference');

-- Whoever migrates must be able to become the owner and the operator. A superuser can anyway.
SELECT pg_temp.ensure_member(group_name, current_user::text)
FROM unnest(ARRAY['attune_owner', 'app_operator']) AS group_name
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);

GRANT USAGE, CREATE ON SCHEMA public TO attune_owner;
GRANT USAGE ON SCHEMA public TO app_tenant, app_worker, app_auth, app_operator;
