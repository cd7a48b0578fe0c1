-- run_projection(): what a handler sees, in which order, how often, and that
-- what it has written and the checkpoint go together.
SET client_min_messages = warning;
SELECT plan(70);

\ir include/error_of.sql
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE counts (stream text PRIMARY KEY, events bigint NOT NULL, positions bigint[] NOT NULL);
CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, position bigint NOT NULL, stream text NOT NULL, data jsonb);
CREATE FUNCTION see(event event_store.event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen (position, stream, data) VALUES (event.position, event.stream, event.data)';
\set counting 'INSERT INTO counts SELECT stream, count(*), array_agg(position) FROM events GROUP BY stream ON CONFLICT (stream) DO UPDATE SET events = counts.events + excluded.events, positions = counts.positions || excluded.positions'
CREATE FUNCTION pg_temp.run(name text, max_batches bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT * FROM event_store.run_projection(%L, %L)', name, max_batches)) $$;
-- A query of its own afterwards, to see what has been written.
CREATE FUNCTION pg_temp.run_then(name text, query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN pg_temp.run(name) || ' ' || pg_temp.rows_of(query); END $$;
CREATE FUNCTION pg_temp.append(stream text, count int, type text DEFAULT 'T') RETURNS bigint LANGUAGE sql AS
$$ SELECT (event_store.append_batch('orders', stream, array_agg(type), array_agg(to_jsonb(i)))).last_position FROM generate_series(1, count) i $$;

-- Nothing to do, something, nothing again.
SELECT event_store.create_projection('counts', 'orders', :'counting', mode => 'manual') \g /dev/null
SELECT is(pg_temp.run('counts'), '(0,0,0,0)', 'nothing has been appended yet');
SELECT pg_temp.append('a-' || i % 3, 1) FROM generate_series(1, 7) i \g /dev/null
SELECT is(pg_temp.run('counts'), '(7,1,0,7)', 'events, batches, parked, and the position');
SELECT is(pg_temp.rows_of('SELECT * FROM counts ORDER BY stream'), '(a-0,2,"{3,6}") (a-1,3,"{1,4,7}") (a-2,2,"{2,5}")', 'a statement sees the batch, in the order of positions');
SELECT is(pg_temp.run('counts'), '(0,0,0,7)', 'run again there is nothing');
SELECT is(pg_temp.run('counts', 0), '(0,0,0,7)', 'no batches at all');
SELECT is(pg_temp.rows_of('SELECT * FROM counts ORDER BY stream'), '(a-0,2,"{3,6}") (a-1,3,"{1,4,7}") (a-2,2,"{2,5}")', 'and nothing is counted twice');
SELECT is(pg_temp.run('counts', -1), '22023: max_batches must not be negative, but is -1', 'max_batches must not be negative');
SELECT is(pg_temp.rows_of($$ SELECT c.position, c.event_id = e.event_id, events, batches, errors, own_appends FROM event_store.projection_checkpoints c, event_store.read_all('orders', 6) e $$), '(7,t,7,1,0,0)', 'the checkpoint names the event');
SELECT is(pg_temp.rows_of($$ SELECT position, lag_events, lag_seconds, status FROM event_store.projections $$), '(7,0,0,ready)', 'and the view that it keeps up');

-- A function, per event; a statement that only reads; several statements; all columns.
SELECT event_store.create_projection('seen', 'orders', function => 'see(event_store.event)', mode => 'manual') \g /dev/null
SELECT is(pg_temp.run('seen'), '(7,1,0,7)', 'a function');
SELECT is((SELECT string_agg(position || ':' || stream, ' ' ORDER BY n) FROM seen), '1:a-1 2:a-2 3:a-0 4:a-1 5:a-2 6:a-0 7:a-1', 'is called for each event in turn');
CREATE FUNCTION no_return(event event_store.event) RETURNS text LANGUAGE plpgsql STRICT AS $$ BEGIN INSERT INTO seen (position, stream) VALUES (event.position, 'strict'); RETURN NULL; END $$;
SELECT event_store.create_projection('strict', 'orders', function => 'no_return(event_store.event)', mode => 'manual') \g /dev/null
SELECT is(pg_temp.run_then('strict', $$ SELECT count(*) FROM seen WHERE stream = 'strict' $$), '(7,1,0,7) (7)', 'a strict one that returns NULL');
SELECT event_store.create_projection('reads', 'orders', 'SELECT * FROM events', mode => 'manual') \g /dev/null
SELECT is(pg_temp.run('reads'), '(7,1,0,7)', 'a statement that only reads');
CREATE TABLE steps (n bigint GENERATED ALWAYS AS IDENTITY, what text);
SELECT event_store.create_projection('several', 'orders', 'INSERT INTO steps (what) SELECT ''first '' || count(*) FROM events; INSERT INTO steps (what) SELECT ''then '' || what FROM steps; UPDATE steps SET what = what || ''!'' WHERE what = ''then first 7''', mode => 'manual') \g /dev/null
SELECT is(pg_temp.run_then('several', 'SELECT what FROM steps ORDER BY n'), '(7,1,0,7) ("first 7") ("then first 7!")', 'several statements, each sees what the one before has done');
CREATE TABLE copies (LIKE orders);
SELECT event_store.create_projection('copies', 'orders', 'INSERT INTO copies SELECT * FROM events', mode => 'manual') \g /dev/null
SELECT event_store.append('orders', 'b-1', 'All', '{"a": [1]}', metadata => '{"m": 1}', correlation_id => 'c', causation_id => 'd', occurred_at => '2001-01-01', schema_version => 3) \g /dev/null
SELECT is(pg_temp.run('copies'), '(8,1,0,8)', 'a statement that copies');
SELECT is_empty('(SELECT * FROM orders EXCEPT SELECT * FROM copies) UNION ALL (SELECT * FROM copies EXCEPT SELECT * FROM orders)', 'events have all columns of the event table');

-- Batches.
SELECT event_store.create_projection('batches', 'orders', 'INSERT INTO steps (what) SELECT string_agg(position::text, '','') FROM events', mode => 'manual', batch_size => 3) \g /dev/null
TRUNCATE steps;
SELECT is(pg_temp.run('batches', 1), '(3,1,0,3)', 'one batch');
SELECT is(pg_temp.run('batches', 2), '(5,2,0,8)', 'two more, the last of them not full');
SELECT is((SELECT string_agg(what, ' ' ORDER BY n) FROM steps), '1,2,3 4,5,6 7,8', 'are what the handler has seen');
SELECT is((SELECT batches || ' ' || events FROM event_store.projections WHERE name = 'batches'), '3 8', 'and the view counts');

-- Filters, and the checkpoint where nothing matches.
SELECT event_store.create_projection('types', 'orders', 'INSERT INTO steps (what) SELECT ''types '' || position FROM events', mode => 'manual', types => '{All,Rare}') \g /dev/null
SELECT event_store.create_projection('categories', 'orders', 'INSERT INTO steps (what) SELECT ''categories '' || position FROM events', mode => 'manual', categories => '{b}') \g /dev/null
SELECT event_store.create_projection('both', 'orders', 'INSERT INTO steps (what) SELECT ''both '' || position FROM events', mode => 'manual', categories => '{a}', types => '{Rare}') \g /dev/null
SELECT event_store.create_projection('after', 'orders', 'INSERT INTO steps (what) SELECT ''after '' || position FROM events', mode => 'manual', start_after => 7) \g /dev/null
TRUNCATE steps;
SELECT is(pg_temp.run(name), expected, name) FROM (VALUES ('types', '(1,1,0,8)'), ('categories', '(1,1,0,8)'), ('both', '(0,0,0,8)'), ('after', '(1,1,0,8)')) AS c(name, expected);
SELECT is((SELECT string_agg(what, ', ' ORDER BY what) FROM steps), 'after 8, categories 8, types 8', 'only what is wanted has been handled');
SELECT is((SELECT c.event_id FROM event_store.projection_checkpoints c WHERE projection = 'both'), (SELECT event_id FROM orders WHERE position = 8), 'a filter that matches nothing moves the checkpoint all the same');
SELECT pg_temp.append('a-1', 1, 'Rare') \g /dev/null
SELECT is(pg_temp.run('both'), '(1,1,0,9)', 'and later events match');

-- Partitions.
SELECT event_store.create_projection('parts', 'orders', function => 'see(event_store.event)', mode => 'manual', partitions => 4, batch_size => 2) \g /dev/null
SELECT pg_temp.append('p-' || i, 1) FROM generate_series(1, 100) i \g /dev/null
TRUNCATE seen;
SELECT matches(pg_temp.run('parts'), '^\(109,\d+,0,109\)$', 'all partitions are run');
SELECT is((SELECT count(*) || ' ' || count(DISTINCT position) FROM seen), '109 109', 'each event once');
SELECT is_empty('SELECT stream FROM (SELECT stream, position < lag(position) OVER (PARTITION BY stream ORDER BY n) AS bad FROM seen) s WHERE bad', 'each stream in its order');
SELECT is(pg_temp.rows_of($$ SELECT count(*), min(position), max(position), min(events) > 0, sum(events) FROM event_store.projection_checkpoints WHERE projection = 'parts' $$), '(4,109,109,t,109)', 'all have had something to do');
SELECT pg_temp.append('p-' || i % 20, 1) FROM generate_series(1, 40) i \g /dev/null
SELECT matches(pg_temp.run('parts', 3), '^\(6,3,0,', 'max_batches is for all partitions together');
SELECT lives_ok(format('SELECT event_store.alter_projection(''parts'', partitions => %s)', n), 'now ' || n || ' partitions') FROM (VALUES (1), (7), (2)) AS c(n);
SELECT matches(pg_temp.run('parts'), '^\(\d+,\d+,0,149\)$', 'run to the end');
SELECT is((SELECT count(*) || ' ' || count(DISTINCT position) FROM seen), '149 149', 'no event is lost, and none is handled twice');
SELECT is_empty('SELECT stream FROM (SELECT stream, position < lag(position) OVER (PARTITION BY stream ORDER BY n) AS bad FROM seen) s WHERE bad', 'each stream in its order still');

-- Paused, the remaining ones cannot be handled.
UPDATE event_store.projection_checkpoints c SET position = 120, event_id = o.event_id FROM orders o WHERE o.position = 120 AND projection = 'parts' AND partition = 2;
SELECT event_store.pause_projection('parts') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('parts', partitions => 1) $$), '^55000\nprojection "parts" is paused', 'a paused one runs nothing to get other partitions');
SELECT event_store.drop_projection('parts') \g /dev/null

-- Transactions.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('counts') $$), E'25001\nrun_projection() must not be called under REPEATABLE READ\nCall it in a transaction of its own, which is READ COMMITTED.', 'not under REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT matches(pg_temp.run('counts'), '^25001: .* SERIALIZABLE', 'nor SERIALIZABLE');
ROLLBACK;
BEGIN;
SELECT pg_temp.append('own-1', 2) \g /dev/null
SELECT is(pg_temp.run('counts'), '(142,1,0,149)', 'events of this transaction are not handled before it has committed');
SELECT is((SELECT count(*) FROM counts WHERE stream = 'own-1'), 0::bigint, 'nor seen');
COMMIT;
SELECT is(pg_temp.run('counts'), '(2,1,0,151)', 'then they are');
SELECT pg_temp.append('undo-1', 3) \g /dev/null
BEGIN;
SELECT is(pg_temp.run('counts'), '(3,1,0,154)', 'in a transaction');
ROLLBACK;
SELECT is((SELECT position FROM event_store.projections WHERE name = 'counts') || ' ' || (SELECT count(*) FROM counts WHERE stream = 'undo-1'), '151 0', 'ROLLBACK takes back the read model and the checkpoint');
BEGIN;
SAVEPOINT s;
SELECT is(pg_temp.run('counts'), '(3,1,0,154)', 'behind a savepoint');
ROLLBACK TO s;
SELECT is((SELECT position FROM event_store.projections WHERE name = 'counts') || ' ' || (SELECT count(*) FROM counts WHERE stream = 'undo-1'), '151 0', 'ROLLBACK TO SAVEPOINT takes back both, too');
SELECT is(pg_temp.run('counts'), '(3,1,0,154)', 'run again in the same transaction');
COMMIT;
SELECT is((SELECT events FROM counts WHERE stream = 'undo-1'), 3::bigint, 'they count once');
SELECT pg_temp.append('two-1', 1) \g /dev/null
BEGIN;
SELECT events AS prepared FROM event_store.run_projection('counts') \gset
PREPARE TRANSACTION 'es_projections';
SELECT is(:prepared, 1, 'in a transaction that is prepared');
SELECT is((SELECT position FROM event_store.projections WHERE name = 'counts') || ' ' || (SELECT count(*) FROM counts WHERE stream = 'two-1'), '154 0', 'nothing is seen of it');
COMMIT PREPARED 'es_projections';
SELECT is((SELECT position FROM event_store.projections WHERE name = 'counts') || ' ' || (SELECT count(*) FROM counts WHERE stream = 'two-1'), '155 1', 'before COMMIT PREPARED');
SELECT is_empty('SELECT stream, count(*), array_agg(position ORDER BY position) FROM orders GROUP BY 1 EXCEPT SELECT * FROM counts', 'the read model is the fold of all events');

-- The plan of a statement, over batches of other sizes; another definition is used at once.
SELECT event_store.create_projection('plans', 'orders', 'INSERT INTO seen (position, stream) SELECT position, ''plans'' FROM events', mode => 'manual', start_after => 155) \g /dev/null
TRUNCATE seen;
SELECT pg_temp.append('plan-1', n), pg_temp.run('plans') FROM unnest('{1,1}'::int[]) n \g /dev/null
SELECT is(pg_temp.run('plans'), '(2,1,0,157)', 'a batch of 2');
SELECT pg_temp.append('plan-1', 1000) \g /dev/null
SELECT is(pg_temp.run('plans'), '(1000,1,0,1157)', 'a batch of 1000');
SELECT pg_temp.append('plan-1', 1) \g /dev/null
SELECT is(pg_temp.run('plans'), '(1,1,0,1158)', 'a batch of 1');
SELECT pg_temp.append('plan-1', 1) \g /dev/null
SELECT event_store.alter_projection('plans', 'INSERT INTO seen (position, stream) SELECT position, ''changed'' FROM events') \g /dev/null
SELECT is(pg_temp.run('plans'), '(1,1,0,1159)', 'another statement');
SELECT pg_temp.append('plan-1', 1) \g /dev/null
ALTER TABLE seen ADD COLUMN more int DEFAULT 7;
SELECT is(pg_temp.run('plans'), '(1,1,0,1160)', 'the table has been altered');
SELECT is(pg_temp.rows_of('SELECT stream, count(*), count(DISTINCT position) FROM seen GROUP BY 1 ORDER BY 1'), '(changed,2,2) (plans,1003,1003)', 'each event once, by the definition of the time');
CREATE FUNCTION pg_temp.last_seen() RETURNS text LANGUAGE sql AS $$ SELECT stream FROM seen ORDER BY n DESC LIMIT 1 $$;
BEGIN;
SELECT event_store.alter_projection('plans', 'INSERT INTO seen (position, stream) SELECT position, ''undone'' FROM events'), event_store.reset_projection('plans', 1159) \g /dev/null
SELECT is(pg_temp.run_then('plans', 'SELECT pg_temp.last_seen()'), '(1,1,0,1160) (undone)', 'altered in the same transaction');
ROLLBACK;
BEGIN;
SELECT event_store.reset_projection('plans', 1159) \g /dev/null
SELECT is(pg_temp.run_then('plans', 'SELECT pg_temp.last_seen()'), '(1,1,0,1160) (changed)', 'that is rolled back');
SELECT event_store.drop_projection('plans'), event_store.create_projection('plans', 'orders', 'INSERT INTO seen (position, stream) SELECT position, ''new'' FROM events', mode => 'manual', start_after => 1159) \g /dev/null
SELECT is(pg_temp.run_then('plans', 'SELECT pg_temp.last_seen()'), '(1,1,0,1160) (new)', 'another one of the same name');
ROLLBACK;

-- Upcasters; a checkpoint of another log.
CREATE FUNCTION up(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN '"up"'::jsonb;
SELECT event_store.register_upcaster('orders', 'Old', 1, 'up(jsonb)') \g /dev/null
SELECT event_store.create_projection('upcast', 'orders', 'INSERT INTO steps (what) SELECT data #>> ''{}'' || schema_version FROM events', mode => 'manual', start_after => 1160) \g /dev/null
TRUNCATE steps;
SELECT pg_temp.append('up-1', 1, 'Old') \g /dev/null
SELECT is(pg_temp.run_then('upcast', 'SELECT what FROM steps'), '(1,1,0,1161) (up2)', 'a handler sees the newest schema version');
UPDATE event_store.projection_checkpoints SET event_id = gen_random_uuid() WHERE projection = 'upcast';
SELECT matches(pg_temp.run('upcast'), '^SE009: ', 'a checkpoint whose event is another one: SE009');
UPDATE event_store.projection_checkpoints SET position = 5000 WHERE projection = 'upcast';
SELECT matches(pg_temp.run('upcast'), '^SE009: ', 'and one that is ahead of the log');

-- Going back.
SELECT is((SELECT count(*) FROM seen WHERE stream = 'changed'), 2::bigint, 'before the reset');
SELECT lives_ok($$ SELECT event_store.reset_projection('plans', 1158) $$, 'reset_projection() to a position');
SELECT is(pg_temp.run_then('plans', $$ SELECT count(*) FROM seen WHERE stream = 'changed' $$), '(3,1,0,1161) (5)', 'what is behind it is handled again');
BEGIN;
TRUNCATE seen;
SELECT event_store.reset_projection('plans') \g /dev/null
COMMIT;
SELECT is(pg_temp.run_then('plans', 'SELECT count(*) FROM seen'), '(1161,1,0,1161) (1161)', 'from the beginning');

SELECT * FROM finish();
