-- The view event_store.feeds and feed_status(), on a server without workers: what
-- they say, and what they keep from whom.
SET client_min_messages = warning;
SELECT plan(44);

\ir include/rows_of.sql
\ir include/error_of.sql

CREATE EXTENSION dblink;
SELECT is(pg_temp.rows_of($$ SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'event_store.feeds'::regclass AND attnum > 0 ORDER BY attnum $$),
    '(event_table,regclass) (mark,bigint) (checkpoint,bigint) (last_position,bigint) (events_behind,bigint) (seconds_behind,"double precision") (held_by,integer) (held_by_prepared,text) (held_since,"timestamp with time zone") (notifications,bigint) (last_notified_at,"timestamp with time zone") (worker_pid,integer)',
    'the columns of the view');
SELECT is_empty('SELECT * FROM event_store.feeds', 'no event tables, no feeds');
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
CREATE TABLE plain (LIKE orders);
CREATE TABLE audit (what text);
SELECT event_store.make_append_only('audit') \g /dev/null
CREATE VIEW seen AS SELECT * FROM orders;
SELECT set_eq('SELECT event_table::text FROM event_store.feeds', '{orders,others}'::text[], 'a row for each event table, and for no other');

-- %, as a query on one of them.
CREATE FUNCTION pg_temp.feed(columns text, event_table text DEFAULT 'orders') RETURNS text LANGUAGE sql AS $$
    SELECT pg_temp.rows_of(format('SELECT %s FROM event_store.feeds WHERE event_table = %L::regclass', columns, event_table)) $$;
CREATE FUNCTION pg_temp.columns() RETURNS text LANGUAGE sql AS $$
    SELECT 'mark, checkpoint, last_position, events_behind, seconds_behind, held_by, held_by_prepared, held_since, notifications, last_notified_at, worker_pid' $$;

SELECT is(pg_temp.feed(pg_temp.columns()), '(0,0,0,0,0,,,,,,)', 'an empty table: zeros; nobody holds it back, and there is no worker');
SELECT event_store.append_batch('orders', 'a-1', '{T,T,T}', '{1,2,3}') \g /dev/null
SELECT is(pg_temp.feed(pg_temp.columns()), '(3,3,3,0,0,,,,,,)', 'three events, all readable; who has notified is not counted');
SELECT is(pg_temp.feed(pg_temp.columns(), 'others'), '(0,0,0,0,0,,,,,,)', 'another table is as it was');
DO $$
BEGIN
    PERFORM event_store.append('orders', 'a-1', 'Lost', '{}');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    NULL;
END $$;
SELECT is(pg_temp.feed(pg_temp.columns()), '(4,3,3,0,0,,,,,,)', 'the mark may cover a position that no event has, the checkpoint does not');

-- Held back by this transaction.
BEGIN;
SELECT event_store.append_batch('orders', 'own-1', '{T,T}', '{1,2}') \g /dev/null
SELECT is(pg_temp.feed('mark, checkpoint, last_position, events_behind, seconds_behind BETWEEN 0 AND 3600'), '(4,3,6,3,t)',
    'own events that are not committed are visible here, and not readable yet');
SELECT is(pg_temp.feed('held_by = pg_backend_pid(), held_by_prepared, held_since = now()'), '(t,,t)', 'this backend holds them back, since its transaction began');
SELECT is(pg_temp.feed('held_by, held_since, events_behind', 'others'), '(,,0)', 'but not another table');
COMMIT;
SELECT is(pg_temp.feed(pg_temp.columns()), '(6,6,6,0,0,,,,,,)', 'after the commit nobody does');

-- By others: a backend, behind it another one, behind that a prepared transaction.
SELECT dblink_connect(name, format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), session_user)) FROM unnest('{first,second}'::text[]) AS name \g /dev/null
CREATE FUNCTION pg_temp.elsewhere(name text, query text) RETURNS text LANGUAGE sql AS $$ SELECT r FROM dblink(name, query) AS x(r text) $$;
SELECT pg_temp.elsewhere('first', 'SELECT pg_backend_pid()') AS first, pg_temp.elsewhere('second', 'SELECT pg_backend_pid()') AS second \gset
SELECT dblink_exec('first', 'BEGIN') \g /dev/null
SELECT pg_temp.elsewhere('first', $$ SELECT event_store.append('orders', 'first-1', 'T', '{}') $$) \g /dev/null
SELECT dblink_exec('second', 'BEGIN') \g /dev/null
SELECT pg_temp.elsewhere('second', $$ SELECT event_store.append('orders', 'second-1', 'T', '{}') $$) \g /dev/null
BEGIN;
SELECT event_store.append('orders', 'third-1', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_feeds_view';
SELECT is(pg_temp.feed('mark, checkpoint, last_position, events_behind, seconds_behind'), '(6,6,6,0,0)', 'what others have not committed is not visible, and nothing is behind');
SELECT is(pg_temp.feed('held_by, held_by_prepared, held_since < now()'), format('(%s,,t)', :'first'), 'it is held back all the same, by the lowest of three');
SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}') \g /dev/null
SELECT is(pg_temp.feed('mark, checkpoint, last_position, events_behind, seconds_behind BETWEEN 0 AND 3600'), '(6,6,11,5,t)', 'events above them are behind: so many positions');
SELECT is(pg_temp.feed($$ seconds_behind <= (SELECT extract(epoch FROM clock_timestamp() - recorded_at) FROM orders WHERE position = 10) $$), '(t)', 'for as long as the oldest of them is there');
SELECT dblink_exec('first', 'ROLLBACK') \g /dev/null
SELECT is(pg_temp.feed('mark, checkpoint, held_by, held_by_prepared, held_since < now()'), format('(7,6,%s,,t)', :'second'), 'when that one ends it is the next');
SELECT dblink_exec('second', 'COMMIT') \g /dev/null
SELECT is(pg_temp.feed('mark, checkpoint, last_position, events_behind, held_by, held_by_prepared, held_since < now()'), '(8,8,11,3,,es_feeds_view,t)', 'then the prepared one');
ROLLBACK PREPARED 'es_feeds_view';
SELECT is(pg_temp.feed(pg_temp.columns()), '(11,11,11,0,0,,,,,,)', 'then nobody');

-- Locked by others: it does not wait for them.
SELECT dblink_exec('first', 'BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE') \g /dev/null
SET lock_timeout = '20s';
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.feed_status('orders'::regclass) $$), '(,,,,,,,)', 'a table that somebody has locked: unknown');
SELECT is(pg_temp.feed('mark, checkpoint', 'others'), '(0,0)', 'others are known');
SELECT is(pg_temp.rows_of('SELECT count(*) FROM event_store.feeds'), '(2)', 'both are in the view');
SELECT dblink_exec('first', 'ROLLBACK') \g /dev/null
RESET lock_timeout;
SELECT dblink_disconnect(name) FROM unnest('{first,second}'::text[]) AS name \g /dev/null
BEGIN;
LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;
SELECT is(pg_temp.feed('mark, checkpoint, last_position'), '(11,11,11)', 'who has locked it himself knows');
COMMIT;
BEGIN;
SELECT event_store.feed_status('orders') \g /dev/null
SELECT is_empty($$ SELECT * FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'orders'::regclass $$, 'no lock is left behind');
COMMIT;

-- What is no event table.
SELECT is(pg_temp.rows_of(format('SELECT * FROM event_store.feed_status(%s)', t)), '(,,,,,,,)', 'all null, no error: ' || t) FROM unnest(ARRAY[
    '''plain''', '''audit''', '''seen''', '''orders_pkey''', '''orders_position_seq''', '''event_store.feeds''', '''pg_class''', '4294967295::oid::regclass', '0::oid::regclass']) AS t;
SELECT is(pg_temp.error_of('SELECT event_store.feed_status(NULL)'), E'22004\nevent_table must not be null', 'NULL is refused');

-- For whom.
CREATE ROLE es_feeds_none;
CREATE ROLE es_feeds_insert;
CREATE ROLE es_feeds_select;
GRANT INSERT ON orders TO es_feeds_insert;
GRANT SELECT ON orders TO es_feeds_select;
SET ROLE es_feeds_none;
SELECT is(pg_temp.feed(pg_temp.columns()), '(,,,,,,,,,,)', 'without privileges: nulls');
SELECT set_eq('SELECT event_table::text FROM event_store.feeds', '{orders,others}'::text[], 'but the names of the event tables');
SET ROLE es_feeds_insert;
SELECT is(pg_temp.feed(pg_temp.columns()), '(,,,,,,,,,,)', 'INSERT is not enough');
SET ROLE es_feeds_select;
SELECT is(pg_temp.feed(pg_temp.columns()), '(11,11,11,0,0,,,,,,)', 'with SELECT: everything');
SELECT is(pg_temp.feed('mark', 'others'), '()', 'of that table');
RESET ROLE;
CREATE POLICY reading ON orders FOR SELECT USING (true);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE es_feeds_select;
SELECT is(pg_temp.feed(pg_temp.columns()), '(,,,,,,,,,,)', 'where row-level security applies to the caller: nulls');
SET row_security = off;
SELECT is(pg_temp.feed(pg_temp.columns()), '(,,,,,,,,,,)', 'also with row_security = off, without an error');
RESET row_security;
RESET ROLE;
SELECT is(pg_temp.feed('mark, checkpoint'), '(11,11)', 'to others it does not apply');

-- In what transactions.
BEGIN READ ONLY;
SELECT is(pg_temp.feed('mark, checkpoint', 'others'), '(0,0)', 'it needs no right to write');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM others \g /dev/null
SELECT is(pg_temp.feed('mark, checkpoint', 'others'), '(0,0)', 'in REPEATABLE READ');
COMMIT;
DROP TABLE others;
SELECT is(pg_temp.rows_of('SELECT event_table, mark FROM event_store.feeds'), '(orders,11)', 'a table that is dropped is gone from the view');

DROP OWNED BY es_feeds_none, es_feeds_insert, es_feeds_select;
DROP ROLE es_feeds_none, es_feeds_insert, es_feeds_select;
SELECT * FROM finish();
