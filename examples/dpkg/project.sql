-- Project: a read model that the database keeps, in the background, from the
-- moment on at which events are committed.  projected.sql looks at it.
--
-- A day is one of UTC: the time zone of whoever imports is not that of the
-- session that runs the projection.

CREATE TABLE package_activity (
    since      date PRIMARY KEY,
    installed  bigint NOT NULL,
    upgraded   bigint NOT NULL,
    removed    bigint NOT NULL
);

SELECT event_store.create_projection('package_activity', 'packages', $$
    INSERT INTO package_activity AS d
    SELECT (occurred_at AT TIME ZONE 'UTC')::date,
           count(*) FILTER (WHERE type = 'PackageInstallStarted'),
           count(*) FILTER (WHERE type = 'PackageUpgradeStarted'),
           count(*) FILTER (WHERE type = 'PackageRemoveStarted')
      FROM events
     GROUP BY 1
        ON CONFLICT (since) DO UPDATE
       SET installed = d.installed + excluded.installed,
           upgraded = d.upgraded + excluded.upgraded,
           removed = d.removed + excluded.removed $$,
    types => ARRAY['PackageInstallStarted', 'PackageUpgradeStarted', 'PackageRemoveStarted'],
    tables => '{package_activity}') \g /dev/null
SELECT 'created projection package_activity: it counts by days, in the background';
