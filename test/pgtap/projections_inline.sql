-- Inline projections: in the appending transaction, over the new events only.
SET client_min_messages = warning;
SELECT plan(77);

\ir include/error_of.sql
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'before-1', '{T,T}', '{1,2}') \g /dev/null
CREATE TABLE log (n bigint GENERATED ALWAYS AS IDENTITY, batch text, total bigint);
CREATE TABLE model (position bigint PRIMARY KEY, stream text, version bigint, data jsonb);
CREATE FUNCTION pg_temp.logged() RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    SELECT coalesce(string_agg(batch, ' ' ORDER BY n), 'nothing') INTO result FROM log;
    TRUNCATE log;
    RETURN result;
END $$;

-- What is there already comes first; then what each way of appending brings.
SELECT event_store.create_projection('log', 'orders', 'INSERT INTO log (batch, total) SELECT string_agg(stream || ''.'' || version, ''+''), (SELECT count(*) FROM orders) FROM events', mode => 'inline') \g /dev/null
SELECT is(pg_temp.logged(), 'before-1.1+before-1.2', 'what was there before is handled first');
SELECT is(pg_temp.rows_of('SELECT mode, status, position, events FROM event_store.projections'), '(inline,ready,,)', 'it has no checkpoint');
SELECT is((SELECT coalesce(lag_events, 0) + coalesce(lag_seconds, 0) FROM event_store.projections), 0::double precision, 'nor is it ever behind');
SELECT is((SELECT count(*) FROM event_store.projection_checkpoints), 0::bigint, 'not a row');
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.logged(), 'a-1.1', 'append');
SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}') \g /dev/null
SELECT is(pg_temp.logged(), 'a-1.2+a-1.3', 'append_batch');
SELECT event_store.append_json('orders', 'a-2', '[{"type": "T", "data": 1}, {"type": "T", "data": 1}]') \g /dev/null
SELECT is(pg_temp.logged(), 'a-2.1+a-2.2', 'append_json');
SELECT event_store.append_streams('orders', '[{"stream": "a-3", "events": [{"type": "T", "data": 1}]}, {"stream": "a-1", "events": [{"type": "T", "data": 1}]}]') \g /dev/null
SELECT is(pg_temp.logged(), 'a-3.1+a-1.4', 'append_streams');
INSERT INTO orders (stream, type, data) VALUES ('a-4', 'T', '{}'), ('a-1', 'T', '{}'), ('a-4', 'T', '{}');
SELECT is(pg_temp.logged(), 'a-4.1+a-1.5+a-4.2', 'INSERT');
COPY orders (stream, type, data) FROM stdin;
a-5	T	{}
a-5	T	{}
\.
SELECT is(pg_temp.logged(), 'a-5.1+a-5.2', 'COPY');
SELECT event_store.append('orders', 'a-6', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
SELECT pg_temp.logged() \g /dev/null
SELECT event_store.append('orders', 'a-6', 'T', '{}', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
INSERT INTO orders (stream, type, data) SELECT 'a-7', 'T', '{}' WHERE false;
SELECT is(pg_temp.logged(), 'nothing', 'an append that appends nothing runs nothing');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT event_store.append('orders', 'a-7', 'T', '{}') \g /dev/null
SELECT is((SELECT string_agg(batch, ' ') FROM log), 'a-7.1', 'under SERIALIZABLE, and read at once');
ROLLBACK;
SELECT is(pg_temp.logged(), 'nothing', 'ROLLBACK takes it back');
BEGIN;
SAVEPOINT s;
SELECT event_store.append('orders', 'a-7', 'T', '{}') \g /dev/null
ROLLBACK TO s;
SELECT event_store.append('orders', 'a-8', 'T', '{}') \g /dev/null
COMMIT;
SELECT is(pg_temp.logged(), 'a-8.1', 'so does ROLLBACK TO SAVEPOINT');
SELECT is(event_store.wait_for_projection('log', 1000), true, 'nobody has to wait for it');
SELECT is(pg_temp.error_of(format('SELECT event_store.%s(''log'')', f)), replace(expected, '|', E'\n'), f || '() of an inline one')
  FROM (VALUES ('run_projection', '55000|projection "log" is inline|It has seen every event that has been appended.'),
               ('pause_projection', '55000|projection "log" is inline and cannot be paused|It would never see what is appended meanwhile.|Change its mode to "manual".'),
               ('reset_projection', '55000|projection "log" is inline and has no checkpoint|event_store.rebuild_projection() makes its tables anew.'),
               ('resume_projection', 'no error')) AS c(f, expected);
SELECT event_store.drop_projection('log') \g /dev/null
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'projection %'), 0::bigint, 'its trigger goes with it');
SELECT event_store.append('orders', 'a-8', 'T', '{}') \g /dev/null
SELECT is(pg_temp.logged(), 'nothing', 'dropped, it does nothing');

-- Filters, upcasters, a function; errors.
CREATE FUNCTION keep(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data ? 'bad' THEN RAISE EXCEPTION 'bad %', event.version; END IF;
    INSERT INTO model VALUES (event.position, event.stream, event.version, event.data);
END $$;
CREATE FUNCTION up(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN '{"up": true}'::jsonb;
SELECT event_store.register_upcaster('orders', 'Old', 1, 'up(jsonb)') \g /dev/null
SELECT event_store.create_projection('keep', 'orders', function => 'keep(event_store.event)', mode => 'inline', types => '{A,Old}', categories => '{k}') \g /dev/null
SELECT event_store.append_batch('orders', 'k-1', '{A,B,Old,A}', '{1,2,3,4}'), event_store.append('orders', 'l-1', 'A', '{}') \g /dev/null
SELECT is((SELECT string_agg(stream || '.' || version || '.' || data, ' ' ORDER BY position) FROM model), 'k-1.1.1 k-1.3.{"up": true} k-1.4.4', 'only what the filters let through, upcast');
CREATE TEMP TABLE ways (way text, command text);
INSERT INTO ways VALUES ('append', $$ SELECT event_store.append('orders', 'k-2', 'A', '{"bad": 1}') $$), ('append_batch', $$ SELECT event_store.append_batch('orders', 'k-2', '{A,A}', '{1,"{\"bad\": 1}"}') $$),
    ('append_json', $$ SELECT event_store.append_json('orders', 'k-2', '[{"type": "A", "data": {"bad": 1}}]') $$),
    ('append_streams', $$ SELECT event_store.append_streams('orders', '[{"stream": "k-3", "events": [{"type": "A", "data": 1}]}, {"stream": "k-2", "events": [{"type": "A", "data": {"bad": 1}}]}]') $$),
    ('INSERT', $$ INSERT INTO orders (stream, type, data) VALUES ('k-2', 'A', '1'), ('k-2', 'A', '{"bad": 1}') $$);
SELECT matches(pg_temp.error_of(command), E'^P0001\nbad [12]$', way || ': an error of the handler fails it') FROM ways;
SELECT is((SELECT count(*) FROM orders WHERE stream IN ('k-2', 'k-3')) || ' ' || (SELECT count(*) FROM model WHERE stream IN ('k-2', 'k-3')), '0 0', 'and nothing is left of it');
SELECT is((event_store.append('orders', 'k-2', 'A', '{}', 0)).last_version, 1::bigint, 'the session goes on');

-- A handler that appends: once, and for ever.
CREATE FUNCTION follow(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_store.append('public.orders', event.stream, 'Followed', jsonb_build_object('after', event.version));
END $$;
SELECT event_store.create_projection('follow', 'orders', function => 'follow(event_store.event)', mode => 'inline', types => '{Start}') \g /dev/null
SELECT event_store.append_batch('orders', 'f-1', '{Start,Start}', '{1,2}') \g /dev/null
SELECT is((SELECT string_agg(version || ' ' || type || ' ' || data, ', ' ORDER BY version) FROM orders WHERE stream = 'f-1'), '1 Start 1, 2 Start 2, 3 Followed {"after": 1}, 4 Followed {"after": 2}', 'a handler may append to its own event table');
SELECT event_store.alter_projection('follow', types => '{Start,Followed}') \g /dev/null
SELECT throws_ok($$ SELECT event_store.append('orders', 'f-2', 'Start', '{}') $$, '54001', NULL, 'one that answers itself comes to an end');
SELECT is((SELECT count(*) FROM orders WHERE stream = 'f-2'), 0::bigint, 'and nothing is left');
SELECT event_store.drop_projection('follow') \g /dev/null
SELECT is((SELECT count(*) FROM orders), (SELECT max(position) FROM (SELECT row_number() OVER () AS position FROM orders) r), 'the log can be read');

-- From one mode to another and back.
TRUNCATE model;
SELECT event_store.create_projection('modes', 'orders', 'INSERT INTO model SELECT position, stream, version, data FROM events', mode => 'manual', partitions => 2) \g /dev/null
SELECT event_store.drop_projection('keep') \g /dev/null
CREATE FUNCTION pg_temp.complete() RETURNS text LANGUAGE sql AS
$$ SELECT count(*) - count(m.position) || ' missing, ' || count(m.position) - count(DISTINCT m.position) || ' double' FROM orders o LEFT JOIN model m USING (position) $$;
SELECT event_store.run_projection('modes', 0) \g /dev/null
SELECT event_store.append('orders', 'm-' || i, 'T', '{}') FROM generate_series(1, 5) i \g /dev/null
SELECT lives_ok($$ SELECT event_store.alter_projection('modes', mode => 'inline') $$, 'manual to inline');
SELECT is(pg_temp.complete(), '0 missing, 0 double', 'what it had not handled has been');
SELECT event_store.append('orders', 'm-' || i, 'T', '{}') FROM generate_series(1, 5) i \g /dev/null
SELECT is(pg_temp.complete(), '0 missing, 0 double', 'inline');
SELECT lives_ok($$ SELECT event_store.alter_projection('modes', mode => 'manual') $$, 'inline to manual');
SELECT is(pg_temp.rows_of($$ SELECT partition, position FROM event_store.projection_checkpoints $$), format('(1,%s) (2,%s)', event_store.last_position('orders'), event_store.last_position('orders')), 'its checkpoints are at the end');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'projection %'), 0::bigint, 'the trigger is gone');
SELECT event_store.append('orders', 'm-' || i, 'T', '{}') FROM generate_series(1, 5) i \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('modes') $$), '(5)', 'what came since');
SELECT is(pg_temp.complete(), '0 missing, 0 double', 'is all there was');
SELECT lives_ok($$ SELECT event_store.alter_projection('modes', mode => 'inline', partitions => 3) $$, 'both at once');
SELECT lives_ok($$ SELECT event_store.alter_projection('modes', partitions => 1) $$, 'the partitions of an inline one');
SELECT event_store.append('orders', 'm-' || i, 'T', '{}') FROM generate_series(1, 5) i \g /dev/null
SELECT lives_ok($$ SELECT event_store.alter_projection('modes', mode => 'async') $$, 'inline to async');
SELECT is(pg_temp.complete(), '0 missing, 0 double', 'nothing is lost, nothing is double');
SELECT is((SELECT count(*) FROM event_store.projection_checkpoints), 1::bigint, 'as many checkpoints as partitions');
SELECT event_store.pause_projection('modes') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('modes', mode => 'inline') $$), '^55000\nprojection "modes" is paused', 'a paused one cannot become inline');
SELECT event_store.resume_projection('modes') \g /dev/null
BEGIN;
SELECT event_store.append('orders', 'm-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.alter_projection('modes', mode => 'inline') $$),
    E'25001\nprojection "modes" cannot be changed in a transaction that has appended to its event table\nCommit first. If it is its own handler that has appended, let it catch up before.', 'nor in a transaction that has appended');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('modes', mode => 'inline') $$), '^25001\n', 'nor under REPEATABLE READ');
ROLLBACK;
SELECT event_store.append('orders', 'm-1', 'Poison', '{}') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.create_projection('late', 'orders', 'SELECT 1 / 0 FROM events WHERE type = ''Poison''', mode => 'inline') $$), '^SE007\n.* failed at position \d+: division by zero\n', 'an event from before that fails: SE007');
SELECT is((SELECT count(*) FROM event_store.registered_projections WHERE name = 'late'), 0::bigint, 'it has not been made');
SELECT is(pg_temp.error_of(format('SELECT event_store.create_projection(%L, ''orders'', ''SELECT FROM events'', mode => ''inline'')', repeat('x', 53))),
    format(E'42622\nthe name of an inline projection must not be longer than 52 bytes, but "%s" has 53', repeat('x', 53)), 'its name becomes a trigger''s');
SELECT is(pg_temp.error_of(format('SELECT event_store.create_projection(%L, ''orders'', ''INSERT INTO log (batch) SELECT stream FROM events'', mode => ''inline'', types => ''{Odd}'')', n)), 'no error', 'the name ' || n)
  FROM unnest(ARRAY[repeat('x', 52), E'Odd "''\\ name']) n;
SELECT event_store.append('orders', 'odd-1', 'Odd', '{}') \g /dev/null
SELECT is(pg_temp.logged(), 'odd-1 odd-1', 'is found again by the trigger');
SELECT event_store.drop_projection(name) FROM event_store.registered_projections WHERE mode = 'inline' \g /dev/null

-- Triggers made by hand.
CREATE TRIGGER "projection modes" AFTER INSERT ON orders REFERENCING NEW TABLE AS events FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline('modes');
SELECT matches(pg_temp.error_of($$ SELECT event_store.append('orders', 'm-1', 'T', '{}') $$), '^55000\ntrigger "projection modes" of table "orders" is not that of an inline projection\nDrop the trigger\.', 'a trigger for a projection that is not inline');
DROP TRIGGER "projection modes" ON orders;
SELECT event_store.create_projection('hand', 'orders', 'INSERT INTO log (batch) SELECT stream FROM events', mode => 'inline', types => '{Hand}') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
CREATE TRIGGER "projection hand" AFTER INSERT ON others REFERENCING NEW TABLE AS events FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline('hand');
SELECT matches(pg_temp.error_of($$ SELECT event_store.append('others', 'm-1', 'Hand', '{}') $$), '^55000\ntrigger "projection hand" of table "others" is not that', 'one on another table');
CREATE TRIGGER other AFTER INSERT ON orders REFERENCING NEW TABLE AS events FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline('hand');
SELECT matches(pg_temp.error_of($$ SELECT event_store.append('orders', 'm-1', 'T', '{}') $$), '^55000\ntrigger "other" of table "orders" is not that', 'a second one');
DROP TRIGGER other ON orders;
CREATE TRIGGER other AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION event_store._project_inline('hand');
SELECT matches(pg_temp.error_of($$ SELECT event_store.append('orders', 'm-1', 'T', '{}') $$), '^39P01\nthis function must be called as the trigger of an inline projection', 'one for each row');
DROP TRIGGER other ON orders;
SELECT matches(pg_temp.error_of(command), '^(2BP01|55000|SE005)', 'what would lose events is refused: ' || command)
  FROM unnest(ARRAY['ALTER TABLE orders DISABLE TRIGGER "projection hand"', 'ALTER TABLE orders ENABLE REPLICA TRIGGER "projection hand"', 'ALTER TABLE orders DISABLE TRIGGER USER',
                    'ALTER TABLE orders DISABLE TRIGGER ALL', 'ALTER TRIGGER "projection hand" ON orders RENAME TO other']) command;
SELECT event_store.append('orders', 'm-1', 'Hand', '{}') \g /dev/null
SELECT is(pg_temp.logged(), 'm-1', 'it still runs');
SELECT is(pg_temp.error_of('ALTER TABLE orders ENABLE ALWAYS TRIGGER "projection hand"'), 'no error', 'ENABLE ALWAYS loses nothing');
BEGIN;
SELECT event_store.append('orders', 'm-1', 'Hand', '{}') \g /dev/null
SELECT matches(pg_temp.error_of('DROP TRIGGER "projection hand" ON orders'), '^25001\n', 'DROP TRIGGER in a transaction that has appended');
ROLLBACK;
BEGIN;
DROP TRIGGER "projection hand" ON orders;
SELECT is(pg_temp.rows_of($$ SELECT mode, status FROM event_store.projections WHERE name = 'hand' $$), '(manual,paused)', 'DROP TRIGGER makes it manual and pauses it');
ROLLBACK;
SELECT event_store.append('orders', 'm-2', 'Hand', '{}') \g /dev/null
SELECT is(pg_temp.logged() || pg_temp.rows_of($$ SELECT mode, status FROM event_store.projections WHERE name = 'hand' $$), 'm-2(inline,ready)', 'ROLLBACK makes it what it was');
DROP TRIGGER "projection hand" ON orders;
SELECT is(pg_temp.rows_of($$ SELECT rebuild, partition, position FROM event_store.projection_checkpoints WHERE projection = 'hand' $$), format('(f,1,%s)', event_store.last_position('orders')), 'dropped: its checkpoint is at the end');
SELECT event_store.append('orders', 'm-3', 'Hand', '{}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('hand') $$) ~ '^55000\nprojection "hand" is paused\n', true, 'it waits');
SELECT event_store.resume_projection('hand') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('hand') $$) || pg_temp.logged(), '(1)m-3', 'and goes on where the trigger has stopped');
SELECT event_store.append('orders', 'm-4', 'Hand', '{}') \g /dev/null
SELECT event_store.alter_projection('hand', mode => 'inline') \g /dev/null
SELECT event_store.append('orders', 'm-5', 'Hand', '{}') \g /dev/null
SELECT is(pg_temp.logged(), 'm-4 m-5', 'inline again: nothing is lost, nothing is double');
CREATE TRIGGER "projection nothing" AFTER INSERT ON others FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline('nothing');
SELECT lives_ok('DROP TRIGGER "projection nothing" ON others', 'a trigger of no projection can be dropped');
SELECT lives_ok('DROP EXTENSION event_store CASCADE', 'DROP EXTENSION');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'projection %'), 0::bigint, 'takes the triggers with it');
SELECT is((SELECT count(*) > 0 FROM model), true, 'and leaves what projections have written');

SELECT * FROM finish();
