-- Commits of appends are flushed whatever synchronous_commit says, on every way
-- in; and are not where event_store.sync_commit is off.
SET client_min_messages = warning;
SELECT plan(9);

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE plain (n int);
-- The place in the WAL behind which the command wrote its rows.
CREATE TABLE ways (way text, command text);
INSERT INTO ways VALUES
    ('append', $$ SELECT event_store.append('orders', 'a-1', 'T', '{}') $$),
    ('append_batch', $$ SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}') $$),
    ('append_json', $$ SELECT event_store.append_json('orders', 'a-1', '[{"type": "T", "data": 1}]') $$),
    ('append_streams', $$ SELECT event_store.append_streams('orders', '[{"stream": "a-2", "events": [{"type": "T", "data": 1}]}]') $$),
    ('INSERT', $$ INSERT INTO orders (stream, type, data) VALUES ('a-1', 'T', '{}') $$),
    ('COPY', $$ COPY orders (stream, type, data) FROM PROGRAM 'printf "a-1\tT\t1\n"' $$),
    ('an append in a savepoint', $$ DO $d$ BEGIN BEGIN PERFORM event_store.append('orders', 'a-1', 'T', '{}'); EXCEPTION WHEN others THEN NULL; END; END $d$ $$),
    ('plain', 'INSERT INTO plain VALUES (1)');
CREATE TEMP TABLE flushed (way text, setting text, yes boolean);
-- Twenty times each, since the WAL writer may come by at any moment.
CREATE PROCEDURE try(who text, command text, setting text) LANGUAGE plpgsql AS $$
DECLARE
    place pg_lsn;
    yes   boolean;
BEGIN
    FOR i IN 1..20 LOOP
        PERFORM set_config('synchronous_commit', 'off', true), set_config('event_store.sync_commit', setting, true);
        EXECUTE command;
        place := pg_current_wal_insert_lsn();
        COMMIT;
        yes := pg_current_wal_flush_lsn() >= place;
        PERFORM set_config('synchronous_commit', 'off', true);
        INSERT INTO flushed VALUES (who, setting, yes);
        COMMIT;
    END LOOP;
END $$;
SELECT format('CALL try(%L, %L, %L)', way, command, 'on') FROM ways
 UNION ALL SELECT format('CALL try(%L, %L, %L)', way, command, 'off') FROM ways WHERE way = 'append' \gexec
SELECT is((SELECT bool_and(yes) FROM flushed f WHERE f.way = w.way AND setting = 'on'), true,
    'with synchronous_commit = off, the commit of this is flushed all the same: ' || way) FROM ways w WHERE way <> 'plain';
SELECT is((SELECT bool_and(yes) FROM flushed WHERE way = 'plain'), false, 'that of another table is not');
SELECT is((SELECT bool_and(yes) FROM flushed WHERE setting = 'off'), false, 'nor that of an append where event_store.sync_commit is off');

SELECT * FROM finish();
