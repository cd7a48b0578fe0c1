-- Errors that are nobody's fault, and cancellation: by hand they are raised as they
-- are, and who catches them is in the transaction that he was in.
SET client_min_messages = warning;
SELECT plan(18);

\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'o-1', '{A,A,A}', '{1,2,3}') \g /dev/null
CREATE TABLE model (position bigint);
CREATE FUNCTION fail(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO model VALUES (event.position);
    IF event.position = 2 THEN RAISE EXCEPTION 'poison' USING ERRCODE = current_setting('transient.code'); END IF;
END $$;
SELECT event_store.create_projection('park', 'orders', function => 'fail(event_store.event)', mode => 'manual', on_error => 'park') \g /dev/null
CREATE FUNCTION pg_temp.caught(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN 'no error';
EXCEPTION WHEN OTHERS OR query_canceled THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
-- Whether each statement still is a transaction of its own.
CREATE FUNCTION pg_temp.transaction() RETURNS text LANGUAGE sql AS $$ SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1 $$;
CREATE TEMP TABLE was (transaction text);
\set codes '{40001,40P01,55P03,57014}'
SELECT is(set_config('transient.code', code, false) || ' ' || pg_temp.caught($$ SELECT event_store.run_projection('park') $$), code || ' ' || code || ' poison', 'run_projection(): ' || code) FROM unnest(:'codes'::text[]) code;
INSERT INTO was SELECT pg_temp.transaction();
SELECT isnt(pg_temp.transaction(), transaction, 'the transaction has ended') FROM was;
SELECT is(set_config('transient.code', code, false) || ' ' || pg_temp.caught($$ SELECT event_store.dry_run_projection('park') $$), code || ' ' || code || ' poison', 'dry_run_projection(): ' || code) FROM unnest(:'codes'::text[]) code;
SELECT is((SELECT count(*) FROM model) || ' ' || (SELECT position FROM event_store.projections), '0 0', 'nothing is written');
SELECT is_empty('SELECT * FROM event_store.parked_events', 'nor parked');
SELECT set_config('transient.code', 'P0001', false) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.run_projection('park') $$), '(2,1,1,3)', 'an error of the event is');
SELECT is(set_config('transient.code', code, false) || ' ' || pg_temp.caught($$ SELECT event_store.retry_parked('park') $$), code || ' ' || code || ' poison', 'retry_parked(): ' || code) FROM unnest(:'codes'::text[]) code;
SELECT is((SELECT attempts || ' ' || sqlstate FROM event_store.parked_events), '1 P0001', 'which counts as no attempt');
UPDATE was SET transaction = pg_temp.transaction();
SELECT isnt(pg_temp.transaction(), transaction, 'the transaction has ended') FROM was;
SELECT * FROM finish();
