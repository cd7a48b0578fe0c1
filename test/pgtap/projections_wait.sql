-- wait_for_projection(), as far as nobody works in the background.
SET client_min_messages = warning;
SELECT plan(27);

\ir include/error_of.sql

CREATE ROLE es_wait_insert;
CREATE ROLE es_wait_none;
SELECT event_store.create_event_table('orders') \g /dev/null
GRANT INSERT ON orders TO es_wait_insert;
SELECT event_store.create_projection('manual', 'orders', 'SELECT FROM events', mode => 'manual', partitions => 2) \g /dev/null
SELECT event_store.create_projection('async', 'orders', 'SELECT 1 / (position - 2) FROM events', max_attempts => 1) \g /dev/null
-- The default timeout is 10 s: what takes half of it has waited in vain.
CREATE FUNCTION pg_temp.waits(arguments text, at_least interval DEFAULT '0') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result  text;
    began   timestamptz := clock_timestamp();
BEGIN
    EXECUTE format('SELECT event_store.wait_for_projection(%s)', arguments) INTO result;
    RETURN result || CASE WHEN clock_timestamp() - began < at_least THEN ' too early' WHEN clock_timestamp() - began > '5 s' THEN ' too late' ELSE '' END;
END $$;
CREATE FUNCTION pg_temp.cancelled(query text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN EXECUTE query; RETURN 'not'; EXCEPTION WHEN query_canceled THEN RETURN SQLSTATE; END $$;
SELECT is(pg_temp.waits($$ 'manual' $$), 'true', 'there is no event yet');
SELECT is(pg_temp.waits($$ 'manual', 0, '0' $$), 'true', 'position 0 is reached by all');
SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}') \g /dev/null
SELECT is(pg_temp.waits($$ 'manual', 1, '100 ms' $$, '100 ms'), 'false', 'not reached within the timeout');
SELECT is(pg_temp.waits($$ 'manual', timeout => '100 ms' $$, '100 ms'), 'false', 'nor all that there is');
SELECT is(pg_temp.waits($$ 'manual', 2, '0' $$), 'false', 'a timeout of 0 only looks');
SELECT event_store.run_projection('manual', 0), event_store.run_projection('manual') \g /dev/null
SELECT is(pg_temp.waits($$ 'manual', 2 $$), 'true', 'it has been reached');
SELECT is(pg_temp.waits($$ 'manual' $$), 'true', 'and with it all that there is');
SELECT is(pg_temp.waits($$ 'manual', 3, '100 ms' $$, '100 ms'), 'false', 'a position that is not there yet');
UPDATE event_store.projection_checkpoints SET position = 1 WHERE projection = 'manual' AND partition = 2;
SELECT is(pg_temp.waits($$ 'manual', 2, '0' $$), 'false', 'all partitions must have reached it');
SELECT is(pg_temp.waits($$ 'manual', 1, '0' $$), 'true', 'the least of them counts');

-- What stands still raises an error, behind what it has reached.
SELECT is(pg_temp.waits($$ 'async', 1, '100 ms' $$, '100 ms'), 'false', 'nobody runs an async one here');
SELECT event_store.pause_projection('async') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('async', 1) $$), E'55000\nprojection "async" is paused\nCall event_store.resume_projection(''async'').', 'a paused one');
SELECT is(pg_temp.waits($$ 'async', 0 $$), 'true', 'not for what it has reached');
SELECT event_store.resume_projection('async') \g /dev/null
UPDATE event_store.projection_checkpoints SET failed = true WHERE projection = 'async';
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('async', 1) $$),
    E'SE007\nprojection "async" has failed at position 0, before position 1\nSee event_store.projections, then call event_store.resume_projection(''async'').', 'one that has failed');
SELECT is(pg_temp.waits($$ 'async', 0 $$), 'true', 'not for what it has reached');
SELECT event_store.resume_projection('async') \g /dev/null
SELECT is(pg_temp.waits($$ 'async', 1, '0' $$), 'false', 'once it goes on');
BEGIN;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('manual', 1) $$),
    E'25001\ncannot wait for projection "manual" behind events of this transaction\nIt has appended to the event table, and nobody sees that before it ends.\nCommit first.', 'in a transaction that has appended');
ROLLBACK;
SELECT event_store.create_projection('inline', 'orders', 'SELECT FROM events', mode => 'inline') \g /dev/null
SELECT is(pg_temp.waits($$ 'inline', 1000000 $$), 'true', 'an inline one is always there');
BEGIN;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.waits($$ 'inline' $$), 'true', 'also in a transaction that has appended');
ROLLBACK;
SELECT is(pg_temp.error_of(format('SELECT event_store.wait_for_projection(%s)', a)), replace(expected, '|', E'\n'), 'refused: ' || a)
  FROM (VALUES ($$ 'manual', 1, NULL $$, '22004|timeout must not be null'), ($$ 'manual', 1, '-1 s' $$, '22023|timeout must not be negative: -00:00:01')) AS c(a, expected);
BEGIN READ ONLY;
SELECT is(pg_temp.waits($$ 'manual', 1 $$), 'true', 'it writes nothing');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.waits($$ 'manual', 1 $$), 'true', 'under REPEATABLE READ');
COMMIT;
SET statement_timeout = '50 ms';
SELECT is(pg_temp.cancelled($$ SELECT event_store.wait_for_projection('manual', 100) $$), '57014', 'it can be cancelled');
RESET statement_timeout;

-- Whoever appends or reads may wait.
SET ROLE es_wait_insert;
SELECT is(event_store.wait_for_projection('manual', 1), true, 'INSERT is enough for a position');
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('manual', timeout => '0') $$), E'42501\npermission denied for table orders', 'what there is takes SELECT');
SET ROLE es_wait_none;
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('manual', 1) $$), E'42501\npermission denied for table orders', 'without either');
RESET ROLE;

DROP OWNED BY es_wait_insert;
DROP ROLE es_wait_insert, es_wait_none;
SELECT * FROM finish();
