-- NOTIFY by the transaction that appends: the channel, the setting, and, over a
-- connection of dblink's that listens, what is sent.
SET client_min_messages = warning;
SELECT plan(20);

CREATE EXTENSION dblink;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null

SELECT is(event_store.channel('orders'), 'event_store_' || 'orders'::regclass::oid, 'the channel is named for the table''s OID');
SELECT isnt(event_store.channel('orders'), event_store.channel('others'), 'another table has another one');
SELECT event_store.channel('orders') AS channel \gset
ALTER TABLE orders RENAME TO renamed;
CREATE SCHEMA shop;
ALTER TABLE renamed SET SCHEMA shop;
SELECT is(event_store.channel('shop.renamed'), :'channel'::text, 'a renamed and moved table keeps its channel');
ALTER TABLE shop.renamed RENAME TO orders;
ALTER TABLE shop.orders SET SCHEMA public;
SELECT matches(:'channel'::text, '^[a-z0-9_]{1,63}$', 'the channel needs no quotes, and is not too long');
SELECT is(current_setting('event_store.notify'), 'auto', 'the setting''s default is auto');
SELECT is(current_setting('event_store.sync_commit'), 'on', 'and appends are flushed by default');

-- A session that listens.  dblink_get_notify() returns what has come since the last call.
SELECT dblink_connect('listener', format('host=%s port=%s dbname=%s user=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
    current_setting('port'), current_database(), session_user)) \g /dev/null
SELECT dblink_exec('listener', 'LISTEN ' || event_store.channel('orders') || '; LISTEN ' || event_store.channel('others')) \g /dev/null
-- The answer to a query comes after the notifications that were there before it.
CREATE FUNCTION pg_temp.heard() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM * FROM dblink('listener', 'SELECT 1') AS x(a int);
    RETURN (SELECT coalesce(string_agg(format('%s %s', t, extra), ', ' ORDER BY t, extra), 'nothing')
              FROM dblink_get_notify('listener') LEFT JOIN unnest('{orders,others}'::text[]) AS t
                ON notify_name = event_store.channel(t::regclass));
END $$;

SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.heard(), 'orders 1', 'an append notifies when it commits; the payload is its position');
BEGIN;
SELECT event_store.append_batch('orders', 'a-1', '{T,T,T}', '{1,2,3}') \g /dev/null
INSERT INTO orders (stream, type, data) VALUES ('a-1', 'T', '{}'), ('a-2', 'T', '{}');
SELECT event_store.append('others', 'a-1', 'T', '{}') \g /dev/null
SELECT pg_temp.heard() AS before \gset
COMMIT;
SELECT is(:'before'::text, 'nothing', 'not before');
SELECT is(pg_temp.heard(), 'orders 6, others 1', 'a transaction notifies once per event table, with its last position');
BEGIN;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
ROLLBACK;
SELECT is(pg_temp.heard(), 'nothing', 'a transaction that is rolled back does not notify');
SELECT event_store.append('orders', 'a-3', 'T', '1', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
SELECT is(pg_temp.heard(), 'orders 8', 'an append with an id notifies');
SELECT event_store.append('orders', 'a-3', 'T', '1', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
SELECT is(pg_temp.heard(), 'nothing', 'its repetition, which writes nothing, does not');
SELECT event_store.read_all('orders') \g /dev/null
SELECT event_store.high_water_mark('orders') \g /dev/null
SELECT is(pg_temp.heard(), 'nothing', 'nor does reading');
COPY orders (stream, type, data) FROM STDIN;
a-4	T	1
a-4	T	2
\.
SELECT is(pg_temp.heard(), 'orders 10', 'COPY notifies once');

-- The setting.
SET event_store.notify = off;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.heard(), 'nothing', 'event_store.notify = off: nothing is sent');
SET event_store.notify = transaction;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.heard(), 'orders 12', 'event_store.notify = transaction: sent at commit');
BEGIN;
SET LOCAL event_store.notify = off;
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
COMMIT;
SELECT is(pg_temp.heard(), 'nothing', 'the setting holds for a transaction');
RESET event_store.notify;

-- Prepared transactions send none; a transaction that notifies could not be prepared.
BEGIN;
SELECT event_store.append('orders', 'a-5', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_notifications';
COMMIT PREPARED 'es_notifications';
SELECT is(event_store.stream_version('orders', 'a-5'), 1::bigint, 'a transaction that has appended can be prepared');
SELECT is(pg_temp.heard(), 'nothing', 'and notifies nobody');
SELECT event_store.append('orders', 'a-5', 'T', '{}') \g /dev/null
SELECT is(pg_temp.heard(), 'orders 15', 'the next one does again');

SELECT dblink_disconnect('listener') \g /dev/null
SELECT * FROM finish();
