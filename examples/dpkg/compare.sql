-- Compare: what the events say is installed against what dpkg says.
--
-- Where they differ there must be a reason that can be seen: dpkg keeps the time
-- when it last changed a package, so it shows whether the log has that change.
-- A difference without a reason fails.

CREATE TEMP TABLE dpkg (package text, arch text, version text, modified bigint, status text);
\copy dpkg from 'dpkg.query' (format csv, delimiter '|', quote E'\x02')

CREATE TEMP TABLE comparison AS
SELECT stream,
       d.version AS dpkg_version, d.status AS dpkg_status,
       s.version AS replayed_version, s.status AS replayed_status,
       to_timestamp(d.modified) AS dpkg_changed, s.changed_at AS last_in_log,
       CASE WHEN s.stream IS NULL AND to_timestamp(d.modified) < begin
                THEN 'older than the log: no event for it'
            WHEN s.stream IS NULL
                THEN 'not by way of this log: no event for it'
            WHEN d.stream IS NULL AND s.status = 'not-installed'
                THEN 'agrees: gone'
            WHEN d.version = s.version AND d.status = s.status
                THEN 'agrees: ' || d.status
            WHEN to_timestamp(d.modified) > s.changed_at
                THEN 'changed since, not by way of this log'
            ELSE 'UNEXPLAINED'
       END AS outcome
  FROM package_state s
  FULL JOIN (SELECT package_stream(package, arch, :'native') AS stream,
                    version, modified, status
               FROM dpkg
              WHERE status <> 'not-installed') d USING (stream)
 CROSS JOIN (SELECT min(occurred_at) AS begin FROM packages) log;

SELECT format('compared %s packages: %s agree, %s differ, %s of them unexplained', count(*),
              count(*) FILTER (WHERE outcome LIKE 'agrees%'),
              count(*) FILTER (WHERE outcome NOT LIKE 'agrees%'),
              count(*) FILTER (WHERE outcome = 'UNEXPLAINED'))
  FROM comparison;

\a \t
SELECT outcome, count(*) AS packages FROM comparison GROUP BY outcome ORDER BY outcome;

\echo The first 10 of each kind of difference:
SELECT outcome, stream, dpkg_version, dpkg_status, replayed_version, replayed_status,
       dpkg_changed, last_in_log
  FROM (SELECT *, row_number() OVER (PARTITION BY outcome ORDER BY stream) AS nth
          FROM comparison
         WHERE outcome NOT LIKE 'agrees%') AS difference
 WHERE nth <= 10
 ORDER BY outcome, stream;
\a \t

DO $$
BEGIN
    IF EXISTS (SELECT FROM comparison WHERE outcome = 'UNEXPLAINED') THEN
        RAISE EXCEPTION 'the log has the last event of a package, and yet the replay differs from dpkg';
    END IF;
END $$;
