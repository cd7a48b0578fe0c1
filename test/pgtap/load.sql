-- load(): the state of a stream now, at a version, and as of a time; reducers in
-- all languages, and what happens when one misbehaves.
SET client_min_messages = warning;
SELECT plan(97);

\ir include/error_of.sql
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append_batch('orders', 'order-1', '{Placed,Paid,Noted,Shipped}', ARRAY['{"total": 40, "status": "placed"}', '{"status": "paid", "by": {"card": 1}}', '{}', '{"status": "shipped"}']::jsonb[]) \g /dev/null
SELECT event_store.append('orders', 'order-2', 'Placed', '{"total": 7}') \g /dev/null
SELECT event_store.append('orders', 'order-10', 'Placed', '{"total": 8}') \g /dev/null

-- Reducers.  Every one of them adds the version to a list, so that it shows what was folded in which order.
CREATE FUNCTION r_sql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || to_jsonb(event.version)';
CREATE FUNCTION r_atomic(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN state || to_jsonb((event).version);
CREATE FUNCTION r_query(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT state || to_jsonb(max(v)) FROM (VALUES (event.version)) AS x(v)';
CREATE FUNCTION r_strict(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql STRICT IMMUTABLE AS 'SELECT state || to_jsonb(event.version)';
CREATE FUNCTION r_plpgsql(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN state || to_jsonb(event.version); END';
CREATE FUNCTION r_definer(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS 'BEGIN RETURN state || to_jsonb(event.version); END';
CREATE FUNCTION r_catches(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS
    'BEGIN BEGIN PERFORM 1 / (event.version - 2); EXCEPTION WHEN division_by_zero THEN NULL; END; RETURN state || to_jsonb(event.version); END';
CREATE FUNCTION r_whole(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || to_jsonb(event)';
CREATE FUNCTION r_same(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION r_data(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT event.data';
CREATE FUNCTION r_reads(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql STABLE AS
    'SELECT state || to_jsonb((SELECT count(*) FROM event_store.read_stream(''orders'', event.stream)))';
SELECT event_store.create_aggregate(r, (r || '(jsonb, event_store.event)')::regprocedure, '[]')
  FROM unnest('{r_sql,r_atomic,r_query,r_strict,r_plpgsql,r_definer,r_catches,r_whole,r_same,r_data,r_reads}'::text[]) r \g /dev/null
SELECT event_store.create_aggregate('order') \g /dev/null

SELECT is(pg_temp.rows_of(format($$ SELECT * FROM event_store.load('orders', 'order-1', %L) $$, r)), '(4,"[1, 2, 3, 4]",4,)', r)
  FROM unnest('{r_sql,r_atomic,r_query,r_strict,r_plpgsql,r_definer,r_catches}'::text[]) r;
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_whole')), (SELECT jsonb_agg(to_jsonb(e)) FROM event_store.read_stream('orders', 'order-1') e),
    'a reducer gets the event as read_stream() returns it');
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_same')), '[]', 'a reducer that returns the state as it is');
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_data')), '{"status": "shipped"}', 'one that returns a part of the event');
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_reads')), '[4, 4, 4, 4]', 'one that reads');

SELECT is(pg_temp.rows_of(format('SELECT * FROM event_store.load(%s)', arguments)), expected, description)
  FROM (VALUES ($$ 'orders', 'order-1', 'order' $$, '(4,"{""by"": {""card"": 1}, ""total"": 40, ""status"": ""shipped""}",4,)', 'merge()'),
               ($$ 'orders', 'order-1', 'r_sql', 4 $$, '(4,"[1, 2, 3, 4]",4,)', 'at the last version'),
               ($$ 'orders', 'order-1', 'r_sql', at_version => 2 $$, '(2,"[1, 2]",2,)', 'at a version'),
               ($$ 'orders', 'order-1', 'r_sql', at_version => 0 $$, '(0,[],0,)', 'at version 0: the initial state'),
               ($$ 'orders', 'order-1', 'r_sql', at_version => 5 $$, '(4,"[1, 2, 3, 4]",4,)', 'beyond the end: the end, and version tells'),
               ($$ 'orders', 'order-1', 'r_sql', at_version => 9223372036854775807 $$, '(4,"[1, 2, 3, 4]",4,)', 'far beyond the end'),
               ($$ 'orders', 'order-1', 'r_sql', NULL, NULL, NULL, NULL $$, '(4,"[1, 2, 3, 4]",4,)', 'NULL means the default'),
               ($$ 'orders', 'order-9', 'r_sql' $$, '(0,[],0,)', 'a stream that does not exist: version 0, the initial state'),
               ($$ 'orders', 'order-9', 'r_sql', 3, now(), now() $$, '(0,[],0,)', 'at any time'),
               ($$ 'orders', 'order', 'r_sql' $$, '(0,[],0,)', 'the name of a stream is not that of a category'),
               ($$ 'orders', 'order-1', 'r_sql', as_of => '-infinity' $$, '(0,[],0,)', 'as of before the first event'),
               ($$ 'orders', 'order-1', 'r_sql', as_of => 'infinity' $$, '(4,"[1, 2, 3, 4]",4,)', 'as of the end of time'),
               ($$ 'orders', 'order-1', 'r_sql', at_version => -1 $$, '22023: at_version must not be negative, but is -1', 'a negative version'),
               ($$ 'orders', NULL, 'r_sql' $$, '22004: stream must not be null', 'a stream that is NULL'),
               ($$ 'orders', '', 'r_sql' $$, '22023: stream must not be empty', 'an empty stream'),
               ($$ 'orders', repeat('x', 513), 'r_sql' $$, '22023: stream is too long: 513 bytes', 'a long stream'),
               ($$ 'orders', 'order-1', NULL $$, '22004: aggregate must not be null', 'an aggregate that is NULL'),
               ($$ 'orders', 'order-1', '' $$, '42704: aggregate "" does not exist', 'an aggregate without a name'),
               ($$ 'orders', 'order-1', 'R_SQL' $$, '42704: aggregate "R_SQL" does not exist', 'an aggregate that is not there'),
               ($$ NULL, 'order-1', 'r_sql' $$, '22004: event_table must not be null', 'a table that is NULL')) AS c(arguments, expected, description);

-- merge() is state || data, byte for byte, whichever way it is called.
SELECT setseed(0.25) \g /dev/null
CREATE FUNCTION random_json(depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r float8 := random(); result jsonb;
BEGIN
    IF depth > 0 AND r < 0.3 THEN
        RETURN (SELECT coalesce(jsonb_object_agg(substr('keyümnop', 1, (random() * 8)::int) || (random() * 9)::int, random_json(depth - 1)), '{}') FROM generate_series(1, (random() * 5)::int));
    ELSIF depth > 0 AND r < 0.5 THEN
        RETURN (SELECT coalesce(jsonb_agg(random_json(depth - 1)), '[]') FROM generate_series(1, (random() * 5)::int));
    END IF;
    RETURN CASE (r * 50)::int % 6 WHEN 0 THEN to_jsonb((r * 1e9)::numeric) WHEN 1 THEN to_jsonb(round(r * 100)) WHEN 2 THEN 'null' WHEN 3 THEN to_jsonb(r < 0.7) ELSE to_jsonb(repeat('x', (r * r * 90)::int)) END;
END $$;
CREATE FUNCTION random_object(keys int) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT coalesce(jsonb_object_agg(substr('abcdefghijklmü', 1, (random() * 14)::int) || (random() * keys)::int, random_json(2)), '{}') FROM generate_series(1, (random() * keys)::int) $$;
SELECT event_store.append('orders', 'random-' || s, 'T', random_object(2 * s)) FROM generate_series(1, 40) s, generate_series(1, 25) \g /dev/null
CREATE FUNCTION r_concat(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || event.data';
CREATE FUNCTION r_merge(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN event_store.merge(state, event); END';
SELECT event_store.create_aggregate(r, (r || '(jsonb, event_store.event)')::regprocedure) FROM unnest('{r_concat,r_merge}'::text[]) r \g /dev/null
SELECT is((SELECT count(*) || ' ' || (count(*) FILTER (WHERE a.state = b.state AND b.state = c.state AND a.state::text = b.state::text AND a.state::text = c.state::text
        AND pg_column_size(a.state) = pg_column_size(b.state))) || ' ' || (max((SELECT count(*) FROM jsonb_object_keys(a.state))) > 100)
    FROM event_store.streams('orders', 'random') s, event_store.load('orders', stream, 'order') a, event_store.load('orders', stream, 'r_concat') b, event_store.load('orders', stream, 'r_merge') c),
    '40 40 true', 'merge() gives what || gives');
SELECT is(pg_temp.rows_of(format('SELECT event_store.merge(%L, (%L, NULL, NULL, NULL, NULL, NULL, %s, NULL, NULL, NULL, NULL, NULL)::event_store.event)', state, 1, data)), expected, 'merge: ' || description)
  FROM (VALUES ('{"a": 1}', '''{"b": 2}''', '("{""a"": 1, ""b"": 2}")', 'another key'),
               ('{"a": 1, "b": {"c": 1}}', '''{"b": {"d": 1}}''', '("{""a"": 1, ""b"": {""d"": 1}}")', 'objects within are replaced'),
               ('{"a": 1}', '''{"a": null}''', '("{""a"": null}")', 'null is a value'),
               ('{}', '''{}''', '({})', 'nothing and nothing'),
               ('{"a": 1}', 'NULL', '("{""a"": 1}")', 'no data change nothing'),
               ('{"a": 1}', '''[1]''', '22023: event_store.merge() merges JSON objects only', 'an array'),
               ('{"a": 1}', '''null''', '22023: event_store.merge() merges JSON objects only', 'a JSON null'),
               ('[]', '''{"a": 1}''', '22023: event_store.merge() merges JSON objects only', 'a state that is an array'),
               ('3', '''{"a": 1}''', '22023: event_store.merge() merges JSON objects only', 'a state that is a number'),
               (NULL, '''{"a": 1}''', '22004: state must not be null', 'no state')) AS c(state, data, expected, description);
SELECT throws_ok($$ SELECT event_store.merge('{}', NULL) $$, '22004', 'event must not be null', 'merge: no event');

-- Errors in a reducer keep what they are, and name the event.
CREATE FUNCTION context_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, (SELECT string_agg(line, E'\n') FROM unnest(string_to_array(context, E'\n')) AS line WHERE line ~ '^folding'));
END $$;
CREATE FUNCTION r_raises(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS
    $$ BEGIN IF event.version = 3 THEN RAISE SQLSTATE 'AB123' USING MESSAGE = 'three'; END IF; RETURN state; END $$;
CREATE FUNCTION r_divides(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT to_jsonb(1 / (event.version - 3))';
CREATE FUNCTION r_null(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN event.version <> 3 THEN state END';
SELECT event_store.create_aggregate(r, (r || '(jsonb, event_store.event)')::regprocedure) FROM unnest('{r_raises,r_divides,r_null}'::text[]) r \g /dev/null
SELECT event_store.create_aggregate('array', initial => '[]') \g /dev/null
SELECT event_store.append('orders', 'order-3', 'Odd', '[1]') \g /dev/null
SELECT is(context_of(format('SELECT event_store.load(''orders'', %L, %L%s)', stream, aggregate, more)),
    format(E'%s\nfolding event %s (stream "%s", version %s, type "%s") into aggregate "%s"', error, e.event_id, stream, version, e.type, aggregate), format('%s%s: the error names the event', aggregate, more))
  FROM (VALUES ('r_raises', '', 'order-1', 3, 'AB123: three'), ('r_divides', '', 'order-1', 3, '22012: division by zero'),
               ('r_null', '', 'order-1', 3, '22004: public.r_null(pg_catalog.jsonb,event_store.event) returned NULL'),
               ('r_null', ', occurred_as_of => ''infinity''', 'order-1', 3, '22004: public.r_null(pg_catalog.jsonb,event_store.event) returned NULL'),
               ('order', '', 'order-3', 1, '22023: event_store.merge() merges JSON objects only'),
               ('array', '', 'order-1', 1, '22023: event_store.merge() merges JSON objects only')) AS c(aggregate, more, stream, version, error)
  JOIN orders e USING (stream, version);
SELECT is((SELECT version FROM event_store.load('orders', 'order-1', 'r_raises', 2)), 2::bigint, 'before that event all is well');
SELECT is(pg_temp.error_of($$ SELECT event_store.load('orders', 'order-1', 'r_null') $$),
    E'22004\npublic.r_null(pg_catalog.jsonb,event_store.event) returned NULL\nA reducer returns the state as it is where an event does not change it.', 'NULL is no state');

-- A reducer that has been changed is looked at again.
CREATE FUNCTION r_changes(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
SELECT event_store.create_aggregate('changes', 'r_changes(jsonb, event_store.event)') \g /dev/null
ALTER FUNCTION r_changes(jsonb, event_store.event) VOLATILE;
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'changes') $$, '42P13', 'r_changes(jsonb,event_store.event) cannot be the reducer of aggregate "changes"', 'a reducer that has become VOLATILE');
DROP FUNCTION r_changes(jsonb, event_store.event);
CREATE FUNCTION r_changes(state jsonb, event event_store.event) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'changes') $$, '42P13', NULL, 'one that returns another type now');
DROP FUNCTION r_changes(jsonb, event_store.event);
SELECT is(pg_temp.error_of($$ SELECT event_store.load('orders', 'order-1', 'changes') $$),
    E'42883\npublic.r_changes(pg_catalog.jsonb,event_store.event), the reducer of aggregate "changes", does not exist\nIf it has another name or schema now, tell with event_store.create_aggregate(..., or_replace => true).', 'one that is gone');
CREATE SCHEMA elsewhere;
CREATE FUNCTION elsewhere.r_moves(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
SELECT event_store.create_aggregate('moves', 'elsewhere.r_moves(jsonb, event_store.event)') \g /dev/null
ALTER SCHEMA elsewhere RENAME TO "Somewhere";
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'moves') $$, '42883', 'elsewhere.r_moves(pg_catalog.jsonb,event_store.event), the reducer of aggregate "moves", does not exist', 'one whose schema was renamed');
SELECT event_store.create_aggregate('moves', '"Somewhere".r_moves(jsonb, event_store.event)', schema_version => 2, or_replace => true) \g /dev/null
SELECT is((SELECT version FROM event_store.load('orders', 'order-1', 'moves')), 4::bigint, 'works again when told');

-- Reducers that do what they must not.
CREATE FUNCTION r_recurses(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (event_store.load('orders', event.stream, 'r_recurses')).state; END $$;
CREATE FUNCTION r_drops(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN EXECUTE 'DROP TABLE orders'; RETURN state; END $$;
CREATE FUNCTION drop_orders() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE orders; END $$;
CREATE FUNCTION r_lies(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM drop_orders(); RETURN state; END $$;
CREATE FUNCTION add_column() RETURNS void LANGUAGE plpgsql AS $$ BEGIN ALTER TABLE orders ADD COLUMN more int; END $$;
CREATE FUNCTION r_alters(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM add_column(); RETURN state; END $$;
CREATE FUNCTION append_one() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM event_store.append('orders', 'order-1', 'More', '{}'); END $$;
CREATE FUNCTION r_appends(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM append_one(); RETURN state || to_jsonb(event.version); END $$;
CREATE FUNCTION r_forgets(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM event_store.drop_aggregate('r_forgets'); RETURN state; EXCEPTION WHEN undefined_object THEN RETURN state; END $$;
SELECT event_store.create_aggregate(r, (r || '(jsonb, event_store.event)')::regprocedure, '[]') FROM unnest('{r_recurses,r_drops,r_lies,r_alters,r_appends,r_forgets}'::text[]) r \g /dev/null
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_recurses') $$, '54001', NULL, 'one that loads itself for ever');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_drops') $$, '0A000', NULL, 'one that drops the table');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_lies') $$, '55006', NULL, 'one that has it dropped');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_alters') $$, '55006', NULL, 'one that has it altered');
BEGIN;
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_appends')), '[1, 2, 3, 4]', 'one that has events appended does not see them');
ROLLBACK;
BEGIN;
SELECT is((SELECT version FROM event_store.load('orders', 'order-1', 'r_forgets')), 4::bigint, 'one that drops its aggregate');
ROLLBACK;

-- What a load sees: what its statement sees.
BEGIN;
SELECT event_store.append('orders', 'order-2', 'Paid', '{}') \g /dev/null
CREATE TEMP TABLE seen AS SELECT state FROM event_store.load('orders', 'order-2', 'r_sql');
ROLLBACK;
BEGIN;
SELECT event_store.append('orders', 'order-2', 'Paid', '{}') \g /dev/null
SELECT is((SELECT state FROM event_store.load('orders', 'order-2', 'r_sql')), '[1, 2]', 'the transaction''s own events are in it');
SAVEPOINT s;
SELECT event_store.append('orders', 'order-2', 'Paid', '{}') \g /dev/null
ROLLBACK TO SAVEPOINT s;
SELECT is((SELECT state FROM event_store.load('orders', 'order-2', 'r_sql')), '[1, 2]', 'those that are rolled back are not');
ROLLBACK;
BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT state FROM event_store.load('orders', 'order-1', 'r_sql')), '[1, 2, 3, 4]', 'loading needs no right to write');
COMMIT;
DO $$
DECLARE c CURSOR FOR SELECT s.stream, l.state FROM event_store.streams('orders', 'order') s, event_store.load('orders', s.stream, 'r_sql') l; r record; n int := 0;
BEGIN
    FOR r IN c LOOP n := n + 1; END LOOP;
    PERFORM set_config('es.n', n::text, false);
END $$;
SELECT is(current_setting('es.n'), '4', 'in a cursor');
SELECT is((SELECT string_agg(l.state::text, ' ' ORDER BY s.stream) FROM event_store.streams('orders', 'order') s, event_store.load('orders', s.stream, 'r_sql') l), '[1, 2, 3, 4] [1] [1] [1]', 'for many streams in one statement');

-- Times.  A restore brings events with the times that they have.
SELECT event_store.create_event_table('past') \g /dev/null
SET session_replication_role = replica;
INSERT INTO past (position, stream, version, event_id, type, schema_version, data, occurred_at, recorded_at)
SELECT v, 'a-1', v, gen_random_uuid(), 'T', 1, to_jsonb(v), occurred::timestamptz, recorded::timestamptz
  FROM (VALUES (1, NULL, '2026-01-01'), (2, '2026-01-10', '2026-01-02'), (3, '2025-12-01', '2026-01-05'),
               (4, NULL, '2026-01-04'),     -- the clock was set back
               (5, '2026-01-04', '2026-01-06'), (6, '2026-01-01', '2026-01-07')) AS x(v, occurred, recorded);
RESET session_replication_role;
SELECT is(pg_temp.rows_of(format('SELECT version, state, events_folded FROM event_store.load(''past'', ''a-1'', ''r_sql'', %s)', arguments)), expected, description)
  FROM (VALUES ($$ as_of => '2025-12-31' $$, '(0,[],0)', 'as of before the first'),
               ($$ as_of => '2026-01-01' $$, '(1,[1],1)', 'as_of is inclusive'),
               ($$ as_of => '2026-01-03' $$, '(2,"[1, 2]",2)', 'between two'),
               ($$ as_of => '2026-01-04' $$, '(4,"[1, 2, 3, 4]",4)', 'a clock that was set back makes no hole'),
               ($$ as_of => '2026-01-06' $$, '(5,"[1, 2, 3, 4, 5]",5)', 'further on'),
               ($$ as_of => '2026-01-06', at_version => 3 $$, '(3,"[1, 2, 3]",3)', 'the lower of a time and a version'),
               ($$ as_of => '2026-01-02', at_version => 3 $$, '(2,"[1, 2]",2)', 'whichever it is'),
               ($$ occurred_as_of => '2025-11-30' $$, '(0,[],0)', 'nothing had occurred'),
               ($$ occurred_as_of => '2025-12-01' $$, '(3,[3],1)', 'occurred_as_of is inclusive'),
               ($$ occurred_as_of => '2026-01-01' $$, '(6,"[3, 1, 6]",3)', 'in the order of time, recorded time for want of another, then version'),
               ($$ occurred_as_of => 'infinity' $$, '(6,"[3, 1, 6, 4, 5, 2]",6)', 'all of it'),
               ($$ occurred_as_of => 'infinity', at_version => 4 $$, '(4,"[3, 1, 4, 2]",4)', 'up to a version'),
               ($$ occurred_as_of => '2026-01-04', as_of => '2026-01-06' $$, '(5,"[3, 1, 4, 5]",4)', 'what was known at a time of what had occurred by another')) AS c(arguments, expected, description);

-- What differs between two versions.
SELECT event_store.append_batch('orders', 'diff-1', '{T,T,T,T}', ARRAY['{"a": 1, "o": {"x": {"y": 1, "z": [1, 2]}, "w": 1}, "gone": {"x": 1}}', '{"a": 1}',
    '{"a": null, "o": {"x": {"y": 2, "z": [1, 3]}, "w": 1, "Ü.\"": true}, "gone": 3, "new": {"b": 1}}', '{"a": "4"}']::jsonb[]) \g /dev/null
SELECT event_store.create_aggregate('number', 'r_data(jsonb, event_store.event)', '0') \g /dev/null
SELECT event_store.append_batch('orders', 'diff-2', '{T,T}', '{1,2}') \g /dev/null
SELECT is(pg_temp.rows_of(format('SELECT * FROM event_store.diff_state(%s)', arguments)), expected, 'diff_state: ' || description)
  FROM (VALUES ($$ 'orders', 'diff-1', 'order', 1, 2 $$, 'nothing', 'where nothing differs'),
               ($$ 'orders', 'diff-1', 'order', 2, 3 $$, '({a},1,null) ({gone},"{""x"": 1}",3) ({new},,"{""b"": 1}") ("{o,x,y}",1,2) ("{o,x,z}","[1, 2]","[1, 3]") ("{o,""Ü.\\""""}",,true)', 'key by key, arrays as a whole'),
               ($$ 'orders', 'diff-1', 'order', 3, 4 $$, '({a},null,"""4""")', 'null and a string'),
               ($$ 'orders', 'diff-1', 'order', 4, 3 $$, '({a},"""4""",null)', 'backward'),
               ($$ 'orders', 'diff-1', 'order', 3 $$, '({a},null,"""4""")', 'to the end'),
               ($$ 'orders', 'order-2', 'order' $$, '({total},,7)', 'all of it'),
               ($$ 'orders', 'order-2', 'order', NULL, NULL $$, '({total},,7)', 'NULL means the default'),
               ($$ 'orders', 'diff-2', 'number', 1, 2 $$, '({},1,2)', 'states that are no objects'),
               ($$ 'orders', 'diff-2', 'number', 1, 1 $$, 'nothing', 'which are the same'),
               ($$ 'orders', 'order-9', 'order' $$, 'nothing', 'a stream that does not exist'),
               ($$ 'orders', 'order-1', 'order', -1 $$, '22023: at_version must not be negative, but is -1', 'a negative version')) AS c(arguments, expected, description);

-- Whose rights.
CREATE ROLE es_load_reader;
CREATE ROLE es_load_other;
GRANT SELECT ON orders TO es_load_reader;
REVOKE EXECUTE ON FUNCTION r_plpgsql(jsonb, event_store.event), r_sql(jsonb, event_store.event), r_data(jsonb, event_store.event) FROM PUBLIC;
SET ROLE es_load_reader;
SELECT is((SELECT version FROM event_store.load('orders', 'order-1', 'r_atomic')), 4::bigint, 'SELECT on the table is enough');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_plpgsql') $$, '42501', 'permission denied for function r_plpgsql', 'without EXECUTE on the reducer it is refused');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'r_sql') $$, '42501', 'permission denied for function r_sql', 'also where it would be inlined');
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-9', 'r_data') $$, '42501', 'permission denied for function r_data', 'also where there is nothing to fold');
SET ROLE es_load_other;
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'order') $$, '42501', 'permission denied for table orders', 'without SELECT too');
RESET ROLE;
REVOKE ALL ON SCHEMA "Somewhere" FROM PUBLIC;
SET ROLE es_load_reader;
SELECT throws_ok($$ SELECT event_store.load('orders', 'order-1', 'moves') $$, '42501', 'permission denied for schema Somewhere', 'and without USAGE on the reducer''s schema');
RESET ROLE;

DROP TABLE orders, past;
DROP ROLE es_load_reader, es_load_other;
SELECT * FROM finish();
