-- append_streams(): all streams or none, every failing check in one error, and
-- the table's lock instead of very many stream locks.
SET client_min_messages = warning;
SELECT plan(36);

CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) q', query) INTO result;
    RETURN result;
END $$;
\ir include/error_of.sql

-- {"stream": …, "expected_version": …, "events": n events of type T}
CREATE FUNCTION pg_temp.write(stream text, expected bigint, n int DEFAULT 1) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('stream', stream, 'expected_version', expected, 'events',
               (SELECT jsonb_agg(jsonb_build_object('type', 'T', 'data', i)) FROM generate_series(1, n) AS i)) $$;
CREATE FUNCTION pg_temp.look(stream text, expected bigint) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('stream', stream, 'expected_version', expected) $$;
-- n streams of that prefix, one event each
CREATE FUNCTION pg_temp.many(prefix text, n int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_agg(pg_temp.write(prefix || i, 0)) FROM generate_series(1, n) AS i $$;

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}') \g /dev/null
SELECT event_store.append('orders', 'b-1', 'T', '1') \g /dev/null

SELECT is(pg_temp.rows_of($$ SELECT stream, first_version, last_version, last_position - first_position, array_length(event_ids, 1), duplicate
                               FROM event_store.append_streams('orders', jsonb_build_array(pg_temp.write('b-1', 1, 3), pg_temp.write('c-1', 0),
                                    pg_temp.write('a-1', event_store.stream_exists(), 2), pg_temp.write('d-1', NULL))) $$),
          '(b-1,2,4,2,3,f) (c-1,1,1,0,1,f) (a-1,3,4,1,2,f) (d-1,1,1,0,1,f)',
          'several streams, each with its own expected version, in one call');
SELECT is(array_agg(stream ORDER BY position), '{a-1,a-1,b-1,b-1,b-1,b-1,c-1,a-1,a-1,d-1}', 'positions are in the order of the argument')
  FROM orders;

-- Checks.
SELECT lives_ok(format($$ SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('w-1', NULL)), jsonb_build_array(%s)) $$,
    checks),
                'a check holds: ' || description)
  FROM (VALUES ($$ pg_temp.look('a-1', 4) $$, 'exact version'),
               ($$ pg_temp.look('x-1', 0) $$, 'no stream'),
               ($$ pg_temp.look('b-1', -4) $$, 'stream_exists()'),
               ($$ pg_temp.look('a-1', 4), pg_temp.look('b-1', 4), pg_temp.look('x-1', 0) $$, 'three at once')) AS c(checks, description);
SELECT is(event_store.stream_version('orders', 'x-1'), 0::bigint, 'a check writes nothing to its stream');
SELECT lives_ok($$ SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('w-1', 4)), '[]') $$,
    'an empty array of checks is none');

SELECT count(*) AS before FROM orders \gset
SELECT last_value AS sequence FROM orders_position_seq \gset
SELECT is(pg_temp.error_of(format($$ SELECT event_store.append_streams('orders', jsonb_build_array(%s), jsonb_build_array(%s)) $$, appends,
    checks)),
          E'SE001\n' || error || E'\nRead the stream again, decide anew, and append with its present version.\npublic.orders', description)
  FROM (VALUES
    ($$ pg_temp.write('n-1', 0), pg_temp.write('a-1', 3) $$, $$ pg_temp.look('b-1', 4) $$,
     E'stream "a-1" is at version 4, not at the expected 3\nStream "a-1" is at version 4, expected 3.',
         'one stream of two is not at its version'),
    ($$ pg_temp.write('n-1', 0) $$, $$ pg_temp.look('a-1', 4), pg_temp.look('b-1', 5) $$,
     E'stream "b-1" is at version 4, not at the expected 5\nStream "b-1" is at version 4, expected 5.', 'one check of two fails'),
    ($$ pg_temp.write('n-1', 1), pg_temp.write('a-1', 4), pg_temp.write('b-1', 0) $$,
        $$ pg_temp.look('x-1', -4), pg_temp.look('a-2', 0), pg_temp.look('c-1', 9) $$,
     E'wrong expected versions of 4 streams\nStream "n-1" is at version 0, expected 1.\nStream "b-1" is at version 4, expected 0.\n'
     'Stream "x-1" is at version 0, expected it to exist.\nStream "c-1" is at version 1, expected 9.',
     'all failing versions and checks are reported at once, in the order of the arguments')) AS c(appends, checks, error, description);
SELECT is(pg_temp.error_of($$ SELECT event_store.append_streams('orders', (SELECT jsonb_agg(pg_temp.write('m-' || i, 7) ORDER BY i) FROM generate_series(1, 25) AS i)) $$),
          E'SE001\nwrong expected versions of 25 streams\n'
          || (SELECT string_agg(format('Stream "m-%s" is at version 0, expected 7.', i), E'\n' ORDER BY i) FROM generate_series(1, 20) AS i)
          || E'\n5 more.\nRead the stream again, decide anew, and append with its present version.\npublic.orders',
          'of very many failing checks twenty are listed and the rest counted');
SELECT is(count(*), :before::bigint, 'a failing check has kept all streams from being written') FROM orders;
SELECT is(last_value, :sequence::bigint, 'and no position was drawn') FROM orders_position_seq;

-- Bad input in one element, whatever its place, keeps all from being written.
SELECT throws_ok(format($$ SELECT event_store.append_streams('orders', jsonb_build_array(%s), jsonb_build_array(%s)) $$, appends, checks),
    '22023', message, description)
  FROM (VALUES
    ($$ pg_temp.write('n-1', 0), pg_temp.write('n-2', 0), pg_temp.write('n-1', 1) $$, '', 'stream "n-1" is named more than once',
        'a stream twice in appends'),
    ($$ pg_temp.write('n-1', 0) $$, $$ pg_temp.look('a-1', 4), pg_temp.look('a-1', 4) $$, 'stream "a-1" is named more than once',
        'a stream twice in checks'),
    ($$ pg_temp.write('n-1', 0) $$, $$ pg_temp.look('n-1', 0) $$, 'stream "n-1" is named more than once', 'a stream in appends and in checks'),
    ($$ pg_temp.write('n-1', 0), '{"stream": "n-2", "events": [{"type": "", "data": 1}]}'::jsonb $$, '', 'type must not be empty',
        'a bad event in the last stream'))
    AS c(appends, checks, message, description);
SELECT throws_ok($$ SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('n-1', 0),
                       '{"stream": "n-2", "events": [{"type": "T", "data": 1}, {"type": "T", "data": 1, "occurred_at": "20010-99-99"}]}'::jsonb)) $$,
                 '22008', NULL, 'a value that cannot be read in the last stream');
SELECT is(event_store.stream_version('orders', 'n-1'), 0::bigint, 'none of these has written the first stream');
DO $$
BEGIN
    PERFORM event_store.append_streams('orders', jsonb_build_array(pg_temp.write('q-1', 0)) || jsonb_build_array('[]'));
EXCEPTION WHEN OTHERS THEN
    DECLARE
        context text;
    BEGIN
        GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
        PERFORM set_config('test.context', split_part(context, E'\n', 1), false);
    END;
END $$;
SELECT is(current_setting('test.context'), 'element 2 of 2 of appends', 'the error''s context says which element it is about');

-- Which locks.
CREATE VIEW locks AS
    SELECT count(*) FILTER (WHERE locktype = 'userlock' AND objsubid = -1 AND mode = 'ExclusiveLock') AS written,
           count(*) FILTER (WHERE locktype = 'userlock' AND objsubid = -1 AND mode = 'ShareLock') AS checked,
           count(*) FILTER (WHERE locktype = 'userlock' AND objsubid <> -1 AND mode = 'ShareLock') AS in_flight,
           count(*) FILTER (WHERE locktype = 'relation' AND relation = 'orders'::regclass AND mode = 'ShareRowExclusiveLock') AS on_table
      FROM pg_locks WHERE pid = pg_backend_pid() AND (database, coalesce(relation, classid)) IN
           (SELECT d.oid, 'orders'::regclass FROM pg_database d WHERE d.datname = current_database());
CREATE TEMP TABLE held (what text, locks text);
BEGIN;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('l-1', 0), pg_temp.write('l-2', 0)),
    jsonb_build_array(pg_temp.look('l-3', 0))) \g /dev/null
INSERT INTO held SELECT 'two and a check', locks::text FROM locks;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('l-4', 0), pg_temp.write('l-1', 1))) \g /dev/null
INSERT INTO held SELECT 'two more calls', locks::text FROM locks;
COMMIT;
BEGIN;
SELECT event_store.append_streams('orders', pg_temp.many('thousand-', 1000)) \g /dev/null
INSERT INTO held SELECT '1000', locks::text FROM locks;
COMMIT;
BEGIN;
SELECT event_store.append_streams('orders', pg_temp.many('more-', 1001)) \g /dev/null
INSERT INTO held SELECT '1001', locks::text FROM locks;
SELECT event_store.append('orders', 'l-9', 'T', '{}') \g /dev/null
INSERT INTO orders (stream, type, data) VALUES ('l-10', 'T', '{}');
INSERT INTO held SELECT '1001 and one', locks::text FROM locks;
COMMIT;
BEGIN;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('l-5', 0)),
                                  (SELECT jsonb_agg(pg_temp.look('none-' || i, 0)) FROM generate_series(1, 1000) AS i)) \g /dev/null
INSERT INTO held SELECT '1 and 1000 checks', locks::text FROM locks;
COMMIT;
BEGIN;
LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('l-6', 0), pg_temp.write('l-7', 0))) \g /dev/null
INSERT INTO held SELECT 'after LOCK TABLE', locks::text FROM locks;
COMMIT;
SELECT is(h.locks, c.locks, 'locks: ' || description)
  FROM (VALUES ('two and a check', '(2,1,1,0)', 'exclusive for streams that are written, shared for those that are checked'),
               ('two more calls', '(3,1,1,0)', 'one per stream and transaction, one in-flight lock per transaction'),
               ('1000', '(1000,0,1,0)', '1,000 streams are locked one by one'),
               ('1001', '(0,0,1,1)', 'above 1,000 the table is locked SHARE ROW EXCLUSIVE, and no stream'),
               ('1001 and one', '(0,0,1,1)', 'later appends of the transaction need no stream lock either'),
               ('1 and 1000 checks', '(0,0,1,1)', 'checks count as well'),
               ('after LOCK TABLE', '(0,0,1,1)', 'a transaction that has locked the table takes no stream lock')) AS c(what, locks, description)
  JOIN held h USING (what);
SELECT is((SELECT l::text FROM locks l), '(0,0,0,0)', 'the end of the transaction releases all of them');

-- Many streams, and names that share a hash.
SELECT is(pg_temp.rows_of($$ SELECT count(*), count(DISTINCT stream), min(first_version), max(last_version), bool_or(duplicate)
                               FROM event_store.append_streams('orders', pg_temp.many('five-', 5000)) $$), '(5000,5000,1,1,f)',
          '5,000 streams in one call');
SELECT is((SELECT count(*) FROM event_store.streams('orders', 'five')), 5000::bigint, 'and all are there');
SELECT is(event_store.category('order-333215'), event_store.category('order-47776'), 'the two names that share a hash are of one category');
BEGIN;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('order-333215', 0), pg_temp.write('order-47776', 0, 2))) \g /dev/null
INSERT INTO held SELECT 'collision', locks::text FROM locks;
COMMIT;
BEGIN;
SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('order-47776', 2)), jsonb_build_array(pg_temp.look('order-333215',
    1))) \g /dev/null
INSERT INTO held SELECT 'collision with a check', locks::text FROM locks;
COMMIT;
SELECT is(pg_temp.rows_of($$ SELECT stream, version FROM event_store.streams('orders', 'order') $$), '(order-333215,1) (order-47776,3)',
          'two names that share a hash are still two streams');
SELECT is(h.locks, c.locks, description)
  FROM (VALUES ('collision', '(1,0,1,0)', 'two names that share a hash share one lock'),
               ('collision with a check', '(1,0,1,0)', 'the exclusive one, where one is only checked')) AS c(what, locks, description)
  JOIN held h USING (what);
SELECT throws_ok($$ SELECT event_store.append_streams('orders', jsonb_build_array(pg_temp.write('order-47776', 3)), jsonb_build_array(pg_temp.look('order-333215', 3))) $$,
                 'SE001', 'stream "order-333215" is at version 1, not at the expected 3',
                     'the version checked is that of the name, not of the hash');

SELECT * FROM finish();
