-- rebuild_projection(), driven by run_projection(): into shadows, then what
-- differs is written into the live tables.
SET client_min_messages = warning;
SELECT plan(80);

\ir include/error_of.sql
\ir include/rows_of.sql

CREATE ROLE es_rebuild_reader;
SELECT event_store.create_event_table('orders') \g /dev/null
CREATE SCHEMA models;
CREATE TABLE models.counts (stream text PRIMARY KEY, events bigint NOT NULL CHECK (events > 0), touched bigint DEFAULT 0);
CREATE TABLE models.log (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, position bigint UNIQUE);
CREATE INDEX counts_events ON models.counts (events);
CREATE VIEW models.seen AS SELECT stream, events FROM models.counts;
GRANT SELECT ON models.counts TO es_rebuild_reader;
COMMENT ON TABLE models.counts IS 'kept';
\set counting 'INSERT INTO counts (stream, events) SELECT stream, count(*) FROM events GROUP BY stream ON CONFLICT (stream) DO UPDATE SET events = counts.events + excluded.events; INSERT INTO log (position) SELECT position FROM events'
CREATE FUNCTION pg_temp.run(name text, max_batches bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS $$ SELECT pg_temp.rows_of(format('SELECT * FROM event_store.run_projection(%L, %L)', name, max_batches)) $$;
CREATE FUNCTION pg_temp.append(n int) RETURNS bigint LANGUAGE sql AS
$$ SELECT max((event_store.append('orders', 'a-' || i % 3, 'T', '{}')).last_position) FROM generate_series(1, n) i $$;
CREATE FUNCTION pg_temp.counts() RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(string_agg(stream || ':' || events, ' ' ORDER BY stream), 'nothing') || ', ' || (SELECT count(*) || ' to ' || coalesce(max(position), 0) FROM models.log) FROM models.counts $$;
CREATE FUNCTION pg_temp.shadows() RETURNS text LANGUAGE sql AS
$$ SELECT coalesce(string_agg(relnamespace::regnamespace || '.' || relname, ' ' ORDER BY relname), 'none') FROM pg_class WHERE relkind = 'r' AND relname IN ('counts', 'log') AND relnamespace <> 'models'::regnamespace $$;
SELECT pg_temp.append(10) \g /dev/null
SELECT event_store.create_projection('counts', 'orders', :'counting', mode => 'manual', search_path => 'models', batch_size => 4) \g /dev/null
SELECT pg_temp.run('counts') \g /dev/null
SELECT is(pg_temp.counts(), 'a-0:3 a-1:4 a-2:3, 10 to 10', 'before');

-- What it takes.
SELECT is(pg_temp.error_of($$ SELECT event_store.rebuild_projection('counts') $$),
    E'55000\nit is not known which tables projection "counts" maintains\nTell by event_store.alter_projection(''counts'', tables => ''{...}'').', 'it must be known what to rebuild');
SELECT event_store.alter_projection('counts', tables => '{models.counts,models.log}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.rebuild_projection('counts', 'models') $$) ~ '^42P06\n', true, 'a schema that is there already');
SELECT is(pg_temp.error_of(format($$ SELECT event_store.rebuild_projection('counts', %L) $$, s)), format(E'22023\nthe shadow schema''s name must have 1 to 63 bytes: "%s"\nGive another one as shadow_schema.', s), 'a schema of ' || length(s) || ' bytes')
  FROM unnest(ARRAY['', repeat('x', 64)]) s;
SELECT is(pg_temp.error_of($$ SELECT event_store.cancel_rebuild('counts') $$), E'55000\nprojection "counts" is not being rebuilt', 'nothing to cancel');
SELECT is(pg_temp.shadows(), 'none', 'nothing of that left anything');

-- A corrupted read model is put right; what hangs on the tables stays.
UPDATE models.counts SET events = 99 WHERE stream = 'a-1';
DELETE FROM models.counts WHERE stream = 'a-2';
INSERT INTO models.counts VALUES ('forged', 7);
SELECT 'models.counts'::regclass::oid AS before \gset
SELECT lives_ok($$ SELECT event_store.rebuild_projection('counts') $$, 'rebuild_projection()');
SELECT is(pg_temp.shadows(), 'counts_rebuild.counts counts_rebuild.log', 'makes shadows in a schema of its own');
SELECT is(pg_temp.rows_of('SELECT position, rebuild_position, rebuild_percent, status FROM event_store.projections'), '(10,0,0.0,ready)', 'the view shows it');
SELECT is(pg_temp.error_of(command), expected, 'meanwhile: ' || command)
  FROM (VALUES ($$ SELECT event_store.rebuild_projection('counts') $$, E'55000\nprojection "counts" is being rebuilt already\nevent_store.cancel_rebuild(''counts'') ends that.'),
               ($$ SELECT event_store.alter_projection('counts', batch_size => 5) $$, E'55000\nprojection "counts" is being rebuilt\nWait until it is done, or call event_store.cancel_rebuild(''counts'').'),
               ($$ SELECT event_store.check_projection('counts') $$, E'55000\nprojection "counts" is being rebuilt\nWait until it is done, or call event_store.cancel_rebuild(''counts'').')) AS c(command, expected);
SELECT pg_temp.append(5) \g /dev/null
SELECT is(pg_temp.run('counts'), '(15,4,0,15)', 'one run of both, with new events: the rebuild takes them along');
SELECT is(pg_temp.counts(), 'a-0:4 a-1:6 a-2:5, 15 to 15', 'the read model is the fold of all events');
SELECT is(pg_temp.shadows() || (SELECT count(*) FROM pg_namespace WHERE nspname = 'counts_rebuild'), 'none0', 'the shadows are gone');
SELECT is(pg_temp.rows_of('SELECT position, rebuild_position, rebuild_percent FROM event_store.projections'), '(15,,)', 'the rebuild is over');
SELECT is(pg_temp.rows_of('SELECT rebuild, partition, position FROM event_store.projection_checkpoints'), '(f,1,15)', 'and its checkpoint');
SELECT is('models.counts'::regclass::oid, :before::oid, 'the live table is the same');
SELECT is((SELECT sum(events) FROM models.seen), 15::numeric, 'its view');
SELECT is(has_table_privilege('es_rebuild_reader', 'models.counts', 'SELECT') || ' ' || obj_description('models.counts'::regclass, 'pg_class') || ' ' || (SELECT count(*) FROM pg_indexes WHERE schemaname = 'models' AND tablename = 'counts'), 'true kept 2', 'its privileges, comment and indexes');
SELECT throws_ok($$ INSERT INTO models.counts VALUES ('x', 0) $$, '23514', NULL, 'its constraints');
SELECT pg_temp.append(1) \g /dev/null
SELECT is(pg_temp.run('counts'), '(1,1,0,16)', 'it goes on');
SELECT is((SELECT max(n) >= 16 FROM models.log), true, 'identity columns too');

-- In several transactions; to be cancelled, dropped, rolled back.
SELECT event_store.create_event_table('many') \g /dev/null
CREATE TABLE models.many (position bigint PRIMARY KEY);
SELECT event_store.create_projection('many', 'many', 'INSERT INTO many SELECT position FROM events', mode => 'manual', search_path => 'models', tables => '{models.many}', batch_size => 2000) \g /dev/null
SELECT event_store.append_batch('many', 'a-1', array_agg('T'::text), array_agg(to_jsonb(i))) FROM generate_series(1, 16000) i \g /dev/null
SELECT is(pg_temp.run('many'), '(16000,8,0,16000)', 'a longer one');
SELECT event_store.rebuild_projection('many', 'My Shadow') \g /dev/null
SELECT is(pg_temp.run('many', 2), '(4000,2,0,16000)', 'two batches of its rebuild');
SELECT is(pg_temp.rows_of($$ SELECT position, rebuild_position, rebuild_percent, rebuild_eta > '0' FROM event_store.projections WHERE name = 'many' $$), '(16000,4000,25.0,t)', 'it is in the middle');
SELECT is((SELECT count(*) FROM "My Shadow".many) || ' ' || (SELECT count(*) FROM models.many), '4000 16000', 'the shadow has what has been replayed');
SELECT event_store.append('many', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.run('many', 1), '(2000,1,0,16000)', 'the rebuild goes on first');
SELECT event_store.pause_projection('many') \g /dev/null
SELECT matches(pg_temp.run('many'), '^55000: projection "many" is paused', 'paused, neither goes on');
SELECT event_store.resume_projection('many') \g /dev/null
SELECT lives_ok($$ SELECT event_store.cancel_rebuild('many') $$, 'cancel_rebuild()');
SELECT is((SELECT count(*) FROM pg_namespace WHERE nspname = 'My Shadow') || ' ' || (SELECT count(*) FROM models.many), '0 16000', 'the shadow is gone, what is live is not touched');
SELECT is(pg_temp.rows_of($$ SELECT rebuild, position FROM event_store.projection_checkpoints WHERE projection = 'many' $$), '(f,16000)', 'nor its checkpoint');
SELECT event_store.drop_event_table('many') \g /dev/null
SELECT pg_temp.append(2), pg_temp.run('counts') \g /dev/null
SELECT pg_temp.run('counts') \g /dev/null
SELECT is(pg_temp.counts(), 'a-0:4 a-1:8 a-2:6, 18 to 18', 'of the other one');
SELECT event_store.rebuild_projection('counts') \g /dev/null
DROP SCHEMA counts_rebuild CASCADE;
SELECT matches(pg_temp.run('counts'), '^55000: schema "counts_rebuild" with the shadows of projection "counts" is gone', 'somebody has dropped the shadows: it fails');
SELECT is(pg_temp.counts(), 'a-0:4 a-1:8 a-2:6, 18 to 18', 'and nothing live is touched');
SELECT lives_ok($$ SELECT event_store.cancel_rebuild('counts') $$, 'it can be cancelled');
BEGIN;
SELECT event_store.rebuild_projection('counts') \g /dev/null
SELECT pg_temp.run('counts') \g /dev/null
SELECT is(pg_temp.shadows(), 'none', 'all in one transaction');
ROLLBACK;
SELECT is(pg_temp.counts(), 'a-0:4 a-1:8 a-2:6, 18 to 18', 'that is rolled back');
SELECT event_store.rebuild_projection('counts') \g /dev/null
SELECT lives_ok($$ SELECT event_store.drop_projection('counts') $$, 'drop_projection() in the middle');
SELECT is(pg_temp.shadows() || (SELECT count(*) FROM event_store.projection_checkpoints), 'none0', 'leaves nothing behind');
SELECT is(pg_temp.counts(), 'a-0:4 a-1:8 a-2:6, 18 to 18', 'but what it has written');

-- Several partitions; parked events; a position to begin at.
TRUNCATE models.counts, models.log;
CREATE FUNCTION models.count(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO counts (stream, events) VALUES (event.stream, 1) ON CONFLICT (stream) DO UPDATE SET events = counts.events + 1;
    IF event.position = ANY (string_to_array(current_setting('rebuild.bad', true), ' ')::bigint[]) THEN RAISE 'bad'; END IF;
    INSERT INTO log (position) VALUES (event.position);
END $$;
SELECT event_store.create_projection('parts', 'orders', function => 'models.count(event_store.event)', mode => 'manual', search_path => 'models', tables => '{models.counts,models.log}', partitions => 3, on_error => 'park', start_after => 2) \g /dev/null
SET rebuild.bad = '5 7';
SELECT is(pg_temp.run('parts'), '(14,2,2,18)', 'two are parked');
SELECT event_store.rebuild_projection('parts') \g /dev/null
SET rebuild.bad = '7 9';
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.parked_events ORDER BY 1 $$), '(5) (7)', 'those that are parked while it is rebuilt');
SELECT is(pg_temp.run('parts'), '(14,2,2,18)', 'rebuilt, from the same position on, with other ones');
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.parked_events ORDER BY 1 $$), '(7) (9)', 'which take their place');
SELECT is((SELECT string_agg(position::text, ' ' ORDER BY position) FROM models.log), '3 4 5 6 8 10 11 12 13 14 15 16 17 18', 'as the read model');
SELECT is(pg_temp.rows_of('SELECT rebuild, partition, position FROM event_store.projection_checkpoints ORDER BY 2'), '(f,1,18) (f,2,18) (f,3,18)', 'all partitions');
RESET rebuild.bad;
SELECT is(event_store.retry_parked('parts'), 2::bigint, 'they can be retried');
SELECT event_store.drop_projection('parts') \g /dev/null

-- A handler that goes past its shadows.
TRUNCATE models.counts, models.log;
SELECT event_store.create_projection('past', 'orders', 'INSERT INTO models.counts SELECT stream, count(*) FROM events GROUP BY 1', mode => 'manual', search_path => 'models', tables => '{models.counts}') \g /dev/null
SELECT pg_temp.run('past') \g /dev/null
SELECT pg_temp.counts() AS counts \gset
CREATE FUNCTION pg_temp.rebuild_with(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    PERFORM event_store.alter_projection('past', statement);
    PERFORM event_store.rebuild_projection('past');
    result := pg_temp.error_of($q$ SELECT event_store.run_projection('past') $q$);
    IF (SELECT rebuild_position FROM event_store.projections) IS NOT NULL THEN PERFORM event_store.cancel_rebuild('past'); END IF;
    RETURN result;
END $$;
SELECT matches(pg_temp.rebuild_with(statement), '^(55000|SE007)\n.*the handler of projection "past" has written table "counts" past its shadow\n', 'refused: ' || left(statement, 60))
  FROM (VALUES ('UPDATE models.counts SET events = events + 1'), ('DELETE FROM models.counts'), ('TRUNCATE models.counts'),
               ('INSERT INTO models.counts SELECT stream || ''x'', count(*) FROM events GROUP BY 1'),
               ('DO $x$ BEGIN DELETE FROM models.counts; RAISE ''undone''; EXCEPTION WHEN OTHERS THEN NULL; END $x$')) AS c(statement);
SELECT is(pg_temp.counts(), (:'counts')::text, 'nothing of it is lost');
SELECT is(pg_temp.shadows(), 'none', 'nor is anything left');
SELECT event_store.drop_projection('past') \g /dev/null

-- Inline: the live table is kept up to date all the time.
TRUNCATE models.counts, models.log;
SELECT event_store.create_projection('inline', 'orders', :'counting', mode => 'inline', search_path => 'models', tables => '{models.counts,models.log}') \g /dev/null
UPDATE models.counts SET events = 50;
SELECT event_store.rebuild_projection('inline') \g /dev/null
SELECT pg_temp.append(2) \g /dev/null
SELECT is(pg_temp.counts(), 'a-0:50 a-1:51 a-2:51, 20 to 20', 'appends go on');
SELECT is(pg_temp.run('inline'), '(20,1,0,)', 'run_projection() runs the rebuild only');
SELECT is(pg_temp.counts(), 'a-0:4 a-1:9 a-2:7, 20 to 20', 'rebuilt');
SELECT pg_temp.append(1) \g /dev/null
SELECT is(pg_temp.counts(), 'a-0:4 a-1:10 a-2:7, 21 to 21', 'and goes on inline');
SELECT is((SELECT count(*) FROM event_store.projection_checkpoints) || ' ' || (SELECT mode FROM event_store.projections), '0 inline', 'without a checkpoint');
BEGIN;
SELECT event_store.rebuild_projection('inline') \g /dev/null
SELECT pg_temp.append(1) \g /dev/null
SELECT matches(pg_temp.run('inline'), '^25001: .*', 'not in a transaction that has appended');
ROLLBACK;

-- Tables that refer to one another; identity, generated and dropped columns; without a key.
SELECT event_store.drop_projection('inline') \g /dev/null
CREATE TABLE models.parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text UNIQUE, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE models.child (position bigint, parent bigint REFERENCES models.parent, gone int, j json, n numeric);
ALTER TABLE models.child DROP COLUMN gone;
SELECT event_store.create_projection('refers', 'orders', 'INSERT INTO parent (stream) SELECT DISTINCT stream FROM events ORDER BY 1 ON CONFLICT DO NOTHING; INSERT INTO child SELECT position, id, to_json(position), 1.0 FROM events JOIN parent USING (stream)',
    mode => 'manual', search_path => 'models', tables => '{models.child,models.parent}') \g /dev/null
SELECT is(pg_temp.run('refers'), '(21,1,0,21)', 'two tables, of which one refers to the other');
SELECT is((SELECT bool_and(same) FROM event_store.check_projection('refers', true)), true, 'before');
UPDATE models.child SET n = 1.00, j = '[]' WHERE position % 2 = 0;
DELETE FROM models.child WHERE parent = 2;
DELETE FROM models.parent WHERE id = 2;
INSERT INTO models.child SELECT * FROM models.child WHERE position = 3;
SELECT is((SELECT count(*) FROM event_store.check_projection('refers', true) WHERE same), 0::bigint, 'all of it is corrupted');
SELECT event_store.rebuild_projection('refers') \g /dev/null
SELECT pg_temp.run('refers') \g /dev/null
SELECT is((SELECT bool_and(same) FROM event_store.check_projection('refers', true)), true, 'rebuilt');
INSERT INTO models.parent (stream) VALUES ('new');
SELECT is((SELECT format('%s %s', id, twice) FROM models.parent WHERE stream = 'new'), (SELECT format('%s %s', max(id) + 1, max(id) * 2 + 2) FROM models.parent WHERE stream <> 'new'), 'identity goes on behind the highest');

-- What is not a shadow stays.
SELECT event_store.rebuild_projection('refers') \g /dev/null
CREATE TABLE refers_rebuild.foreign (a int);
INSERT INTO refers_rebuild.foreign VALUES (1);
SELECT lives_ok($$ SELECT event_store.cancel_rebuild('refers') $$, 'a table of somebody in the shadow schema');
SELECT is(pg_temp.rows_of($$ SELECT relname FROM pg_class WHERE relnamespace = 'refers_rebuild'::regnamespace AND relkind = 'r' $$) || (SELECT count(*) FROM refers_rebuild.foreign), '(foreign)1', 'stays, and the schema with it; the shadows go');
SELECT is(pg_temp.error_of($$ SELECT event_store.rebuild_projection('refers') $$) ~ '^42P06\n', true, 'which is in the way of another rebuild');
DROP SCHEMA refers_rebuild CASCADE;
SELECT event_store.rebuild_projection('refers') \g /dev/null
CREATE VIEW refers_rebuild.seen AS SELECT 1 AS a;
SELECT matches(pg_temp.run('refers'), '^\(21,1,0,21\)$', 'also where a rebuild has been run');
SELECT is((SELECT bool_and(same) FROM event_store.check_projection('refers', true)) || (SELECT count(*)::text FROM pg_class WHERE relnamespace = 'refers_rebuild'::regnamespace), 'true1', 'to its end');
DROP SCHEMA refers_rebuild CASCADE;

-- What answers events cannot be run again.
SELECT event_store.create_event_table('answers') \g /dev/null
CREATE TABLE models.answered (position bigint);
SELECT event_store.create_projection('answers', 'answers', 'INSERT INTO answered SELECT position FROM events; SELECT event_store.append(''public.orders'', ''answer-1'', ''Answer'', ''{}'') FROM events', mode => 'manual', search_path => 'models', tables => '{models.answered}') \g /dev/null
SELECT event_store.append('answers', 'q-1', 'Question', '{}') \g /dev/null
SELECT is(pg_temp.run('answers'), '(1,1,0,1)', 'a handler that appends');
SELECT event_store.rebuild_projection('answers') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('answers') $$) ~ '^55000\nthe handler of projection "answers" has appended events while it was run again\n', true, 'cannot be rebuilt');
SELECT event_store.cancel_rebuild('answers') \g /dev/null
SELECT is(pg_temp.error_of(format('SELECT event_store.check_projection(''answers'', %L)', live)) ~ '^55000\nthe handler of projection "answers" has appended events while it was run again\n', true, 'nor checked, against live: ' || live) FROM unnest('{f,t}'::bool[]) live;
SELECT is((SELECT count(*) FROM orders WHERE type = 'Answer') || ' ' || (SELECT count(*) FROM models.answered), '1 1', 'and nothing is left of it');
SELECT event_store.drop_event_table('answers') \g /dev/null

-- With the event table the shadows go.
SELECT event_store.rebuild_projection('refers') \g /dev/null
CREATE TEMPORARY TABLE dumped AS TABLE event_store.registered_projections;
UPDATE dumped SET name = 'inline', mode = 'inline', restored = false;
INSERT INTO event_store.registered_projections SELECT * FROM dumped WHERE shadow_schema = 'refers_rebuild' LIMIT 1;
SELECT is((SELECT restored FROM event_store.registered_projections WHERE name = 'inline'), true, 'a rebuild that a restore brings waits, also that of an inline projection');
DELETE FROM event_store.registered_projections WHERE name = 'inline';
UPDATE dumped SET shadow_schema = NULL;
INSERT INTO event_store.registered_projections SELECT * FROM dumped LIMIT 1;
SELECT is((SELECT restored FROM event_store.registered_projections WHERE name = 'inline'), false, 'which goes on without one');
DELETE FROM event_store.registered_projections WHERE name = 'inline';
DROP TABLE orders;
SELECT is((SELECT count(*) FROM pg_namespace WHERE nspname = 'refers_rebuild') || ' ' || (SELECT count(*) FROM event_store.registered_projections), '0 0', 'DROP TABLE of the event table in the middle of a rebuild');

DROP OWNED BY es_rebuild_reader;
DROP ROLE es_rebuild_reader;
SELECT * FROM finish();
