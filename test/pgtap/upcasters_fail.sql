-- Upcasters that fail, and what an upcaster may do: it runs with the reader's
-- rights, reads only, and leaves nothing behind.
SET client_min_messages = warning;
SELECT plan(87);

\ir include/rows_of.sql
\ir include/error_of.sql

CREATE ROLE es_upcast_owner;
CREATE ROLE es_upcast_reader;
GRANT CREATE ON SCHEMA public TO es_upcast_owner;
CREATE SCHEMA hidden AUTHORIZATION es_upcast_owner;
SET ROLE es_upcast_owner;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'o-1', 'Good', '{}', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
SELECT event_store.append('orders', 'o-1', 'Bad', '{"n": 0}', event_id => '00000000-0000-0000-0000-000000000002') \g /dev/null
SELECT event_store.append('orders', 'o-2', 'Good', '{}', event_id => '00000000-0000-0000-0000-000000000003') \g /dev/null
GRANT SELECT, INSERT ON orders TO es_upcast_reader;
CREATE TABLE written (who text DEFAULT current_user);
GRANT ALL ON written TO PUBLIC;
CREATE SEQUENCE numbers;
GRANT ALL ON SEQUENCE numbers TO PUBLIC;
CREATE TABLE rates (rate int);
GRANT SELECT ON rates TO es_upcast_reader;
INSERT INTO rates VALUES (7);

CREATE FUNCTION first(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;
CREATE FUNCTION divide(e jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN to_jsonb(1 / (e ->> 'n')::int); END $$;
SELECT event_store.register_upcaster('orders', 'Bad', 1, 'first(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Bad', 2, 'divide(jsonb)') \g /dev/null

-- The error names event, stream, version, type, schema version and function, by
-- every way to read.
CREATE TABLE reads (name text, query text);
GRANT SELECT ON reads TO PUBLIC;
INSERT INTO reads VALUES
    ('read_stream', $$ SELECT * FROM event_store.read_stream('orders', 'o-1') $$),
    ('last_event', $$ SELECT * FROM event_store.last_event('orders', 'o-1') $$),
    ('read_event', $$ SELECT * FROM event_store.read_event('orders', '00000000-0000-0000-0000-000000000002') $$),
    ('read_all', $$ SELECT * FROM event_store.read_all('orders') $$),
    ('read_category', $$ SELECT * FROM event_store.read_category('orders', 'o') $$),
    ('read_batch', $$ SELECT * FROM event_store.read_batch('orders') $$);
CREATE FUNCTION pg_temp.expected(problem text, hint text) RETURNS text LANGUAGE sql AS
$$ SELECT format(E'SE008\ncould not upcast event 00000000-0000-0000-0000-000000000002, version 2 of stream "o-1": upcaster public.divide(jsonb) %s\n'
    'The event is of type "Bad" and stored with schema version 1; the upcaster takes it from 2 to 3.\n'
    '%s With raw => true the event is read as it is stored.\npublic.orders', problem, hint) $$;
SELECT is(pg_temp.error_of(query), pg_temp.expected('raised 22012: division by zero', 'event_store.check_upcasters() lists all events that cannot be upcast.'),
    'an error in an upcaster: ' || name) FROM reads;
CREATE POLICY all_of_them ON orders USING (true);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE es_upcast_reader;
SELECT is(pg_temp.error_of(query), pg_temp.expected('raised 22012: division by zero', 'event_store.check_upcasters() lists all events that cannot be upcast.'),
    'with policies: ' || name) FROM reads;
SET ROLE es_upcast_owner;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.read_all('orders', types => '{Good}') $$), '(1) (3)', 'events that the filter leaves out are not upcast');
SELECT is(pg_temp.rows_of($$ SELECT position FROM event_store.read_all('orders', max_count => 1) $$), '(1)', 'nor are those behind the last');
CREATE FUNCTION pg_temp.context_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE query;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN context;
END $$;
SELECT pg_temp.context_of(query) AS context FROM reads WHERE name = 'read_stream' \gset
SELECT matches((:'context')::text, E'^PL/pgSQL function (public\\.)?divide\\(jsonb\\) line 1 at RETURN\nSQL statement "[^"]*"\nPL/pgSQL function [^\n]*context_of', 'the context is that of the error');
SELECT is((SELECT count(*) FROM regexp_matches((:'context')::text, 'context_of', 'g')), 1::bigint, 'each line of it once');

-- What reads no data of events runs no upcaster.
SELECT lives_ok(command, 'no upcaster is run by ' || split_part(split_part(command, '.', 2), '(', 1))
  FROM (VALUES ($$ SELECT event_store.stream_version('orders', 'o-1') $$), ($$ SELECT event_store.last_position('orders') $$),
               ($$ SELECT event_store.high_water_mark('orders') $$), ($$ SELECT event_store.streams('orders') $$),
               ($$ SELECT event_store.position_at('orders', now()) $$), ($$ SELECT event_store.feed_status('orders') $$),
               ($$ SELECT event_store.wait_for_events('orders', 0, '0') $$), ($$ SELECT event_store.save_snapshot('orders', 'o-1', 2, '{}') $$),
               ($$ SELECT event_store.load_snapshot('orders', 'o-1') $$), ($$ SELECT event_store.event_catalog('orders') $$),
               ($$ SELECT event_store.append('orders', 'o-1', 'Bad', '{"n": 0}', 2, '00000000-0000-0000-0000-000000000004') $$),
               ($$ SELECT event_store.append('orders', 'o-1', 'Bad', '{"n": 0}', 2, '00000000-0000-0000-0000-000000000004') $$)) AS c(command);
SELECT is(pg_temp.rows_of($$ SELECT checkpoint, events FROM event_store.read_batch('orders', 2, 10, types => '{Other}', after_event_id => '00000000-0000-0000-0000-000000000002') $$),
    '(4,[])', 'nor by the checkpoints of a feed');
SELECT is(pg_temp.rows_of($$ SELECT position, version, schema_version, sqlstate, message FROM event_store.check_upcasters('orders') $$),
    '(2,2,1,SE008,"could not upcast event 00000000-0000-0000-0000-000000000002, version 2 of stream ""o-1"": upcaster public.divide(jsonb) raised 22012: division by zero") '
    '(4,3,1,SE008,"could not upcast event 00000000-0000-0000-0000-000000000004, version 3 of stream ""o-1"": upcaster public.divide(jsonb) raised 22012: division by zero")',
    'check_upcasters() reports every event that fails');

-- Every way to fail.
CREATE FUNCTION pg_temp.read_with(body text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION public.divide(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS %L', body);
    RETURN pg_temp.error_of($q$ SELECT * FROM event_store.read_event('orders', '00000000-0000-0000-0000-000000000002') $q$);
END $$;
SELECT is(pg_temp.read_with(body), pg_temp.expected(problem, hint), description)
  FROM (VALUES ('BEGIN RETURN NULL; END', 'returned NULL', 'The data of an event may be a JSON null, but not NULL.', 'NULL'),
               ($$ BEGIN RAISE EXCEPTION 'odd: %%' USING ERRCODE = 'ABCDE'; END $$, 'raised ABCDE: odd: %', 'event_store.check_upcasters() lists all events that cannot be upcast.', 'an error of the user''s'),
               ($$ BEGIN RETURN e -> 'n' ->> 0 || 1; END $$, 'raised 22P02: invalid input syntax for type json', 'event_store.check_upcasters() lists all events that cannot be upcast.', 'a value that is no JSON'),
               ('BEGIN ASSERT false; RETURN e; END', 'raised P0004: assertion failed', 'event_store.check_upcasters() lists all events that cannot be upcast.', 'an assertion'),
               ('BEGIN RETURN to_jsonb(repeat(repeat(''x'', 1000000), 210)); END', 'returned 210000012 bytes; at most 209715200 are allowed', 'Store large objects elsewhere, and refer to them in the event.', 'too much') ) AS c(body, problem, hint, description);
SELECT is(pg_temp.read_with('BEGIN RETURN ''null''; END'), 'no error', 'a JSON null will do');
-- Errors that say nothing about the function stay what they are.
SELECT matches(pg_temp.read_with(format($$ BEGIN RAISE EXCEPTION 'ouch' USING ERRCODE = %L; END $$, code)), '^' || code || E'\nouch', code || ' is left alone')
  FROM (VALUES ('40001'), ('40P01'), ('53100'), ('53200'), ('55P03'), ('57P01'), ('58030')) AS c(code);
SELECT matches(pg_temp.error_of($$ SELECT * FROM event_store.check_upcasters('orders') $$), '^5\w{4}\nouch', 'by check_upcasters(), too: it is no event''s fault');
SELECT matches(pg_temp.read_with(format($$ BEGIN RAISE EXCEPTION 'ouch' USING ERRCODE = %L; END $$, code)), '^SE008\n.* raised ' || code || ': ouch', code || ' is not')
  FROM (VALUES ('42501'), ('25006'), ('54000'), ('XX000'), ('SE001'), ('P0001')) AS c(code);
CREATE FUNCTION pg_temp.cancelled(body text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN RETURN pg_temp.read_with(body); EXCEPTION WHEN query_canceled THEN RETURN SQLSTATE; END $$;
SET statement_timeout = '100ms';
SELECT is(pg_temp.cancelled('BEGIN LOOP PERFORM 1; END LOOP; END'), '57014', 'an upcaster that does not end can be cancelled');
RESET statement_timeout;
-- The function as it is when it is read with.
ALTER FUNCTION divide(jsonb) VOLATILE;
SELECT is(pg_temp.error_of((SELECT query FROM reads WHERE name = 'read_event')),
    pg_temp.expected('is VOLATILE', 'Its owner puts it right, or the owner of the event table registers another by event_store.register_upcaster().'), 'it has become VOLATILE');
ALTER FUNCTION divide(jsonb) RENAME TO renamed;
SELECT is(pg_temp.error_of((SELECT query FROM reads WHERE name = 'read_event')),
    pg_temp.expected('does not exist', 'Its owner puts it right, or the owner of the event table registers another by event_store.register_upcaster().'), 'it has been renamed');
SELECT is(pg_temp.rows_of($$ SELECT position, type, schema_version, sqlstate, message FROM event_store.check_upcasters('orders') LIMIT 1 $$),
    '(,Bad,2,SE008,"upcaster public.divide(jsonb) does not exist")', 'check_upcasters() finds that without an event');
DROP FUNCTION renamed;
CREATE FUNCTION divide(jsonb) RETURNS text LANGUAGE sql IMMUTABLE RETURN 'text';
SELECT is(pg_temp.error_of((SELECT query FROM reads WHERE name = 'read_event')),
    pg_temp.expected('does not return one jsonb', 'Its owner puts it right, or the owner of the event table registers another by event_store.register_upcaster().'), 'it returns something else');
DROP FUNCTION divide(jsonb);
-- One that reads its own stream, upcast, comes to an end.
SELECT matches(pg_temp.read_with($$ BEGIN PERFORM * FROM event_store.read_stream('public.orders', 'o-1'); RETURN e; END $$),
    '^SE008\n.*: upcaster public.(first|divide)\(jsonb\) raised 54001: stack depth limit exceeded\n', 'an upcaster that calls itself');
SELECT is(pg_temp.read_with($$ BEGIN RETURN (SELECT jsonb_agg(data) FROM event_store.read_stream('public.orders', 'o-1', raw => true)); END $$), 'no error',
    'one that reads raw');
SELECT is(pg_temp.read_with($$ BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN '"caught"'; END; END $$), 'no error',
    'one that catches an error of its own');
SET force_parallel_mode = on;
SELECT is(pg_temp.error_of((SELECT query FROM reads WHERE name = 'read_event')), 'no error', 'also where a query could be parallel');
RESET force_parallel_mode;

-- Rights: those of the reader.
SELECT pg_temp.read_with($$ BEGIN RETURN to_jsonb(current_user || ' ' || session_user); END $$) \g /dev/null
CREATE FUNCTION pg_temp.data() RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of($q$ SELECT data #>> '{}' FROM event_store.read_event('orders', '00000000-0000-0000-0000-000000000002') $q$) $$;
SET ROLE es_upcast_reader;
SELECT is(pg_temp.data(), '("es_upcast_reader postgres")', 'an upcaster is run as the reader');
SELECT is((SELECT max(position) FROM event_store.read_all('orders', raw => true)), 4::bigint, 'who needs no rights on the extension''s tables');
SET ROLE es_upcast_owner;
REVOKE EXECUTE ON FUNCTION divide(jsonb) FROM PUBLIC;
SET ROLE es_upcast_reader;
SELECT is(pg_temp.data(), '42501: permission denied for function public.divide(jsonb)', 'who must be allowed to execute it');
SELECT is((SELECT count(*) FROM event_store.read_all('orders', types => '{Good}')), 2::bigint, 'where there is an event for it');
SELECT is((SELECT count(*) FROM event_store.read_all('orders', raw => true)), 4::bigint, 'and it is not read raw');
SET ROLE es_upcast_owner;
GRANT EXECUTE ON FUNCTION divide(jsonb) TO es_upcast_reader;
SET ROLE es_upcast_reader;
SELECT is(pg_temp.data(), '("es_upcast_reader postgres")', 'granted, he is');
SET ROLE es_upcast_owner;
GRANT EXECUTE ON FUNCTION divide(jsonb) TO PUBLIC;
ALTER FUNCTION first(jsonb) SET SCHEMA hidden;
SELECT event_store.register_upcaster('orders', 'Bad', 1, 'hidden.first(jsonb)') \g /dev/null
SET ROLE es_upcast_reader;
SELECT is(pg_temp.data(), '("es_upcast_reader postgres")', 'the right to use its schema he does not need');

-- What it may do.
SET ROLE es_upcast_owner;
CREATE FUNCTION tries(command text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE command; END $$;
CREATE FUNCTION pg_temp.reader_gets(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    SET LOCAL ROLE es_upcast_owner;
    EXECUTE format('CREATE OR REPLACE FUNCTION public.divide(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS %L',
        format('BEGIN PERFORM public.tries(%L); RETURN ''"done"''; END', command));
    RESET ROLE;
    SET LOCAL client_min_messages = error;
    result := pg_temp.data();
    RETURN substring(result FROM 'raised (.*)') ;
END $$;
RESET ROLE;
SELECT is(pg_temp.reader_gets(command), expected, 'an upcaster cannot, even for a superuser: ' || command)
  FROM (VALUES ('INSERT INTO public.written VALUES (DEFAULT)', '25006: cannot execute INSERT in a read-only transaction'),
               ('SELECT nextval(''public.numbers'')', '25006: cannot execute nextval() in a read-only transaction'),
               ('CREATE TABLE public.new (a int)', '25006: cannot execute CREATE TABLE in a read-only transaction'),
               ('ALTER ROLE es_upcast_reader SUPERUSER', '25006: cannot execute ALTER ROLE in a read-only transaction'),
               ('SELECT event_store.append(''public.orders'', ''o-1'', ''T'', ''{}'')', '25006: cannot execute append in a read-only transaction'),
               ('SET transaction_read_only = off', '25001: cannot set transaction read-write mode inside a read-only transaction'),
               ('SET ROLE es_upcast_owner', '42501: cannot set parameter "role" within security-restricted operation'),
               ('SET SESSION AUTHORIZATION es_upcast_owner', '42501: cannot set parameter "session_authorization" within security-restricted operation'),
               ('CREATE TEMP TABLE t (a int)', '25006: cannot execute CREATE TABLE in a read-only transaction'),
               ('LISTEN x', '42501: cannot execute LISTEN within security-restricted operation')) AS c(command, expected);
SELECT is((SELECT count(*) FROM written), 0::bigint, 'and nothing has been written');
INSERT INTO written DEFAULT VALUES;
SELECT is((SELECT count(*) FROM written), 1::bigint, 'by the upcaster; the reader may, afterwards');
SELECT is(pg_temp.read_with($$ BEGIN RETURN to_jsonb((SELECT rate FROM public.rates)); END $$), 'no error', 'it may read tables');
SELECT is(pg_temp.data(), '(7)', 'and gets what is there');
SELECT pg_temp.read_with($$ BEGIN PERFORM set_config('timezone', 'Asia/Tokyo', false), set_config('work_mem', '1234', true), set_config('search_path', 'public', false); RETURN to_jsonb(current_setting('timezone')); END $$) \g /dev/null
SELECT is(pg_temp.data(), '(Asia/Tokyo)', 'it may change settings');
SELECT is(concat_ws(' ', current_setting('timezone') = 'Asia/Tokyo', current_setting('work_mem') = '1234kB', current_setting('search_path')), 'f f "$user", public', 'which are put back');
SELECT pg_temp.read_with($$ BEGIN RETURN to_jsonb(current_setting('search_path')); END $$) \g /dev/null
SET search_path = pg_catalog, public, hidden;
SELECT is(pg_temp.data(), '("pg_catalog, pg_temp")', 'its search_path is the same for all');
SELECT is(current_setting('search_path'), 'pg_catalog, public, hidden', 'and the reader keeps his');
RESET search_path;
ALTER FUNCTION divide(jsonb) SET search_path = hidden;
SELECT is(pg_temp.data(), '(hidden)', 'unless the function has its own');
-- After an error that is caught, all is as it was.
SELECT pg_temp.read_with($$ BEGIN SET work_mem = '1234'; RAISE EXCEPTION 'ouch'; END $$) \g /dev/null
SET ROLE es_upcast_reader;
SELECT pg_temp.data() \g /dev/null
SELECT is(concat_ws(' ', current_user, current_setting('transaction_read_only'), current_setting('work_mem'), current_setting('search_path')),
    'es_upcast_reader off 4MB "$user", public', 'after an error that was caught, role and settings are as before');
SELECT lives_ok('INSERT INTO written DEFAULT VALUES', 'and writing goes on');
RESET ROLE;

DROP OWNED BY es_upcast_owner, es_upcast_reader CASCADE;
DROP ROLE es_upcast_owner, es_upcast_reader;
SELECT * FROM finish();
