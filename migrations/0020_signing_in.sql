-- Who signs in for the first time becomes a user, or is known by their subject from then on. The transaction that does it
-- writes it down, too.

SET LOCAL ROLE attune_owner;

-- As before, but for app_auth.
CREATE OR REPLACE FUNCTION append_audit(
    the_org uuid, the_project uuid, the_time timestamptz, the_actor_kind text, the_actor_id text, the_actor_name text,
    the_key text, the_address text, the_request text, the_action text, the_object_kind text, the_object_id text,
    the_details text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    project uuid := the_project;
    head audit_heads;
    fresh bytea;
BEGIN
    -- The role of the transaction, not of this function.
    CASE current_setting('role')
        WHEN 'app_tenant' THEN
            -- Whose project it is, is held by the foreign key.
            project := NULLIF(current_setting('app.project_id', true), '')::uuid;
            IF project IS NULL THEN
                RAISE EXCEPTION 'no project is set' USING ERRCODE = 'insufficient_privilege';
            END IF;
        WHEN 'app_org' THEN
            IF the_org IS DISTINCT FROM NULLIF(current_setting('app.org_id', true), '')::uuid THEN
                RAISE EXCEPTION 'another organization' USING ERRCODE = 'insufficient_privilege';
            END IF;
        WHEN 'app_auth' THEN
            -- All that signing in changes. Users do it to themselves, and in no project.
            IF the_action NOT IN ('user.added', 'user.linked') OR the_actor_kind <> 'user'
                OR the_object_id <> the_actor_id OR project IS NOT NULL THEN
                RAISE EXCEPTION 'signing in does no such thing' USING ERRCODE = 'insufficient_privilege';
            END IF;
        WHEN 'app_operator' THEN
            NULL;
        ELSE
            RAISE EXCEPTION 'this role writes no audit log' USING ERRCODE = 'insufficient_privilege';
    END CASE;

    INSERT INTO audit_heads (org_id) VALUES (the_org) ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM audit_heads WHERE org_id = the_org FOR UPDATE;
    head.seq := head.seq + 1;
    fresh := sha256(
        convert_to('attune audit v1', 'UTF8') || head.hash
        || audit_field('org-' || replace(the_org::text, '-', ''))
        || audit_field(head.seq::text)
        || audit_field(to_char(the_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || audit_field(the_actor_kind) || audit_field(the_actor_id) || audit_field(the_actor_name)
        || audit_field(the_key) || audit_field(the_address) || audit_field(the_request)
        || audit_field(the_action) || audit_field(the_object_kind) || audit_field(the_object_id)
        || audit_field('proj_' || replace(project::text, '-', ''))
        || audit_field(the_details)
    );
    INSERT INTO audit_log (org_id, seq, at, actor_kind, actor_id, actor_name, key_id, address, request_id, action,
        object_kind, object_id, project_id, details, prev_hash, hash)
    VALUES (the_org, head.seq, the_time, the_actor_kind, the_actor_id, the_actor_name, the_key, the_address,
        the_request, the_action, the_object_kind, the_object_id, project, the_details::json, head.hash, fresh);
    UPDATE audit_heads SET seq = head.seq, hash = fresh WHERE org_id = the_org;
END
$$;
GRANT EXECUTE ON FUNCTION append_audit TO app_auth;

RESET ROLE;
