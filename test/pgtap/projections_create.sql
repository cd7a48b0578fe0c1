-- Making, changing and dropping projections: what is stored, and what is refused.
SET client_min_messages = warning;
SELECT plan(157);

\ir include/error_of.sql
\ir include/rows_of.sql

CREATE SCHEMA "Own Schema";
CREATE SCHEMA models;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
SELECT event_store.append_batch('orders', 'o-1', '{A,B,C}', '{1,2,3}') \g /dev/null
CREATE TABLE counts (stream text PRIMARY KEY, events bigint);
CREATE FUNCTION handle(event event_store.event) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION "Own Schema"."The Handler"(event event_store.event) RETURNS bigint LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION f_set(event event_store.event) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION f_jsonb(event jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION f_two(event event_store.event, more int DEFAULT 1) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION f_none() RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION f_record(event record) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION f_variadic(VARIADIC event event_store.event[]) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION f_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE PROCEDURE f_procedure(event event_store.event) LANGUAGE sql AS 'SELECT';
CREATE AGGREGATE f_aggregate(event_store.event) (SFUNC = event_store.merge, STYPE = jsonb);
CREATE FUNCTION pg_temp.f_temporary(event event_store.event) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION pg_temp.stored(projection text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT owner::text = current_user AS o, event_table, statement, function, types, categories, mode, partitions, search_path, tables, on_error, max_attempts, retry_delay,
    batch_size, batch_time, start_after, paused, restored, shadow_schema FROM event_store.registered_projections WHERE name = %L', projection)) $$;

-- Making one.
SELECT lives_ok($$ SELECT event_store.create_projection('defaults', 'orders', 'SELECT FROM events') $$, 'create_projection() with a name, a table and a statement');
SELECT is(pg_temp.stored('defaults'), '(t,orders,"SELECT FROM events",,,,async,1,"public, pg_temp",,stop,5,00:00:00.2,100000,00:00:00.1,0,f,f,)', 'its defaults');
SELECT is(pg_temp.rows_of($$ SELECT rebuild, partition, position, event_id, events, batches, errors, own_appends, rate, attempts, failed, retry_at, error_at FROM event_store.projection_checkpoints WHERE projection = 'defaults' $$),
    '(f,1,0,,0,0,0,0,0,0,f,,)', 'it has a checkpoint, at the beginning');
SELECT is(pg_temp.rows_of($$ SELECT owner::text = current_user, event_table, mode, status, partitions, position, lag_events, lag_seconds > 0, rate, events, batches, errors, parked, attempts, last_error, worker_pid, rebuild_position FROM event_store.projections $$),
    '(t,orders,async,running,1,0,3,t,0,0,0,0,0,0,,,)', 'the view shows it');
SELECT lives_ok($$ SELECT event_store.create_projection('Größe ''"\', 'orders', function => '"Own Schema"."The Handler"(event_store.event)', types => '{B,A}', categories => '{o}', mode => 'manual', partitions => 3,
    search_path => '"Own Schema", models', tables => '{counts}', on_error => 'park_stream', max_attempts => 7, retry_delay => '1 minute', batch_size => 10, batch_time => '20 ms', start_after => 2) $$, 'with everything');
SELECT is(pg_temp.stored('Größe ''"\'), '(t,orders,,"""Own Schema"".""The Handler""(event_store.event)","{A,B}",{o},manual,3,"""Own Schema"", models, pg_temp",{counts},park_stream,7,00:01:00,10,00:00:00.02,2,f,f,)',
    'which is stored');
SELECT is(pg_temp.rows_of($$ SELECT c.partition, c.position, c.event_id = e.event_id FROM event_store.projection_checkpoints c, event_store.read_all('orders', 1, 1) e WHERE projection <> 'defaults' ORDER BY 1 $$),
    '(1,2,t) (2,2,t) (3,2,t)', 'a checkpoint for each partition, at start_after');
SET search_path = "Own Schema", pg_temp, nowhere, public;
SELECT lives_ok($$ SELECT event_store.create_projection('by path', 'orders', function => '"The Handler"(event_store.event)') $$, 'a function that is found by the search_path');
RESET search_path;
SELECT is((SELECT function || ' ' || search_path FROM event_store.registered_projections WHERE name = 'by path'), '"Own Schema"."The Handler"(event_store.event) "Own Schema", public, pg_temp',
    'is qualified all the same; the path is that of now, pg_temp at its end');
CREATE TEMP TABLE paths (name text, path text, pinned text);
INSERT INTO paths VALUES ('path 1', '', 'pg_temp'), ('path 2', 'pg_temp, models', 'models, pg_temp'), ('path 3', 'Models, "$user"', 'models, "$user", pg_temp'), ('path 4', 'pg_temp_3, pg_catalog', 'pg_catalog, pg_temp');
SELECT event_store.create_projection(name, 'orders', 'SELECT FROM events', search_path => path) FROM paths \g /dev/null
SELECT is(r.search_path, pinned, 'search_path => ' || path) FROM paths JOIN event_store.registered_projections r USING (name);
SELECT lives_ok(format('SELECT event_store.create_projection(%L, ''orders'', ''SELECT FROM events'', mode => ''manual'')', repeat('x', 255)), 'a name of 255 bytes');
SELECT lives_ok($$ SELECT event_store.create_projection('empty', 'orders', 'SELECT FROM events', types => '{}', categories => '{}') $$, 'empty filters');
SELECT is(pg_temp.rows_of($$ SELECT types, categories FROM event_store.registered_projections WHERE name = 'empty' $$), '(,)', 'are none');
SELECT is(pg_temp.error_of($$ SELECT event_store.create_projection('limits', 'orders', 'SELECT FROM events', partitions => 256, max_attempts => 1000, retry_delay => '1 hour', batch_size => 1000000, batch_time => '1 ms') $$),
    'no error', 'the limits');

-- What is refused.
CREATE FUNCTION pg_temp.creating(arguments text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.error_of(format('SELECT event_store.create_projection(%s)', arguments)) $$;
SELECT is(pg_temp.creating(arguments), replace(expected, '|', E'\n'), 'refused: ' || left(arguments, 100))
  FROM (VALUES ($$ NULL, 'orders', 'SELECT FROM events' $$, '22004|name must not be null'),
               ($$ '', 'orders', 'SELECT FROM events' $$, '22023|name must not be empty'),
               ($$ repeat('x', 256), 'orders', 'SELECT FROM events' $$, '22023|name is too long: 256 bytes|At most 255 bytes are allowed.'),
               ($$ 'defaults', 'orders', 'SELECT FROM events' $$, '42710|projection "defaults" already exists'),
               ($$ 'n', NULL, 'SELECT FROM events' $$, '22004|event_table must not be null'),
               ($$ 'n', 'orders' $$, '22004|a projection needs a statement or a function'),
               ($$ 'n', 'orders', 'SELECT FROM events', 'handle(event_store.event)' $$, '22023|a projection has either a statement or a function, not both'),
               ($$ 'n', 'orders', 'SELECT FROM events', types => '{A,NULL}' $$, '22004|types[2] must not be null'),
               ($$ 'n', 'orders', 'SELECT FROM events', categories => '{NULL}' $$, '22004|categories[1] must not be null'),
               ($$ 'n', 'orders', 'SELECT FROM events', mode => 'Async' $$, '22023|mode must be one of "async", "inline", "manual", not "Async"'),
               ($$ 'n', 'orders', 'SELECT FROM events', on_error => '' $$, '22023|on_error must be one of "stop", "park", "park_stream", not ""'),
               ($$ 'n', 'orders', 'SELECT FROM events', partitions => 0 $$, '22023|partitions must be from 1 to 256, not 0'),
               ($$ 'n', 'orders', 'SELECT FROM events', partitions => 257 $$, '22023|partitions must be from 1 to 256, not 257'),
               ($$ 'n', 'orders', 'SELECT FROM events', max_attempts => 0 $$, '22023|max_attempts must be from 1 to 1000, not 0'),
               ($$ 'n', 'orders', 'SELECT FROM events', batch_size => -1 $$, '22023|batch_size must be from 1 to 1000000, not -1'),
               ($$ 'n', 'orders', 'SELECT FROM events', retry_delay => '-1 s' $$, '22023|retry_delay must be from a millisecond to an hour, not -00:00:01'),
               ($$ 'n', 'orders', 'SELECT FROM events', retry_delay => '61 min' $$, '22023|retry_delay must be from a millisecond to an hour, not 01:01:00'),
               ($$ 'n', 'orders', 'SELECT FROM events', batch_time => '1 month' $$, '22023|batch_time must be from a millisecond to an hour, not 1 mon'),
               ($$ 'n', 'orders', 'SELECT FROM events', batch_time => '0' $$, '22023|batch_time must be from a millisecond to an hour, not 00:00:00'),
               ($$ 'n', 'orders', 'SELECT FROM events', search_path => 'a b' $$, '22023|search_path must be a list of schemas, not "a b"'),
               ($$ 'n', 'orders', 'SELECT FROM events', start_after => -1 $$, '22023|start_after must not be negative, but is -1'),
               ($$ 'n', 'orders', 'SELECT FROM events', start_after => 4 $$,
                   '22023|position 4 is ahead of the event table, whose last one is 3|event_store.high_water_mark() is the position to begin at for what comes from now on.'),
               ($$ 'n', 'orders', '' $$, '42601|the statement of projection "n" is empty'),
               ($$ 'n', 'orders', ' ; -- nothing' $$, '42601|the statement of projection "n" is empty'),
               ($$ 'n', 'orders', 'SELECT nothing FROM events' $$, '42703|column "nothing" does not exist'),
               ($$ 'n', 'orders', 'SELEC' $$, '42601|syntax error at or near "SELEC"'),
               ($$ 'n', 'orders', 'SELECT $1' $$, '42P02|there is no parameter $1'),
               ($$ 'n', 'orders', 'INSERT INTO models.nothing SELECT FROM events' $$, '42P01|relation "models.nothing" does not exist'),
               ($$ 'n', 'orders', 'INSERT INTO counts SELECT stream, count(*) FROM events GROUP BY 1', search_path => 'models' $$, '42P01|relation "counts" does not exist'),
               ($$ 'n', 'orders', function => 'nothing(event_store.event)' $$, '42883|function "nothing(event_store.event)" does not exist'),
               ($$ 'n', 'orders', function => 4294967290 $$, '42883|function with OID 4294967290 does not exist'),
               ($$ 'n', 'orders', 'SELECT FROM events; COMMIT' $$, '0A000|the statement of projection "n" must not be one that begins or ends a transaction'),
               ($$ 'n', 'orders', 'SAVEPOINT s' $$, '0A000|the statement of projection "n" must not be one that begins or ends a transaction'),
               ($$ 'n', 'orders', 'COPY counts TO STDOUT' $$, '0A000|the statement of projection "n" must not be COPY'),
               ($$ 'n', 'orders', 'DECLARE c CURSOR FOR SELECT FROM events' $$, '0A000|the statement of projection "n" must not be DECLARE CURSOR'),
               ($$ 'n', 'orders', 'PREPARE p AS SELECT FROM events' $$, '0A000|the statement of projection "n" must not be PREPARE'),
               ($$ 'n', 'orders', 'SELECT FROM events', tables => '{NULL}' $$, '22004|tables must not contain nulls'),
               ($$ 'n', 'orders', 'SELECT FROM events', tables => '{counts,counts}' $$, '22023|table counts is listed twice')) AS c(arguments, expected);
SELECT matches(pg_temp.creating(format('''n'', ''orders'', function => %L', f)), format('^42P13\n%s cannot be the function of projection "n"\n%s\nIt must be a function \(event event_store.event\)', regexp_replace(f, '([()\[\]])', '\\\1', 'g'), regexp_replace(problem, '([()])', '\\\1', 'g')), f || ' cannot be a handler')
  FROM (VALUES ('f_set(event_store.event)', 'It returns a set.'), ('f_jsonb(jsonb)', 'Its parameter is not (event_store.event).'), ('f_two(event_store.event,integer)', 'Its parameter is not (event_store.event).'),
               ('f_none()', 'Its parameter is not (event_store.event).'), ('f_record(record)', 'Its parameter is not (event_store.event).'), ('f_variadic(event_store.event[])', 'Its parameter is not (event_store.event).'),
               ('f_trigger()', 'Its parameter is not (event_store.event).'), ('f_procedure(event_store.event)', 'It is not an ordinary function.'), ('f_aggregate(event_store.event)', 'It is not an ordinary function.')) AS c(f, problem);
SELECT matches(pg_temp.creating($$ 'n', 'orders', function => 'pg_temp.f_temporary(event_store.event)' $$), E'^42P13\n.*\nIt is temporary', 'a temporary function cannot be a handler');
CREATE VIEW seen AS SELECT * FROM counts;
CREATE TEMP TABLE temporary (a int);
CREATE TABLE parted (a int) PARTITION BY RANGE (a);
CREATE TABLE part PARTITION OF parted DEFAULT;
CREATE TABLE parent (a int);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE models.counts (a int);
CREATE TABLE audit (what text);
SELECT event_store.make_append_only('audit') \g /dev/null
SELECT is(pg_temp.creating(format('''n'', ''orders'', ''SELECT FROM events'', tables => %L', tables)), replace(expected, '|', E'\n'), 'not a read model: ' || tables)
  FROM (VALUES ('{seen}', '42809|public.seen cannot be part of a read model|It is not an ordinary table.|public.seen'),
               ('{parted}', '42809|public.parted cannot be part of a read model|It is not an ordinary table.|public.parted'),
               ('{part}', '42809|public.part cannot be part of a read model|It is a partition.|public.part'),
               ('{counts,child}', '42809|public.child cannot be part of a read model|It inherits from another table.|public.child'),
               ('{parent}', '42809|public.parent cannot be part of a read model|Another table inherits from it.|public.parent'),
               ('{orders}', '42809|public.orders cannot be part of a read model|It is an event table.|public.orders'),
               ('{audit}', '42809|public.audit cannot be part of a read model|It is an append-only table.|public.audit'),
               ('{pg_class}', '42809|pg_catalog.pg_class cannot be part of a read model|It belongs to the system.|pg_catalog.pg_class'),
               ('{event_store.snapshots}', '42809|event_store.snapshots cannot be part of a read model|It belongs to the extension event_store.|event_store.snapshots'),
               ('{counts,models.counts}', '22023|two tables of a read model have the same name, "counts"|They are in schemas "public" and "models".|A rebuild makes tables of these names in one schema.')) AS c(tables, expected);
SELECT matches(pg_temp.creating($$ 'n', 'orders', 'SELECT FROM events', tables => '{temporary}' $$), E'^42809\n.*\nIt is a temporary table', 'not a read model: a temporary table');
SELECT is((SELECT count(*) FROM event_store.registered_projections WHERE name = 'n'), 0::bigint, 'none of these has been made');

-- Changing one.
SELECT lives_ok($$ SELECT event_store.alter_projection('defaults') $$, 'alter_projection() with nothing');
SELECT is(pg_temp.stored('defaults'), '(t,orders,"SELECT FROM events",,,,async,1,"public, pg_temp",,stop,5,00:00:00.2,100000,00:00:00.1,0,f,f,)', 'changes nothing');
SELECT lives_ok($$ SELECT event_store.alter_projection('defaults', function => 'handle(event_store.event)', types => '{A}', categories => '{o}', mode => 'manual', search_path => 'models', tables => '{counts}', on_error => 'park',
    max_attempts => 9, retry_delay => '2 s', batch_size => 5, batch_time => '3 s') $$, 'with everything but partitions');
SELECT is(pg_temp.stored('defaults'), '(t,orders,,"public.handle(event_store.event)",{A},{o},manual,1,"models, pg_temp",{counts},park,9,00:00:02,5,00:00:03,0,f,f,)', 'changes all of it');
SELECT lives_ok($$ SELECT event_store.alter_projection('defaults', 'SELECT count(*) FROM events', types => '{}') $$, 'a statement in place of a function');
SELECT is(pg_temp.stored('defaults'), '(t,orders,"SELECT count(*) FROM events",,,{o},manual,1,"models, pg_temp",{counts},park,9,00:00:02,5,00:00:03,0,f,f,)', 'the rest stays; an empty filter is none');
SELECT is(pg_temp.error_of(format('SELECT event_store.alter_projection(%s)', arguments)), replace(expected, '|', E'\n'), 'alter_projection() refuses: ' || arguments)
  FROM (VALUES ($$ NULL $$, '22004|name must not be null'),
               ($$ 'nothing' $$, '42704|projection "nothing" does not exist|Projections are made by event_store.create_projection(name, event_table, ...).'),
               ($$ 'defaults', 'SELECT FROM events', 'handle(event_store.event)' $$, '22023|a projection has either a statement or a function, not both'),
               ($$ 'defaults', 'SELECT nothing FROM events' $$, '42703|column "nothing" does not exist'),
               ($$ 'defaults', '' $$, '42601|the statement of projection "defaults" is empty'),
               ($$ 'defaults', mode => 'other' $$, '22023|mode must be one of "async", "inline", "manual", not "other"'),
               ($$ 'defaults', partitions => 1000 $$, '22023|partitions must be from 1 to 256, not 1000'),
               ($$ 'defaults', tables => '{seen}' $$, '42809|public.seen cannot be part of a read model|It is not an ordinary table.|public.seen')) AS c(arguments, expected);
SELECT is(pg_temp.stored('defaults'), '(t,orders,"SELECT count(*) FROM events",,,{o},manual,1,"models, pg_temp",{counts},park,9,00:00:02,5,00:00:03,0,f,f,)', 'and has changed nothing');
CREATE TABLE gone (a int);
SELECT event_store.alter_projection('defaults', tables => '{counts,gone}') \g /dev/null
DROP TABLE gone;
SELECT is(pg_temp.error_of($$ SELECT event_store.alter_projection('defaults', batch_size => 7) $$), 'no error', 'where a table of the read model is gone, it can be changed still');
SELECT matches(pg_temp.error_of($$ SELECT event_store.rebuild_projection('defaults') $$), '^42P01\n', 'but not rebuilt');
SELECT lives_ok($$ SELECT event_store.alter_projection('defaults', tables => '{}', batch_size => 6) $$, 'tables => {}');
SELECT is(pg_temp.rows_of($$ SELECT tables, batch_size FROM event_store.registered_projections WHERE name = 'defaults' $$), '(,6)', 'clears them');
SELECT matches(pg_temp.error_of($$ SELECT event_store.rebuild_projection('defaults') $$), '^55000\nit is not known which tables', 'so that it cannot be rebuilt');
SELECT lives_ok($$ SELECT event_store.create_projection('no tables', 'others', 'SELECT FROM events', tables => '{}') $$, 'create_projection() with tables => {}');
SELECT is((SELECT tables IS NULL FROM event_store.registered_projections WHERE name = 'no tables'), true, 'is without');
SELECT event_store.drop_projection('no tables') \g /dev/null

-- Pausing, resetting, dropping.
SELECT is(pg_temp.error_of(format('SELECT event_store.%s(%s)', f, n)), replace(expected, '|', E'\n'), format('%s(%s)', f, n))
  FROM unnest('{drop_projection,pause_projection,resume_projection,reset_projection,run_projection,retry_parked,drop_parked,wait_for_projection,rebuild_projection,cancel_rebuild,dry_run_projection,check_projection}'::text[]) f,
       (VALUES ('NULL', '22004|name must not be null'), ('''nothing''', '42704|projection "nothing" does not exist|Projections are made by event_store.create_projection(name, event_table, ...).')) AS c(n, expected);
SELECT is(pg_temp.error_of(format('SELECT event_store.reset_projection(''defaults'', %s)', p)), replace(expected, '|', E'\n'), 'reset_projection() to ' || p)
  FROM (VALUES ('-1', '22023|position must not be negative, but is -1'),
               ('4', '22023|position 4 is ahead of the event table, whose last one is 3|event_store.high_water_mark() is the position to begin at for what comes from now on.'), ('3', 'no error')) AS c(p, expected);
SELECT is((SELECT position FROM event_store.projections WHERE name = 'defaults'), 3::bigint, 'it is there');
SELECT lives_ok($$ SELECT event_store.pause_projection('defaults'), event_store.pause_projection('defaults') $$, 'pause_projection(), twice');
SELECT is((SELECT status FROM event_store.projections WHERE name = 'defaults'), 'paused', 'it is paused');
SELECT is(pg_temp.error_of(format('SELECT event_store.%s(''defaults'')', f)), E'55000\nprojection "defaults" is paused\nCall event_store.resume_projection(''defaults'').', f || '() does not run it')
  FROM unnest('{run_projection,retry_parked}'::text[]) f;
SELECT lives_ok($$ SELECT event_store.resume_projection('defaults'), event_store.resume_projection('defaults') $$, 'resume_projection(), twice');
SELECT is((SELECT status FROM event_store.projections WHERE name = 'defaults'), 'ready', 'it is ready');
SELECT lives_ok($$ SELECT event_store.drop_projection('Größe ''"\') $$, 'drop_projection()');
SELECT is((SELECT count(*) FROM event_store.registered_projections r FULL JOIN event_store.projection_checkpoints c ON c.projection = r.name WHERE name ~ 'Größe' OR projection ~ 'Größe'), 0::bigint, 'nothing is left of it');
SELECT lives_ok($$ SELECT event_store.create_projection('Größe ''"\', 'others', 'SELECT FROM events') $$, 'its name is free again');
BEGIN READ ONLY;
SELECT throws_ok(format('SELECT event_store.%s', call), '25006', format('cannot execute %s() in a read-only transaction', split_part(call, '(', 1)), 'read-only: ' || call)
  FROM unnest(ARRAY['create_projection(''n'', ''orders'', ''SELECT FROM events'')', 'alter_projection(''defaults'')', 'drop_projection(''defaults'')', 'pause_projection(''defaults'')', 'resume_projection(''defaults'')',
       'reset_projection(''defaults'')', 'run_projection(''defaults'')', 'retry_parked(''defaults'')', 'drop_parked(''defaults'')', 'rebuild_projection(''defaults'')', 'cancel_rebuild(''defaults'')',
       'dry_run_projection(''defaults'')', 'check_projection(''defaults'')']) call;
COMMIT;

-- The owner must be able to log in, for the background only.
CREATE ROLE es_projections_nologin;
GRANT SELECT ON orders TO es_projections_nologin;
SET ROLE es_projections_nologin;
SELECT is(pg_temp.creating($$ 'n', 'orders', 'SELECT FROM events' $$),
    E'55000\nrole "es_projections_nologin" cannot log in\nA projection runs in the background in a session of its owner.\nALTER ROLE ... LOGIN (it needs no password), or choose another mode.', 'async needs an owner who can log in');
SELECT lives_ok($$ SELECT event_store.create_projection('n', 'orders', 'SELECT FROM events', mode => 'manual') $$, 'manual does not');
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('n', mode => 'async') $$), E'^55000\nrole "es_projections_nologin" cannot log in\n', 'nor can it become async');
RESET ROLE;

-- A table that is renamed, moved, and dropped.
ALTER TABLE orders RENAME TO "New Orders";
SELECT is((SELECT event_table::text FROM event_store.projections WHERE name = 'defaults'), '"New Orders"', 'the event table may be renamed');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.run_projection('by path') $$), '(3,1,0,3)', 'and is run');
DROP TABLE "New Orders";
SELECT is((SELECT string_agg(name, '|') FROM event_store.registered_projections), 'Größe ''"\', 'with the event table go its projections');
SELECT is((SELECT count(*) FROM event_store.projection_checkpoints), 1::bigint, 'and their checkpoints');
SELECT event_store.drop_event_table('others') \g /dev/null
SELECT is((SELECT count(*) FROM event_store.registered_projections), 0::bigint, 'also by drop_event_table()');

DROP OWNED BY es_projections_nologin;
DROP ROLE es_projections_nologin;
SELECT * FROM finish();
