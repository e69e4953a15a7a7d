-- How fast an installation trains a base model, for the estimates of projects that have not trained it themselves.

SET LOCAL ROLE attune_owner;

ALTER TABLE jobs ADD COLUMN device text CHECK (device IN ('cpu', 'cuda'));
COMMENT ON COLUMN jobs.device IS 'The kind of worker that claimed it last. NULL: none did, or one of a release that did not say.';

CREATE INDEX jobs_succeeded_of_all ON jobs (base_model, created_at DESC) WHERE status = 'succeeded';

-- For the functions below, which run as their owner. Nobody can log in as that role or become it but who migrates.
CREATE POLICY owner_measures ON jobs FOR SELECT TO attune_owner USING (true);
CREATE POLICY owner_measures ON job_metrics FOR SELECT TO attune_owner USING (true);

-- Two digits: enough for an estimate, and too few to tell anything of the jobs that it comes from.
CREATE FUNCTION two_digits(number double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN number > 0 THEN round(number::numeric, 1 - floor(log(number))::integer) END
$$;

-- Tokens a second in the latest steps of the installation's latest jobs on a base model, of whichever project, on workers
-- of one kind or (NULL) of any; NULL before the first.
CREATE FUNCTION training_speed(of_base text, on_device text) RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT two_digits(sum(m.n_tokens) * 1000 / NULLIF(sum(m.step_ms), 0))
    FROM (SELECT project_id, id FROM jobs
          WHERE base_model = of_base AND status = 'succeeded'
            AND (on_device IS NULL OR COALESCE(device, needs_device) = on_device)
          ORDER BY created_at DESC LIMIT 5) AS j
    CROSS JOIN LATERAL (SELECT n_tokens, step_ms FROM job_metrics
                        WHERE project_id = j.project_id AND job_id = j.id
                        ORDER BY step DESC LIMIT 200) AS m
$$;
REVOKE ALL ON FUNCTION training_speed(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION training_speed(text, text) TO app_tenant;

-- The same from the base model that is nearest in size and was trained, scaled: a token takes time as its model has
-- parameters. Beyond eight times the size it does not, so nothing is said.
CREATE FUNCTION training_speed_by_size(of_params bigint, on_device text) RETURNS double precision
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT two_digits(near.speed * near.n_params / of_params)
    FROM (SELECT b.n_params, training_speed(b.name, on_device) AS speed
          FROM base_models b
          WHERE b.n_params BETWEEN of_params / 8 AND of_params * 8) AS near
    WHERE near.speed IS NOT NULL
    ORDER BY abs(ln(near.n_params::double precision / of_params)) LIMIT 1
$$;
REVOKE ALL ON FUNCTION training_speed_by_size(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION training_speed_by_size(bigint, text) TO app_tenant;

RESET ROLE;
