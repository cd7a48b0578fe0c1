-- Travel: the state of every package at the end of past days, against the log.
--
-- The import recorded all events just now; the log tells when they occurred.

CREATE FUNCTION package_step(state jsonb, event event_store.event) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (event).type = 'PackageStatusChanged'
                THEN jsonb_build_object('status', (event).data ->> 'status',
                                        'version', (event).data ->> 'version')
                ELSE state END;
SELECT event_store.create_aggregate('package', 'package_step(jsonb, event_store.event)') \g /dev/null

-- Ten days at most, the last one among them.
CREATE TEMP TABLE past AS
SELECT max(day_end) AS day_end
  FROM (SELECT day_end, ntile(10) OVER (ORDER BY day_end) AS tenth
          FROM (SELECT DISTINCT date_trunc('day', occurred_at) + interval '1 day' AS day_end
                  FROM packages) AS day) AS tenths
 GROUP BY tenth;

SELECT clock_timestamp() AS started \gset
CREATE TEMP TABLE past_state AS
SELECT day_end, stream, state ->> 'status' AS status, state ->> 'version' AS version
  FROM past, event_store.load_category('packages', 'package', 'package', occurred_as_of => day_end)
 WHERE state ? 'status';
SELECT format('loaded %s states of %s packages at the end of %s past days in %s ms', count(*),
              count(DISTINCT stream), count(DISTINCT day_end),
              round(1000 * extract(epoch FROM clock_timestamp() - :'started')))
  FROM past_state;

CREATE TEMP TABLE past_log AS
SELECT DISTINCT ON (day_end, stream)
       day_end, stream, data ->> 'status' AS status, data ->> 'version' AS version
  FROM past JOIN event ON occurred_at <= day_end
 WHERE type = 'PackageStatusChanged'
 ORDER BY day_end, stream, occurred_at DESC, number DESC;
DO $$
BEGIN
    IF EXISTS (TABLE past_state EXCEPT TABLE past_log)
       OR EXISTS (TABLE past_log EXCEPT TABLE past_state) THEN
        RAISE EXCEPTION 'the past is not what the log says';
    END IF;
END $$;
SELECT 'every one is what the log says';

\a \t
\echo What became of one package with each event:
SELECT version, path, before, after
  FROM (SELECT stream FROM packages WHERE stream <> 'dpkg-run'
         GROUP BY stream ORDER BY count(*) DESC, stream LIMIT 1) AS most
 CROSS JOIN LATERAL (SELECT version FROM event_store.read_stream('packages', stream)) AS e
 CROSS JOIN LATERAL event_store.diff_state('packages', stream, 'package', version - 1, version)
 ORDER BY version, path LIMIT 8;
\a \t
