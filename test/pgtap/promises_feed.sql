-- What the README and the comments promise of marks, positions and versions,
-- beyond what other files look at: nothing foreign holds a feed up, no number
-- is cut off, no row is updated.
SET client_min_messages = warning;
SELECT plan(26);

\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
CREATE TABLE plain (n int);

-- Prepared transactions that have nothing to do with the table.
SELECT event_store.append('orders', 'a-1', 'T', '1') \g /dev/null
BEGIN;
INSERT INTO plain VALUES (1);
PREPARE TRANSACTION 'es_promises_plain';
BEGIN;
SELECT event_store.append('others', 'a-1', 'T', '1') \g /dev/null
PREPARE TRANSACTION 'es_promises_others';
BEGIN;
LOCK TABLE orders IN ROW EXCLUSIVE MODE;
INSERT INTO plain SELECT event_store.stream_version('orders', 'a-1');
PREPARE TRANSACTION 'es_promises_reader';
SELECT event_store.append('orders', 'a-1', 'T', '2') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.read_all('orders') $$), '(1) (2)',
    'prepared transactions that have appended nothing to the table do not hold up its feed');
SELECT is(pg_temp.rows_of('SELECT event_table, prepared_transaction FROM event_store.mark_holders'), '(others,es_promises_others)',
    'only the one that has appended holds a mark, that of its own table');
ROLLBACK PREPARED 'es_promises_plain';
ROLLBACK PREPARED 'es_promises_others';
ROLLBACK PREPARED 'es_promises_reader';

-- An append updates and deletes no row, in no table and no catalog.
CREATE TEMP TABLE changed (way text, n bigint);
CREATE FUNCTION pg_temp.changed_rows() RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(pg_stat_get_xact_tuples_updated(oid) + pg_stat_get_xact_tuples_deleted(oid))::bigint FROM pg_class WHERE relkind IN ('r', 't') $$;
BEGIN;
INSERT INTO plain VALUES (7);
SELECT pg_temp.changed_rows() AS before \gset
UPDATE plain SET n = 8;
INSERT INTO changed SELECT 'UPDATE', pg_temp.changed_rows() - :before;
COMMIT;
BEGIN;
SELECT pg_temp.changed_rows() AS before \gset
SELECT event_store.append('orders', 'a-1', 'T', '3', 2, gen_random_uuid(), '{}', 'c', 'd', now(), 2) \g /dev/null
SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{4,5}') \g /dev/null
SELECT event_store.append_streams('orders', '[{"stream": "a-2", "events": [{"type": "T", "data": 1}]}]',
    '[{"stream": "a-1", "expected_version": 5}]') \g /dev/null
INSERT INTO orders (stream, type, data) VALUES ('a-1', 'T', '6');
INSERT INTO changed SELECT 'append', pg_temp.changed_rows() - :before;
COMMIT;
SELECT is((SELECT n FROM changed WHERE way = 'UPDATE'), 1::bigint, 'an UPDATE would be counted');
SELECT is((SELECT n FROM changed WHERE way = 'append'), 0::bigint, 'appends of every kind update and delete no row anywhere');

-- Called through (…).* a function is called once per column: why the README says FROM.
SELECT event_store.append('others', 'star-1', 'T', '{}') \g /dev/null
SELECT (event_store.append('others', 'star-1', 'T', '{}')).* \g /dev/null
SELECT is(event_store.stream_version('others', 'star-1'), 7::bigint, '(append(…)).* appends once for each of its six columns');
SELECT * FROM event_store.append('others', 'star-1', 'T', '{}') \g /dev/null
SELECT is(event_store.stream_version('others', 'star-1'), 8::bigint, 'in FROM it appends once');

-- Positions above 2^31, 2^32, and up to the last one, 2^47 - 1.
CREATE FUNCTION pg_temp.at(above bigint) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM setval('orders_position_seq', above);
    RETURN NEXT is((SELECT first_position FROM event_store.append('orders', 'far-1', 'T', '{}')), above + 1, format('an append at position %s', above + 1));
    RETURN NEXT is((SELECT format('%s %s', event_table, position) FROM event_store.mark_holders), format('orders %s', above), 'mark_holders shows its holder there');
    RETURN NEXT is(event_store.high_water_mark('orders'), above, 'and the mark stays below it');
END $$;
SELECT pg_temp.at(2147483647);
SELECT pg_temp.at(4294967295);
SELECT pg_temp.at(140737488355325);
SELECT is(event_store.high_water_mark('orders'), 140737488355326, 'then the mark is there');
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.read_category('orders', 'far') $$),
    '(2147483648) (4294967296) (140737488355326)', 'a feed goes over the gaps');
SELECT is(pg_temp.rows_of($$ SELECT checkpoint, jsonb_path_query_array(events, '$[*].position') FROM event_store.read_batch('orders', 4294967295) $$),
    '(140737488355326,"[4294967296, 140737488355326]")', 'so does read_batch()');
SELECT is(pg_temp.rows_of($$ SELECT last_position FROM event_store.event_tables WHERE event_table = 'orders'::regclass $$), '(140737488355326)',
    'event_tables shows the last position');
-- As a prepared transaction, at the very last position.
BEGIN;
SELECT event_store.append('orders', 'far-1', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_promises_far';
SELECT is(pg_temp.rows_of('SELECT position, prepared_transaction FROM event_store.mark_holders'), '(140737488355326,es_promises_far)',
    'a prepared transaction holds the mark below the last position that there is');
COMMIT PREPARED 'es_promises_far';
SELECT is(pg_temp.rows_of($$ SELECT position, version FROM event_store.read_all('orders', 140737488355326) $$), '(140737488355327,4)',
    'and that is delivered when it commits');

-- Versions above 2^32, as a restore may bring them.
SET session_replication_role = replica;
INSERT INTO others (position, stream, version, event_id, type, data, recorded_at)
    VALUES (1000, 'long-1', 5000000000, gen_random_uuid(), 'T', '{}', now());
RESET session_replication_role;
SELECT event_store.guard('others') \g /dev/null
SELECT is((SELECT last_version FROM event_store.append('others', 'long-1', 'T', '{}', 5000000000)), 5000000001, 'append() to version 5000000000');
INSERT INTO others (stream, type, data, version) VALUES ('long-1', 'T', '{}', 5000000002);
SELECT is(pg_temp.rows_of($$ SELECT version FROM event_store.read_stream('others', 'long-1', 5000000001) $$), '(5000000001) (5000000002)',
    'a plain INSERT behind it; read_stream() from there');
SELECT event_store.save_snapshot('others', 'long-1', 5000000002, '{}') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT version FROM event_store.load_snapshot('others', 'long-1', max_version => 5000000002) $$), '(5000000002)',
    'and a snapshot');

-- streams() skips from stream to stream: its cost does not grow with the events.
SELECT event_store.create_event_table('wide') \g /dev/null
CREATE FUNCTION pg_temp.blocks() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) SELECT * FROM event_store.streams(''wide'')' INTO plan;
    RETURN (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint;
END $$;
INSERT INTO wide (stream, type, data) SELECT 'w-' || i % 3, 'T', '{}' FROM generate_series(1, 30000) AS i;
VACUUM ANALYZE wide;
SELECT pg_temp.blocks() \g /dev/null
SELECT is((SELECT count(*) FROM event_store.streams('wide')), 3::bigint, 'three streams of 10,000 events each');
SELECT cmp_ok(pg_temp.blocks(), '<', 100::bigint, 'to list them takes few blocks, however many events they have');

SELECT * FROM finish();
