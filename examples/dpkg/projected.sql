-- Projected: what the projection of project.sql has counted meanwhile, and what
-- can be done with it.

SELECT event_store.wait_for_projection('package_activity') AS in_background \gset
\if :in_background
\else
\echo no background workers (shared_preload_libraries): the projection is run by hand
SELECT FROM event_store.run_projection('package_activity') \g /dev/null
\endif
SELECT format('the projection has counted %s installations and upgrades of %s days',
              sum(installed) + sum(upgraded), count(*))
  FROM package_activity;
CREATE TEMP VIEW log_activity AS
SELECT (occurred_at AT TIME ZONE 'UTC')::date AS since,
       count(*) FILTER (WHERE type = 'PackageInstallStarted') AS installed,
       count(*) FILTER (WHERE type = 'PackageUpgradeStarted') AS upgraded,
       count(*) FILTER (WHERE type = 'PackageRemoveStarted') AS removed
  FROM packages
 WHERE type IN ('PackageInstallStarted', 'PackageUpgradeStarted', 'PackageRemoveStarted')
 GROUP BY 1;
DO $$
BEGIN
    IF EXISTS (TABLE package_activity EXCEPT TABLE log_activity)
       OR EXISTS (TABLE log_activity EXCEPT TABLE package_activity) THEN
        RAISE EXCEPTION 'the projection is not what the log says';
    END IF;
END $$;
SELECT 'every day is what the log says';

\a \t
\echo The last days, as the database has counted them:
SELECT * FROM package_activity ORDER BY since DESC LIMIT 5;

\echo What it says of itself:
SELECT name, mode, status, position, lag_events, events, batches, errors, parked
  FROM event_store.projections;
\a \t

-- Read-your-writes: whoever appends waits for his position, and then reads.
SELECT last_position
  FROM event_store.append('packages', 'package-hello', 'PackageInstallStarted', '{"available": "2.10-3"}',
                          occurred_at => '2038-01-19 03:14:07+00') \gset
SELECT event_store.wait_for_projection('package_activity', :last_position) AS in_background \gset
\if :in_background
\else
SELECT FROM event_store.run_projection('package_activity') \g /dev/null
\endif
SELECT format('appended at position %s, and read %s installation on %s', :last_position, installed, since)
  FROM package_activity WHERE since = '2038-01-19';

-- Years instead of days: from now on, and by a rebuild also for the past.
SELECT event_store.alter_projection('package_activity', $$
    INSERT INTO package_activity AS d
    SELECT date_trunc('year', occurred_at AT TIME ZONE 'UTC')::date,
           count(*) FILTER (WHERE type = 'PackageInstallStarted'),
           count(*) FILTER (WHERE type = 'PackageUpgradeStarted'),
           count(*) FILTER (WHERE type = 'PackageRemoveStarted')
      FROM events
     GROUP BY 1
        ON CONFLICT (since) DO UPDATE
       SET installed = d.installed + excluded.installed,
           upgraded = d.upgraded + excluded.upgraded,
           removed = d.removed + excluded.removed $$) \g /dev/null
SELECT count(*) AS days, clock_timestamp() AS started FROM package_activity \gset
SELECT event_store.rebuild_projection('package_activity') \g /dev/null
SELECT FROM event_store.run_projection('package_activity') \g /dev/null
SELECT format('rebuilt from %s events in %s ms: %s years instead of %s days',
              (SELECT count(*) FROM packages),
              round(1000 * extract(epoch FROM clock_timestamp() - :'started')), count(*), :days)
  FROM package_activity;

\a \t
\echo Replayed twice, and once against what is there:
SELECT 'twice' AS replayed, "table", rows, digest, same FROM event_store.check_projection('package_activity')
UNION ALL
SELECT 'against live', "table", rows, digest, same FROM event_store.check_projection('package_activity', against_live => true);
\a \t
DO $$
BEGIN
    IF NOT (SELECT bool_and(same) FROM event_store.check_projection('package_activity', against_live => true)) THEN
        RAISE EXCEPTION 'the projection is not what its events say';
    END IF;
END $$;
