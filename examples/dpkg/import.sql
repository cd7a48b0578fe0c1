-- Import: a log file becomes an event table.
--
-- A stream per package, package-NAME; a package of a foreign architecture is
-- another one, package-NAME:ARCH.  Lines that concern no single package (the
-- start of a run of dpkg, a decision on a configuration file) are in the stream
-- dpkg-run.  dpkg logs an action when it begins and a status when it has
-- changed, and the event types say so.

CREATE EXTENSION IF NOT EXISTS event_store;
SELECT 'created event table ' || event_store.create_event_table('packages');

-- From the first event on the database counts along.
\ir project.sql

CREATE FUNCTION package_stream(package text, arch text, native text) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN 'package-' || package ||
           CASE WHEN arch IN ('', 'all', native) THEN '' ELSE ':' || arch END;

-- Lines as they are: delimiter and quote are characters that no log has.
CREATE TEMP TABLE log_line (number bigint GENERATED ALWAYS AS IDENTITY, line text);
\copy log_line (line) from 'dpkg.log' (format csv, delimiter E'\x01', quote E'\x02')

CREATE TEMP TABLE event_type (action text, type text);
INSERT INTO event_type VALUES
    ('startup',   'RunStarted'),
    ('install',   'PackageInstallStarted'),
    ('upgrade',   'PackageUpgradeStarted'),
    ('configure', 'PackageConfigureStarted'),
    ('trigproc',  'PackageTriggersStarted'),
    ('remove',    'PackageRemoveStarted'),
    ('purge',     'PackagePurgeStarted'),
    ('disappear', 'PackageDisappeared'),
    ('status',    'PackageStatusChanged'),
    ('conffile',  'ConffileDecided');

CREATE TEMP VIEW event AS
SELECT number, type, occurred_at,
       CASE WHEN action IN ('startup', 'conffile') THEN 'dpkg-run'
            ELSE package_stream(split_part(package, ':', 1),
                                split_part(package, ':', 2), :'native')
       END AS stream,
       jsonb_strip_nulls(
           CASE action
               WHEN 'startup' THEN jsonb_build_object('of', word[4], 'command', word[5])
               WHEN 'conffile' THEN jsonb_build_object('file', word[4], 'decision', word[5])
               WHEN 'status' THEN jsonb_build_object(
                   'status', word[4], 'version', nullif(word[6], '<none>'))
               ELSE jsonb_build_object(
                   'installed', nullif(word[5], '<none>'), 'available', nullif(word[6], '<none>'))
           END || jsonb_build_object('arch', nullif(split_part(package, ':', 2), '')))
       AS data
  FROM log_line
 CROSS JOIN string_to_array(line, ' ') AS word
 CROSS JOIN LATERAL (SELECT word[3],
                            CASE word[3] WHEN 'status' THEN word[5]
                                         WHEN 'startup' THEN NULL
                                         WHEN 'conffile' THEN NULL
                                         ELSE word[4] END,
                            CASE WHEN line ~ '^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ \S+ \S+'
                                 THEN (word[1] || ' ' || word[2])::timestamptz END)
       AS field(action, package, occurred_at)
  JOIN event_type USING (action)
 WHERE occurred_at IS NOT NULL;

-- A plain INSERT is an append.  One that touches very many streams is best done
-- under a lock of the whole table, which spares a lock per stream.
SELECT clock_timestamp() AS started \gset
BEGIN;
LOCK TABLE packages IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO packages (stream, type, data, occurred_at, metadata)
SELECT stream, type, data, occurred_at, jsonb_build_object('line', number)
  FROM event
 ORDER BY number;
COMMIT;

SELECT format('imported %s of %s lines as events of %s streams in %s ms, %s events a second',
              events, (SELECT count(*) FROM log_line), streams, round(1000 * seconds),
              round(events / seconds))
  FROM (SELECT count(*) AS events, count(DISTINCT stream) AS streams,
               extract(epoch FROM clock_timestamp() - :'started') AS seconds
          FROM packages) AS total;
SELECT format('%s lines were not understood, the first: %s', count(*),
              (array_agg(line ORDER BY number))[1])
  FROM log_line
 WHERE number NOT IN (SELECT number FROM event)
HAVING count(*) > 0;

\a \t
SELECT type, count(*) FROM packages GROUP BY type ORDER BY 2 DESC, 1;

\echo The history of one package:
SELECT version, occurred_at, type, data
  FROM event_store.read_stream('packages',
           (SELECT stream FROM packages WHERE stream <> 'dpkg-run'
             ORDER BY position DESC LIMIT 1))
 ORDER BY version DESC LIMIT 5;
\a \t
