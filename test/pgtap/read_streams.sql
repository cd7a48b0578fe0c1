-- Reading streams: read_stream(), stream_version(), last_event(), read_event(),
-- streams(), last_position(); every argument, and what a transaction sees.
SET client_min_messages = warning;
SELECT plan(158);

\ir include/rows_of.sql

-- Event i of plain stands at position i; the type says which it is.  a-1 has
-- versions 1 to 5 at positions 1, 3, 5, 7, 9.
CREATE FUNCTION pg_temp.fill(event_table regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..5 LOOP
        PERFORM event_store.append(event_table, 'a-1', CASE WHEN i % 2 = 1 THEN 'Odd' ELSE 'Even' END, to_jsonb(i), metadata => to_jsonb(-i),
            event_id => ('00000000-0000-0000-0000-00000000000' || i)::uuid, correlation_id => 'c' || i, causation_id => 'd' || i,
            occurred_at => '2001-01-01 00:00:00+00'::timestamptz + i * interval '1 day', schema_version => i);
        PERFORM event_store.append(event_table, CASE WHEN i < 3 THEN 'a-2' WHEN i < 5 THEN 'b-1' ELSE 'plain' END, 'Other', '{}');
    END LOOP;
END $$;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT pg_temp.fill('orders') \g /dev/null
-- The same events in a table with columns of its own, of which some are gone.
SELECT event_store.create_event_table('wide') \g /dev/null
ALTER TABLE wide ADD gone text DEFAULT 'x', ADD extra int NOT NULL DEFAULT 7, ADD more text GENERATED ALWAYS AS (type || '!') STORED;
SELECT pg_temp.fill('wide') \g /dev/null
ALTER TABLE wide DROP gone;
ALTER TABLE wide ADD late text DEFAULT 'late';

CREATE TEMP TABLE reads (query text, expected text, description text);
INSERT INTO reads VALUES
    -- read_stream
    ($$ SELECT version, position, type FROM event_store.read_stream('%s', 'a-1') $$, '(1,1,Odd) (2,3,Even) (3,5,Odd) (4,7,Even) (5,9,Odd)',
        'read_stream: all events in the order of versions'),
    ($$ SELECT position, stream, version, event_id, type, schema_version, data, metadata, correlation_id, causation_id, occurred_at AT TIME ZONE 'UTC', recorded_at IS NULL
          FROM event_store.read_stream('%s', 'a-1', 2, 1) $$,
     '(3,a-1,2,00000000-0000-0000-0000-000000000002,Even,2,2,-2,c2,d2,"2001-01-03 00:00:00",f)', 'read_stream: every column'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'none-1') $$, 'nothing', 'read_stream: a stream that does not exist has no events'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a') $$, 'nothing', 'read_stream: the category is not the stream'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 3) $$, '(3) (4) (5)', 'read_stream: from_version is inclusive'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 5) $$, '(5)', 'read_stream: from the last version'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 6) $$, 'nothing', 'read_stream: from a version that is not there yet'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 0) $$, '(1) (2) (3) (4) (5)', 'read_stream: from 0 is from the first'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', -9223372036854775808) $$, '(1) (2) (3) (4) (5)',
        'read_stream: so is the least bigint'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 9223372036854775807) $$, 'nothing',
        'read_stream: from the greatest bigint there is nothing'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', NULL) $$, '(1) (2) (3) (4) (5)',
        'read_stream: from_version NULL is from the first'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', max_count => 2) $$, '(1) (2)', 'read_stream: max_count'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 4, 10) $$, '(4) (5)', 'read_stream: max_count above what is there'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', max_count => 0) $$, 'nothing', 'read_stream: max_count 0 is none'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', max_count => NULL) $$, '(1) (2) (3) (4) (5)',
        'read_stream: max_count NULL is all'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', max_count => -1) $$, '22023: max_count must not be negative, but is -1',
        'read_stream: a negative max_count is refused'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', direction => 'backward') $$, '(5) (4) (3) (2) (1)',
        'read_stream: backward from the last'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 3, direction => 'backward') $$, '(3) (2) (1)',
        'read_stream: backward, from_version is inclusive'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 4, 2, 'backward') $$, '(4) (3)', 'read_stream: backward with max_count'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 99, 2, 'backward') $$, '(5) (4)', 'read_stream: backward from above the last'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 0, 2, 'backward') $$, 'nothing',
        'read_stream: backward from 0 there is nothing'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', 2, direction => NULL) $$, '(2) (3) (4) (5)',
        'read_stream: direction NULL is forward'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', direction => 'Forward') $$,
        '22023: direction must be forward or backward, not "Forward"', 'read_stream: another direction is refused'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', direction => '') $$, '22023: direction must be forward or backward, not ""',
        'read_stream: so is an empty one'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', as_of => (SELECT recorded_at FROM %1$s WHERE position = 5)) $$, '(1) (2) (3)',
        'read_stream: as_of is inclusive'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', as_of => (SELECT recorded_at - interval '1 microsecond' FROM %1$s WHERE position = 5)) $$, '(1) (2)', 'read_stream: as_of just before an event'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', as_of => (SELECT recorded_at FROM %1$s WHERE position = 7), direction => 'backward', max_count => 2) $$, '(4) (3)', 'read_stream: as_of backward: the last events of then'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', as_of => '-infinity') $$, 'nothing',
        'read_stream: as of the beginning of time'),
    ($$ SELECT version FROM event_store.read_stream('%s', 'a-1', as_of => 'infinity') $$, '(1) (2) (3) (4) (5)',
        'read_stream: as of the end of time'),
    ($$ SELECT version FROM event_store.read_stream('%s', NULL) $$, '22004: stream must not be null',
        'read_stream: a stream that is NULL is refused'),
    ($$ SELECT version FROM event_store.read_stream('%s', '') $$, '22023: stream must not be empty', 'read_stream: so is an empty one'),
    -- stream_version
    ($$ SELECT event_store.stream_version('%s', 'a-1') $$, '(5)', 'stream_version'),
    ($$ SELECT event_store.stream_version('%s', 'none-1') $$, '(0)', 'stream_version: 0 where there is no stream'),
    ($$ SELECT event_store.stream_version('%s', NULL) $$, '22004: stream must not be null', 'stream_version: NULL is refused'),
    -- last_event
    ($$ SELECT version, type FROM event_store.last_event('%s', 'a-1') $$, '(5,Odd)', 'last_event'),
    ($$ SELECT version, type FROM event_store.last_event('%s', 'a-1', 'Even') $$, '(4,Even)', 'last_event: of a type'),
    ($$ SELECT version, type FROM event_store.last_event('%s', 'a-1', 'even') $$, 'nothing', 'last_event: of a type that is not there'),
    ($$ SELECT version FROM event_store.last_event('%s', 'none-1') $$, 'nothing', 'last_event: of a stream that does not exist'),
    ($$ SELECT version FROM event_store.last_event('%s', NULL) $$, '22004: stream must not be null', 'last_event: NULL is refused'),
    -- read_event
    ($$ SELECT position, stream, version, data FROM event_store.read_event('%s', '00000000-0000-0000-0000-000000000004') $$, '(7,a-1,4,4)',
        'read_event'),
    ($$ SELECT position FROM event_store.read_event('%s', '00000000-0000-0000-0000-00000000000f') $$, 'nothing',
        'read_event: an id that is not there'),
    ($$ SELECT position FROM event_store.read_event('%s', NULL) $$, '22004: event_id must not be null', 'read_event: NULL is refused'),
    -- streams
    ($$ SELECT stream, version, last_position, last_recorded_at = (SELECT recorded_at FROM %1$s o WHERE o.position = last_position) FROM event_store.streams('%1$s') $$,
     '(a-1,5,9,t) (a-2,2,4,t) (b-1,2,8,t) (plain,1,10,t)', 'streams: all, in the order of names'),
    ($$ SELECT stream, version FROM event_store.streams('%s', 'a') $$, '(a-1,5) (a-2,2)', 'streams: of a category'),
    ($$ SELECT stream FROM event_store.streams('%s', 'plain') $$, '(plain)', 'streams: of a category that is a whole name'),
    ($$ SELECT stream FROM event_store.streams('%s', 'a-1') $$, 'nothing', 'streams: a stream is not a category'),
    ($$ SELECT stream FROM event_store.streams('%s', 'none') $$, 'nothing', 'streams: of a category that is not there'),
    ($$ SELECT stream FROM event_store.streams('%s', NULL) LIMIT 2 $$, '(a-1) (a-2)', 'streams: category NULL is all'),
    -- last_position
    ($$ SELECT event_store.last_position('%s') $$, '(10)', 'last_position');
SELECT is(pg_temp.rows_of(format(query, 'orders')), expected, description) FROM reads;
SELECT is(pg_temp.rows_of(format(query, 'wide')), expected, 'in a table with other columns: ' || description) FROM reads;
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.read_stream('orders', 'a-1') ORDER BY version $$),
    pg_temp.rows_of($$ SELECT * FROM orders WHERE stream = 'a-1' ORDER BY version $$),
          'read_stream returns the columns of the table, in their order');
SELECT is(array_agg(attname::text ORDER BY attnum), (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'orders'::regclass AND attnum > 0),
          'the type event has the columns that every event table begins with') FROM pg_attribute WHERE attrelid = 'event_store.event'::regclass
              AND attnum > 0;

-- Names that sort between a category and its streams do not hide streams.
SELECT event_store.create_event_table('names') \g /dev/null
INSERT INTO names (stream, type, data) SELECT s, 'T', '{}'
    FROM unnest('{a,a-,a-1,a--,"a,x","a.b","a/b",a!,"a b",A-1,ab-1,ä-1,-,-a,"a-ä",a-Z,a-a}'::text[]) AS s;
SELECT is((SELECT array_agg(stream ORDER BY ord) FROM event_store.streams('names', category) WITH ORDINALITY AS s(stream, version,
    last_position, last_recorded_at, ord)), expected, 'streams of category ' || quote_literal(category))
  FROM (VALUES ('a', '{a,a-,a--,a-1,a-Z,a-a,a-ä}'::text[]), ('ab', '{ab-1}'), ('A', '{A-1}'), ('ä', '{ä-1}'), ('', '{-,-a}'), ('a.b', '{a.b}'),
      ('a,x', '{"a,x"}'), ('a b', '{"a b"}')) AS c(category, expected);
SELECT is((SELECT count(*) FROM event_store.streams('names')), 17::bigint, 'and all streams are there');
SELECT is((SELECT array_agg(stream ORDER BY ord) FROM event_store.streams('names') WITH ORDINALITY AS s(stream, version, last_position,
    last_recorded_at, ord)),
          (SELECT array_agg(stream::text ORDER BY stream COLLATE "C") FROM names), 'in the order of their bytes');
SELECT is(event_store.category(stream), category, 'category of ' || quote_nullable(stream))
  FROM (VALUES ('order-1', 'order'), ('order', 'order'), ('order-1-2', 'order'), ('-1', ''), ('', ''), ('ö-ü', 'ö'), (NULL, NULL)) AS c(stream,
      category);

-- What a transaction sees.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT event_store.append('orders', 'mine-1', 'T', '"first"', event_id => '00000000-0000-0000-0000-0000000000aa') \g /dev/null
SELECT event_store.append('orders', 'mine-1', 'T', '"second"') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT version, data FROM event_store.read_stream('orders', 'mine-1') $$), '(1,"""first""") (2,"""second""")',
    'a transaction reads its own uncommitted events in streams');
SELECT is(concat_ws(' ', event_store.stream_version('orders', 'mine-1'), (SELECT version FROM event_store.last_event('orders', 'mine-1')),
                    (SELECT version FROM event_store.read_event('orders', '00000000-0000-0000-0000-0000000000aa')), (SELECT version
                        FROM event_store.streams('orders', 'mine'))),
          '2 2 1 2', 'so do stream_version, last_event, read_event and streams');
SELECT is(event_store.last_position('orders'), (SELECT max(position) FROM orders), 'and last_position');
COMMIT;
SELECT is((SELECT a.last_version || ' ' || event_store.stream_version('orders', 'mine-2') FROM event_store.append('orders', 'mine-2', 'T',
    '{}') a), '1 0',
          'a read does not see what its own statement has appended: it has the statement''s snapshot');
BEGIN;
DECLARE c CURSOR FOR SELECT version FROM event_store.read_stream('orders', 'mine-1');
SELECT event_store.append('orders', 'mine-1', 'T', '"third"') \g /dev/null
FETCH ALL FROM c \g /dev/null
CLOSE c;
COMMIT;
SELECT is(event_store.stream_version('orders', 'mine-1'), 3::bigint, 'an append while a cursor reads the same stream');
BEGIN READ ONLY;
SELECT is(pg_temp.rows_of($$ SELECT count(*) FROM event_store.read_stream('orders', 'mine-1') $$), '(3)', 'reading needs no right to write');
COMMIT;

-- A long stream, and large events.
SELECT event_store.append_batch('orders', 'long-1', array_fill('T'::text, ARRAY[3000]), (SELECT array_agg(to_jsonb(i) ORDER BY i)
    FROM generate_series(1, 3000) AS i)) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT count(*), sum(data::int), bool_and(version = data::int) FROM event_store.read_stream('orders', 'long-1') $$), '(3000,4501500,t)', 'stream reads have no hidden limit');
SELECT event_store.append('orders', 'large-1', 'T', to_jsonb(repeat('x', 200000))) \g /dev/null
SELECT is((SELECT length(data #>> '{}') FROM event_store.read_stream('orders', 'large-1')), 200000, 'an event stored out of line is read whole');

-- In a parallel worker, own uncommitted events included: what runs no upcasters.
BEGIN;
SELECT event_store.append('orders', 'parallel-1', 'T', '1') \g /dev/null
SET LOCAL force_parallel_mode = on;
CREATE TEMP TABLE parallel (plan text, version bigint);
DO $$
DECLARE
    line text;
BEGIN
    FOR line IN EXPLAIN (COSTS off) SELECT event_store.stream_version('orders', 'parallel-1') LOOP
        INSERT INTO parallel (plan) SELECT line WHERE line ~ 'Gather';
    END LOOP;
    UPDATE parallel SET version = (SELECT event_store.stream_version('orders', 'parallel-1'));
END $$;
COMMIT;
SELECT results_eq('SELECT plan, version FROM parallel', $$ VALUES ('Gather', 1::bigint) $$,
    'a parallel worker reads the transaction''s own events');
SET force_parallel_mode = on;
SELECT is(pg_temp.rows_of(format(query, 'orders')), expected, 'in a parallel worker: ' || description) FROM reads
    WHERE query ~ 'stream_version';
SELECT is(pg_temp.rows_of($$ SELECT event_store.last_position('orders') = (SELECT max(position) FROM orders), event_store.check_guards('orders') IS NULL,
                              event_store.position_at('orders', 'infinity') = event_store.last_position('orders'), (SELECT count(*) FROM event_store.streams('orders', 'a')) $$), '(t,t,t,2)',
          'in a parallel worker: last_position, check_guards, position_at, streams');
RESET force_parallel_mode;

-- Without the secondary indexes, everything can still be read.
DROP INDEX orders_category_position_idx, orders_correlation_id_position_idx, orders_causation_id_position_idx, orders_recorded_at_idx;
SELECT is(pg_temp.rows_of(format(query, 'orders')), expected, 'without secondary indexes: ' || description) FROM reads
    WHERE query ~ 'read_stream|last_event' AND query !~ 'last_position|NULL|''''';

SELECT * FROM finish();
