-- Whoever may not do a thing is told so before a strong lock is asked for;
-- otherwise anybody could make everybody else wait.
SET client_min_messages = warning;
SELECT plan(11);

CREATE EXTENSION dblink;
CREATE ROLE es_locks_reader;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
CREATE TABLE audit (a int);
GRANT SELECT ON orders, audit TO es_locks_reader;

-- Another session is at work on both tables.
SELECT dblink_connect('worker', format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), session_user)) \g /dev/null
SELECT dblink_exec('worker', 'BEGIN; LOCK TABLE orders, audit IN ROW EXCLUSIVE MODE') \g /dev/null
SET lock_timeout = '200ms';
CREATE TABLE calls (name text, command text);
GRANT SELECT ON calls TO PUBLIC;
INSERT INTO calls VALUES
    ('drop_event_table', $$ SELECT event_store.drop_event_table('orders') $$),
    ('guard', $$ SELECT event_store.guard('orders') $$),
    ('make_append_only', $$ SELECT event_store.make_append_only('audit') $$),
    ('append_streams with 1,001 streams',
        $$ SELECT event_store.append_streams('orders', (SELECT jsonb_agg(jsonb_build_object('stream', 's-' || i, 'events', '[{"type": "T", "data": 1}]'::jsonb))
                                               FROM generate_series(1, 1001) AS i)) $$);
-- The owner waits, so the lock is in the way.
SELECT throws_ok(command, '55P03', NULL, 'who may: ' || name || ' waits for the other session') FROM calls;
SET ROLE es_locks_reader;
SELECT throws_ok(command, '42501', NULL, 'who may not: ' || name || ' is refused at once') FROM calls;
RESET ROLE;
-- What takes no privilege keeps no lock.
SELECT is((SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'orders'::regclass), 0::bigint, name || ' keeps no lock')
  FROM (SELECT 'channel()', event_store.channel('orders') OFFSET 0) AS c(name, result) WHERE result <> '';
SELECT is((SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'orders'::regclass), 0::bigint, name || ' keeps no lock')
  FROM (SELECT 'check_guards()', event_store.check_guards('orders') OFFSET 0) AS c(name, result) WHERE result IS NULL;
SELECT is((SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (SELECT oid FROM pg_class WHERE relname ~ '^orders')), 0::bigint,
    name || ' keeps no lock on indexes or sequence') FROM (SELECT 'check_guards()', event_store.check_guards('orders') OFFSET 0) AS c(name, result)
 WHERE result IS NULL;
SELECT dblink_disconnect('worker') \g /dev/null

DROP OWNED BY es_locks_reader;
DROP ROLE es_locks_reader;
SELECT * FROM finish();
