-- Expected versions: every kind, against every state of the stream, by every
-- function of the family; what an append returns; what a rolled-back append
-- leaves behind.
SET client_min_messages = warning;
SELECT plan(101);

SELECT lives_ok($$ SELECT event_store.create_event_table('orders') $$,
                'an event table is created');

-- A stream of that many events; its name is new each time.
CREATE SEQUENCE pg_temp.names;
CREATE FUNCTION pg_temp.stream_at(events bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name text := 'made-' || nextval('pg_temp.names');
BEGIN
    FOR i IN 1..events LOOP
        PERFORM event_store.append('orders', name, 'Made', '{}');
    END LOOP;
    RETURN name;
END $$;

-- Appends two events (append: one) and says what came of it.
CREATE FUNCTION pg_temp.attempt(way text, name text, expected bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result record;
    pair   jsonb := '[{"type": "A", "data": {}}, {"type": "B", "data": {}}]';
    before bigint := event_store.stream_version('orders', name);
BEGIN
    IF way = 'append' THEN
        SELECT * INTO result FROM event_store.append('orders', name, 'A', '{}', expected_version => expected);
    ELSIF way = 'append_batch' THEN
        SELECT * INTO result FROM event_store.append_batch('orders', name, '{A,B}', '{"{}","{}"}', expected_version => expected);
    ELSIF way = 'append_json' THEN
        SELECT * INTO result FROM event_store.append_json('orders', name, pair, expected_version => expected);
    ELSE
        SELECT * INTO result FROM event_store.append_streams('orders',
            jsonb_build_array(jsonb_build_object('stream', name, 'expected_version', expected, 'events', pair)));
    END IF;
    RETURN format('appended %s to %s', result.first_version, result.last_version);
EXCEPTION WHEN OTHERS THEN
    IF event_store.stream_version('orders', name) <> before THEN
        RETURN 'refused, but written';
    END IF;
    RETURN SQLSTATE;
END $$;

-- {state, expected version} -> may append?
SELECT is(pg_temp.attempt(way, pg_temp.stream_at(state), expected),
          CASE WHEN NOT ok THEN 'SE001'
               ELSE format('appended %s to %s', state + 1, state + CASE way WHEN 'append' THEN 1 ELSE 2 END) END,
          format('%s to a stream at version %s, expected_version %s (%s)', way, state, coalesce(expected::text, 'NULL'), kind))
  FROM unnest('{append,append_batch,append_json,append_streams}'::text[]) AS w(way),
       (VALUES (0, NULL,                        true,  'any'),
               (0, 0,                           true,  'none'),
               (0, 1,                           false, 'n + 1'),
               (0, 3,                           false, 'another'),
               (0, event_store.stream_exists(), false, 'exists'),
               (3, NULL,                        true,  'any'),
               (3, 0,                           false, 'none'),
               (3, 2,                           false, 'n - 1'),
               (3, 3,                           true,  'n'),
               (3, 4,                           false, 'n + 1'),
               (3, 9223372036854775807,         false, 'the greatest bigint'),
               (3, event_store.stream_exists(), true,  'exists')) AS c(state, expected, ok, kind);

SELECT is(pg_temp.attempt(way, 'never-1', expected), '22023',
          format('%s refuses expected_version %s', way, expected))
  FROM unnest('{append,append_batch,append_json,append_streams}'::text[]) AS w(way),
       (VALUES (-1), (-2), (-3), (-5), (-9223372036854775808)) AS c(expected);
SELECT is(event_store.stream_version('orders', 'never-1'), 0::bigint,
          'nothing was written by the calls with bad expected versions');

-- The rows of a query, as text.
CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) q', query) INTO result;
    RETURN result;
END $$;

-- What the error says.
\ir include/error_of.sql
SELECT event_store.append('orders', 'order-1', 'T', '{}', 0) \g /dev/null
SELECT event_store.append('orders', 'order-1', 'T', '{}', 1) \g /dev/null
SELECT event_store.append('orders', 'order-1', 'T', '{}', 2) \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.append('orders', 'order-1', 'T', '{}', 2) $$),
          E'SE001\nstream "order-1" is at version 3, not at the expected 2\nStream "order-1" is at version 3, expected 2.\n'
          'Read the stream again, decide anew, and append with its present version.\npublic.orders',
          'the error names stream, actual and expected version, and the table');
SELECT is(pg_temp.error_of($$ SELECT event_store.append('orders', 'order-9', 'T', '{}', event_store.stream_exists()) $$),
          E'SE001\nstream "order-9" does not exist, but was expected to\nStream "order-9" is at version 0, expected it to exist.\n'
          'Read the stream again, decide anew, and append with its present version.\npublic.orders',
          'the error of stream_exists() says that the stream does not exist');
SELECT is(pg_temp.error_of($$ SELECT event_store.append('orders', 'order-1', 'T', '{}', -1) $$),
          E'22023\ninvalid expected_version -1\n'
          'It is a version, 0 for a stream that must not exist, event_store.stream_exists() for one that must, or NULL for any.\n'
          'For "the stream must not exist" pass 0, for "any version" pass NULL.',
          'the hint for -1 says that "no stream" is 0 here');
SELECT unalike(pg_temp.error_of($$ SELECT event_store.append('orders', 'order-1', 'T', '{}', -2) $$), '%pass 0%',
               'other negative numbers get no such hint');
SELECT is(event_store.stream_exists(), -4::bigint, 'stream_exists() is -4, as in KurrentDB');

-- What is returned is what is stored.
CREATE TEMP TABLE returned AS
    SELECT 'single-1' AS stream, a.* FROM event_store.append('orders', 'single-1', 'T', '{}', 0) a
    UNION ALL
    SELECT 'batch-1', a.* FROM event_store.append_batch('orders', 'batch-1', '{A,B,C}', '{1,2,3}', 0) a
    UNION ALL
    SELECT 'json-1', a.* FROM event_store.append_json('orders', 'json-1', '[{"type":"A","data":1},{"type":"B","data":2}]', 0) a
    UNION ALL
    SELECT a.* FROM event_store.append_streams('orders',
         '[{"stream":"two-b","events":[{"type":"A","data":1},{"type":"B","data":2}]},
           {"stream":"two-a","events":[{"type":"C","data":3}]}]') a;
SELECT is(r::text, s::text, format('what %s returned for %s is what is stored', way, r.stream))
  FROM (VALUES ('append()', 'single-1'), ('append_batch()', 'batch-1'), ('append_json()', 'json-1'),
               ('append_streams()', 'two-b'), ('append_streams()', 'two-a')) AS c(way, stream)
  JOIN returned r USING (stream)
  LEFT JOIN (SELECT stream, min(version) AS first_version, max(version) AS last_version,
                    min(position) AS first_position, max(position) AS last_position,
                    array_agg(event_id ORDER BY version) AS event_ids, false AS duplicate
               FROM orders GROUP BY stream) s(stream, v1, v2, p1, p2, ids, duplicate) USING (stream);
SELECT is((SELECT array_agg(stream) FROM returned), '{single-1,batch-1,json-1,two-b,two-a}'::text[],
          'append_streams() returns a row per stream in the order of its argument');
SELECT is(pg_temp.rows_of($$ SELECT type, data, schema_version FROM orders WHERE stream = 'batch-1' ORDER BY version $$),
          '(A,1,1) (B,2,1) (C,3,1)', 'the events of a batch are stored in the order of the arrays');
SELECT results_eq(
    $$ SELECT get_byte(uuid_send(event_id), 6) >> 4, get_byte(uuid_send(event_id), 8) >> 6 FROM orders WHERE stream = 'single-1' $$,
    $$ VALUES (7, 2) $$,
    'an id that the writer does not give is a UUID of version 7');
SELECT is_empty(
    $$ SELECT * FROM (SELECT event_id, lag(event_id) OVER (ORDER BY position) AS earlier FROM orders) e WHERE event_id <= earlier $$,
    'ids made by one backend rise with the positions');
SELECT is_empty(
    $$ SELECT stream FROM orders GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1 $$,
    'no stream has a hole in its versions');

-- Every column, on its way through each function.
SELECT event_store.append('orders', 'full-1', 'T', '{"a": 1}', metadata => '{"m": 1}', correlation_id => 'c1',
    causation_id => 'c2', occurred_at => '2001-02-03 04:05:06+00', schema_version => 3,
    event_id => '00000000-0000-0000-0000-0000000000f1') \g /dev/null
SELECT event_store.append_batch('orders', 'full-2', '{T}', '{"{\"a\": 1}"}', metadata => '{"{\"m\": 1}"}', correlation_id => 'c1',
    causation_id => 'c2', occurred_at => '{"2001-02-03 04:05:06+00"}', schema_versions => '{3}',
    event_ids => '{00000000-0000-0000-0000-0000000000f2}') \g /dev/null
SELECT event_store.append_json('orders', 'full-3', '[{"type": "T", "data": {"a": 1}, "metadata": {"m": 1}, "correlation_id": "c1",
    "causation_id": "c2", "occurred_at": "2001-02-03T04:05:06Z", "schema_version": 3,
    "event_id": "00000000-0000-0000-0000-0000000000f3"}]') \g /dev/null
SELECT event_store.append_streams('orders', '[{"stream": "full-4", "events": [{"type": "T", "data": {"a": 1}, "metadata": {"m": 1},
    "correlation_id": "c1", "causation_id": "c2", "occurred_at": "2001-02-03T04:05:06Z", "schema_version": 3,
    "event_id": "00000000-0000-0000-0000-0000000000f4"}]}]') \g /dev/null
SELECT is(pg_temp.rows_of(format(
    $$ SELECT version, event_id, type, schema_version, data, metadata, correlation_id, causation_id, occurred_at AT TIME ZONE 'UTC',
              recorded_at BETWEEN now() - interval '1 hour' AND clock_timestamp() FROM orders WHERE stream = 'full-%s' $$, i)),
    '(1,00000000-0000-0000-0000-0000000000f' || i || ',T,3,"{""a"": 1}","{""m"": 1}",c1,c2,"2001-02-03 04:05:06",t)',
    way || ' stores every column that the caller gives')
  FROM (VALUES (1, 'append()'), (2, 'append_batch()'), (3, 'append_json()'), (4, 'append_streams()')) AS c(i, way);

-- Two appends in one statement see each other.
SELECT results_eq(
    $$ SELECT (SELECT last_version FROM event_store.append('orders', 'same-1', 'T', '{}', 0)),
              (SELECT last_version FROM event_store.append('orders', 'same-1', 'T', '{}', 1)) $$,
    $$ VALUES (1::bigint, 2::bigint) $$,
    'two appends to one stream in one statement see each other');
SELECT results_eq(
    $$ SELECT a.last_version FROM generate_series(0, 4) AS i,
              LATERAL event_store.append('orders', 'same-2', 'T', '{}', expected_version => i) a $$,
    $$ SELECT generate_series(1::bigint, 5) $$,
    'a lateral append per row of a query goes on from the one before');
SELECT results_eq(
    $$ WITH a AS (SELECT * FROM event_store.append('orders', 'same-3', 'T', '{}', 0)),
            b AS (INSERT INTO orders (stream, type, data) SELECT 'same-3', 'T', '{}' FROM a RETURNING version)
       SELECT a.last_version, b.version FROM a, b $$,
    $$ VALUES (1::bigint, 2::bigint) $$,
    'an append and a plain INSERT in one statement see each other');

-- Roll back a part of a transaction.
DO $$
BEGIN
    PERFORM event_store.append('orders', 'part-1', 'Kept', '{}', 0);
    BEGIN
        PERFORM event_store.append_batch('orders', 'part-1', '{Lost,Lost}', '{1,2}', 1);
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
    PERFORM event_store.append('orders', 'part-1', 'Kept', '{}', 1);
END $$;
SELECT is(pg_temp.rows_of($$ SELECT version, type FROM orders WHERE stream = 'part-1' ORDER BY version $$), '(1,Kept) (2,Kept)',
                  'a rolled-back sub-transaction leaves no hole in the versions');
SELECT is(event_store.high_water_mark('orders'), (SELECT max(position) FROM orders),
          'and the mark has moved on with the end of the transaction');
DO $$
BEGIN
    BEGIN
        PERFORM event_store.append('orders', 'part-2', 'T', '{}', 7);
    EXCEPTION WHEN SQLSTATE 'SE001' THEN
        PERFORM event_store.append('orders', 'part-2', 'Caught', '{}', 0);
    END;
END $$;
SELECT is((SELECT type FROM orders WHERE stream = 'part-2'), 'Caught',
          'SE001 can be caught, and the append tried again in the same transaction');

BEGIN;
SELECT event_store.append('orders', 'save-1', 'T', '{"n": 1}', 0) \g /dev/null
SAVEPOINT a;
SELECT event_store.append('orders', 'save-1', 'T', '{"n": 2}', 1) \g /dev/null
SAVEPOINT b;
SELECT event_store.append('orders', 'save-1', 'T', '{"n": 3}', 2) \g /dev/null
ROLLBACK TO b;
SELECT event_store.append('orders', 'save-1', 'T', '{"n": 4}', 2) \g /dev/null
RELEASE a;
COMMIT;
SELECT results_eq($$ SELECT version, data FROM orders WHERE stream = 'save-1' ORDER BY version $$,
                  $$ VALUES (1::bigint, '{"n": 1}'::jsonb), (2, '{"n": 2}'), (3, '{"n": 4}') $$,
                  'savepoints that are rolled back and released leave whole streams');

-- A loser burns no position.
SELECT last_position AS won FROM event_store.append('orders', 'burn-1', 'T', '{}') \gset
SELECT pg_temp.attempt('append_batch', 'burn-1', 9) AS lost \gset
SELECT is((SELECT :'lost' || ' ' || last_position - :won FROM event_store.append('orders', 'burn-1', 'T', '{}')),
          'SE001 1', 'an append that is refused for its expected version draws no position');

-- A rolled-back append is never a version; the stream goes on from what is there.
BEGIN;
SELECT event_store.append_batch('orders', 'again-1', '{A,B}', '{1,2}') \g /dev/null
ROLLBACK;
SELECT is(pg_temp.attempt('append', 'again-1', 0), 'appended 1 to 1', 'a rolled-back first append leaves the stream not existing');
SELECT is(pg_temp.attempt('append', 'again-1', NULL), 'appended 2 to 2', 'a stream name used again goes on with the next version');
SELECT is(pg_temp.attempt('append', 'again-1', 1), 'SE001', 'and is not at its old version any more');

-- Isolation levels: the look-up does not use the transaction's snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT event_store.append('orders', 'level-1', 'T', '{}', 0) \g /dev/null
SELECT event_store.append('orders', 'level-1', 'T', '{}', 1) \g /dev/null
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT event_store.append('orders', 'level-1', 'T', '{}', 2) \g /dev/null
SELECT event_store.append('orders', 'level-1', 'T', '{}', 3) \g /dev/null
COMMIT;
SELECT is(event_store.stream_version('orders', 'level-1'), 4::bigint,
          'appends go on from each other under REPEATABLE READ and SERIALIZABLE');

SELECT * FROM finish();
