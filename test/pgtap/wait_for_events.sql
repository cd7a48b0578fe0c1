-- wait_for_events(), as far as one session can tell: arguments, what it returns
-- without waiting and at the time-out, privileges, row-level security.
SET client_min_messages = warning;
SELECT plan(73);

\ir include/error_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('empty') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
-- Positions 1 to 3; 4 is lost.
SELECT event_store.append_batch('orders', 'a-1', '{T,T,T}', '{1,2,3}') \g /dev/null
DO $$
BEGIN
    PERFORM event_store.append('orders', 'a-1', 'Lost', '{}');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    NULL;
END $$;

-- What it returns, or raises, and how long that takes.
CREATE FUNCTION pg_temp.wait(arguments text, OUT result text, OUT took interval) LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    EXECUTE format('SELECT event_store.wait_for_events(%s)', arguments) INTO result;
    took := clock_timestamp() - started;
EXCEPTION WHEN OTHERS THEN
    result := SQLSTATE || ': ' || SQLERRM;
END $$;

-- There is something: at once.
SELECT is(w.result, '3', 'it does not wait: ' || arguments) FROM (VALUES
    ($$ 'orders' $$), ($$ 'orders', NULL $$), ($$ 'orders', 0 $$), ($$ 'orders', 2 $$), ($$ 'orders', -7 $$),
    ($$ 'orders', -9223372036854775808 $$), ($$ 'orders', after => 0 $$), ($$ event_table => 'orders', after => 1, timeout => '1 hour' $$),
    ($$ 'orders', 2, '0' $$), ($$ 'orders', 2, '30 seconds' $$), ($$ 'orders', 2, '1 year' $$), ($$ 'orders', 2, '1000000 years' $$), ($$ 'orders', 2, '2000000000 days' $$),
    ($$ 'orders', 2, '2562047788 hours' $$), ($$ 'orders', 2, '178000000 years' $$)) AS c(arguments), pg_temp.wait(arguments) w;

-- There is not: the checkpoint at the time-out.
SELECT is(w.result, expected, 'after the end: ' || arguments) FROM (VALUES
    ($$ 'orders', 3, '0' $$, '3'), ($$ 'orders', 3, '10 ms' $$, '3'), ($$ 'orders', 3, '1 microsecond' $$, '3'), ($$ 'orders', 4, '10 ms' $$, '3'),
    ($$ 'orders', 1000, '0' $$, '3'), ($$ 'orders', 1000, '10 ms' $$, '3'), ($$ 'orders', 9223372036854775807, '10 ms' $$, '3'),
    ($$ 'orders', 3, '1 day -24 hours' $$, '3'), ($$ 'orders', 3, '1 mon -30 days 10 ms' $$, '3'),
    ($$ 'empty', NULL, '0' $$, '0'), ($$ 'empty', 0, '10 ms' $$, '0'), ($$ 'empty', 5, '10 ms' $$, '0'), ($$ 'empty', timeout => '10 ms' $$, '0')
    ) AS c(arguments, expected), pg_temp.wait(arguments) w;
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_events('empty', -1, '60 s') $$), 'no error', 'after -1 even 0 is something');
SELECT cmp_ok((pg_temp.wait($$ 'orders', 3, '250 ms' $$)).took, '>=', interval '250 ms', 'it waits for the whole time');
SELECT cmp_ok((pg_temp.wait($$ 'orders', 3, '1 day -24 hours 200 ms' $$)).took, '>=', interval '200 ms', 'days and hours are added up');

-- What is refused.
SELECT is(w.result, expected, 'refused: ' || arguments) FROM (VALUES
    ($$ NULL $$, '22004: event_table must not be null'),
    ($$ NULL, 0, '0' $$, '22004: event_table must not be null'),
    ($$ 'orders', 0, NULL $$, '22004: timeout must not be null'),
    ($$ 'orders', 0, '-1 s' $$, '22023: timeout must not be negative: -00:00:01'),
    ($$ 'orders', 0, '-1 microsecond' $$, '22023: timeout must not be negative: -00:00:00.000001'),
    ($$ 'orders', 0, '-178000000 years' $$, '22023: timeout must not be negative: -178000000 years'),
    ($$ 'orders', 0, '1 mon -31 days' $$, '22023: timeout must not be negative: 1 mon -31 days'),
    ($$ 'orders', 0, '1 day -25:00' $$, '22023: timeout must not be negative: 1 day -25:00:00'),
    ($$ 'orders', 3, '-1 s' $$, '22023: timeout must not be negative: -00:00:01'),
    ($$ 'none', 0, '0' $$, '42P01: relation "none" does not exist'),
    ($$ 4294967295::oid::regclass, 0, '0' $$, '42P01: relation with OID 4294967295 does not exist')) AS c(arguments, expected), pg_temp.wait(arguments) w;

-- Tables of the wrong kind.
CREATE TABLE plain (LIKE orders);
CREATE TABLE audit (what text);
SELECT event_store.make_append_only('audit') \g /dev/null
CREATE VIEW seen AS SELECT * FROM orders;
CREATE TABLE parted (LIKE orders) PARTITION BY RANGE (position);
CREATE TEMP TABLE temporary (LIKE orders);
SELECT alike(w.result, 'SE004: "' || name || '" is not an event table', name || ' is no event table, and is not waited for') FROM unnest('{plain,audit,seen,parted,temporary}'::text[]) AS name,
    pg_temp.wait(format('%L, 0, %L', name, '60 s')) w;
SELECT alike((pg_temp.wait($$ 'orders_pkey', 0, '60 s' $$)).result, '_____: %"orders_pkey"%', 'nor is an index');

-- Own appends that are not committed.
BEGIN;
SELECT event_store.append('orders', 'own-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_events('orders', 3, '60 s') $$),
    E'25001\ncannot wait for events behind those of this transaction\nIt has appended to the event table, so the feed stops before its events until it ends.\nCommit first.',
    'to wait behind an own append that is not committed is refused, at once');
SELECT is((pg_temp.wait($$ 'orders', 2, '60 s' $$)).result, '3', 'what is there already is returned');
SELECT is((pg_temp.wait($$ 'orders', 3, '0' $$)).result, '3', 'who does not wait is not refused');
SELECT is((pg_temp.wait($$ 'empty', 0, '10 ms' $$)).result, '0', 'another table can be waited for');
COMMIT;
SELECT is((pg_temp.wait($$ 'orders', 3, '60 s' $$)).result, '5', 'after the commit it is there');
BEGIN;
SAVEPOINT s;
INSERT INTO others (stream, type, data) VALUES ('own-1', 'T', '{}');
ROLLBACK TO s;
SELECT alike((pg_temp.wait($$ 'others', 0, '60 s' $$)).result, '25001: %', 'refused too where a savepoint has undone the append: its positions are in flight to the end');
ROLLBACK;
SELECT is((pg_temp.wait($$ 'others', 0, '10 ms' $$)).result, '0', 'not any more in the next transaction');

-- In what transactions.
BEGIN READ ONLY;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '5', 'it needs no right to write');
SELECT is((pg_temp.wait($$ 'orders', 5, '10 ms' $$)).result, '5', 'also to wait');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '5', 'in SERIALIZABLE');
SELECT is((pg_temp.wait($$ 'orders', 5, '10 ms' $$)).result, '5', 'also to wait');
COMMIT;
BEGIN;
SELECT event_store.wait_for_events('orders', 5, '10 ms') \g /dev/null
SELECT is_empty($$ SELECT * FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'orders'::regclass $$, 'it leaves no lock on the table behind');
COMMIT;
SELECT results_eq($$ SELECT p.provolatile, p.proparallel, p.proisstrict FROM pg_proc p WHERE p.proname = 'wait_for_events' $$,
    $$ VALUES ('v'::"char", 'u'::"char", false) $$, 'it is volatile, parallel unsafe, and not strict');
SELECT alike(description, '%60 seconds%', 'its comment tells the greatest time-out')
  FROM pg_description WHERE objoid = 'event_store.wait_for_events'::regproc;

-- Privileges: SELECT, no more and no less.
CREATE ROLE es_wait_none;
CREATE ROLE es_wait_insert;
CREATE ROLE es_wait_select;
CREATE ROLE es_wait_owner;
GRANT INSERT ON orders TO es_wait_insert;
GRANT SELECT ON orders TO es_wait_select;
SET ROLE es_wait_none;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '42501: permission denied for table orders', 'without privileges: denied');
SET ROLE es_wait_insert;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '42501: permission denied for table orders', 'INSERT is not enough');
SELECT is((pg_temp.wait($$ 'orders', 5, '60 s' $$)).result, '42501: permission denied for table orders', 'it is denied before it waits');
SET ROLE es_wait_select;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '5', 'SELECT is');
SELECT is((pg_temp.wait($$ 'orders', 5, '10 ms' $$)).result, '5', 'also to wait');
RESET ROLE;

-- Row-level security.
SELECT event_store.append('orders', 'hidden-1', 'T', '{}') \g /dev/null
CREATE POLICY reading ON orders FOR SELECT USING (stream NOT LIKE 'hidden-%');
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SELECT is((pg_temp.wait($$ 'orders', 5, '60 s' $$)).result, '6', 'who is not subject to policies gets the checkpoint');
SET ROLE es_wait_select;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '5', 'others that of what they may see');
SELECT is((pg_temp.wait($$ 'orders', 5, '100 ms' $$)).result, '5', 'they wait for what comes behind it');
SET row_security = off;
SELECT is((pg_temp.wait($$ 'orders', 0, '60 s' $$)).result, '42501: query would be affected by row-level security policy for table "orders"', 'row_security = off is an error, not a leak');
RESET row_security;
RESET ROLE;
ALTER TABLE orders OWNER TO es_wait_owner;
SET ROLE es_wait_owner;
SELECT is((pg_temp.wait($$ 'orders', 5, '60 s' $$)).result, '6', 'the owner sees everything');
RESET ROLE;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
SET ROLE es_wait_owner;
SELECT is((pg_temp.wait($$ 'orders', 5, '10 ms' $$)).result, '5', 'but under FORCE');
RESET ROLE;

DROP TABLE orders CASCADE;
DROP ROLE es_wait_none, es_wait_insert, es_wait_select, es_wait_owner;
SELECT * FROM finish();
