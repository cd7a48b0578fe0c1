-- Upcasters: every reader returns data of the newest schema version, unless raw;
-- what is stored stays as it is.
SET client_min_messages = warning;
SELECT plan(94);

\ir include/rows_of.sql
\ir include/error_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
CREATE FUNCTION currency(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT $1 || '{"currency": "EUR"}' $$;
CREATE FUNCTION cents(event jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN event - 'total' || jsonb_build_object('cents', (event ->> 'total')::int * 100); END $$;
CREATE FUNCTION reason(jsonb) RETURNS jsonb LANGUAGE sql STABLE RETURN $1 || '{"reason": "unknown"}';

SELECT event_store.append('orders', 'o-1', 'Placed', '{"total": 1}', event_id => '00000000-0000-0000-0000-000000000001') \g /dev/null
SELECT event_store.append('orders', 'o-1', 'Shipped', '{"by": "DHL"}', event_id => '00000000-0000-0000-0000-000000000002') \g /dev/null
SELECT event_store.append('orders', 'o-2', 'Placed', '{"total": 2, "currency": "SEK"}', schema_version => 2,
    event_id => '00000000-0000-0000-0000-000000000003') \g /dev/null
SELECT event_store.append('orders', 'o-2', 'Cancelled', '{}', event_id => '00000000-0000-0000-0000-000000000004', correlation_id => 'c') \g /dev/null
SELECT event_store.append('orders', 'o-2', 'Placed', '{"cents": 3, "currency": "NOK"}', schema_version => 3,
    event_id => '00000000-0000-0000-0000-000000000005') \g /dev/null
SELECT event_store.append('orders', 'o-2', 'Placed', '{"new": 4}', schema_version => 4,
    event_id => '00000000-0000-0000-0000-000000000006') \g /dev/null
SELECT event_store.append('others', 'o-1', 'Placed', '{"total": 1}') \g /dev/null
CREATE TABLE stored AS SELECT * FROM orders;

-- Every reader, as it returns what is stored, and what is upcast.
CREATE TABLE reads (description text, query text, raw text, upcast text);
INSERT INTO reads VALUES
    ('read_stream', $$ event_store.read_stream('orders', 'o-2', raw => %s) $$,
        '(3,2,"{""total"": 2, ""currency"": ""SEK""}") (4,1,{}) (5,3,"{""cents"": 3, ""currency"": ""NOK""}") (6,4,"{""new"": 4}")',
        '(3,3,"{""cents"": 200, ""currency"": ""SEK""}") (4,2,"{""reason"": ""unknown""}") (5,3,"{""cents"": 3, ""currency"": ""NOK""}") (6,4,"{""new"": 4}")'),
    ('read_stream backward, two events', $$ event_store.read_stream('orders', 'o-1', NULL, 2, 'backward', NULL, %s) $$,
        '(2,1,"{""by"": ""DHL""}") (1,1,"{""total"": 1}")', '(2,1,"{""by"": ""DHL""}") (1,3,"{""cents"": 100, ""currency"": ""EUR""}")'),
    ('last_event', $$ event_store.last_event('orders', 'o-1', 'Placed', raw => %s) $$,
        '(1,1,"{""total"": 1}")', '(1,3,"{""cents"": 100, ""currency"": ""EUR""}")'),
    ('read_event', $$ event_store.read_event('orders', '00000000-0000-0000-0000-000000000004', raw => %s) $$, '(4,1,{})',
        '(4,2,"{""reason"": ""unknown""}")'),
    ('read_all', $$ event_store.read_all('orders', max_count => 2, raw => %s) $$, '(1,1,"{""total"": 1}") (2,1,"{""by"": ""DHL""}")',
        '(1,3,"{""cents"": 100, ""currency"": ""EUR""}") (2,1,"{""by"": ""DHL""}")'),
    ('read_all by type', $$ event_store.read_all('orders', types => '{Placed}', max_count => 2, raw => %s) $$,
        '(1,1,"{""total"": 1}") (3,2,"{""total"": 2, ""currency"": ""SEK""}")',
        '(1,3,"{""cents"": 100, ""currency"": ""EUR""}") (3,3,"{""cents"": 200, ""currency"": ""SEK""}")'),
    ('read_all by correlation', $$ event_store.read_all('orders', correlation_id => 'c', raw => %s) $$, '(4,1,{})',
        '(4,2,"{""reason"": ""unknown""}")'),
    ('read_category', $$ event_store.read_category('orders', 'o', 3, 1, raw => %s) $$, '(4,1,{})', '(4,2,"{""reason"": ""unknown""}")'),
    ('read_batch', $$ event_store.read_batch('orders', 2, 2, raw => %s) b, jsonb_populate_recordset(NULL::event_store.event, b.events) $$,
        '(3,2,"{""total"": 2, ""currency"": ""SEK""}") (4,1,{})',
        '(3,3,"{""cents"": 200, ""currency"": ""SEK""}") (4,2,"{""reason"": ""unknown""}")'),
    ('read_stream of another event table', $$ event_store.read_stream('others', 'o-1', raw => %s) $$, '(1,1,"{""total"": 1}")',
        '(1,1,"{""total"": 1}")');
CREATE FUNCTION pg_temp.read(query text, raw text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT position, schema_version, data FROM ' || query, raw)) $$;
SELECT is(pg_temp.read(query, 'false'), raw, 'without upcasters: ' || description) FROM reads;

PREPARE first_event AS SELECT schema_version FROM event_store.read_stream('orders', 'o-1') LIMIT 1;
EXECUTE first_event \g /dev/null
SELECT event_store.register_upcaster('orders', 'Placed', 2, 'cents(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Placed', 1, 'currency(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Cancelled', 1, 'reason(jsonb)') \g /dev/null
SELECT results_eq('first_event', '{3}'::int[], 'a prepared statement upcasts from then on');
SELECT is(pg_temp.read(query, flag), upcast, format('raw => %s: %s', flag, description)) FROM reads, (VALUES ('false'), ('NULL')) AS r(flag);
SELECT is(pg_temp.read(query, 'true'), raw, 'raw => true: ' || description) FROM reads;
SELECT results_eq('SELECT * FROM orders ORDER BY position', 'SELECT * FROM stored ORDER BY position', 'what is stored stays as it is');
SELECT results_eq($$ SELECT position, stream, version, event_id, type, metadata, correlation_id, causation_id, occurred_at, recorded_at FROM event_store.read_all('orders') $$,
    'SELECT position, stream, version, event_id, type, metadata, correlation_id, causation_id, occurred_at, recorded_at FROM stored ORDER BY position',
    'the other columns are returned as they are stored');
SELECT is((SELECT jsonb_agg(e) FROM jsonb_array_elements((event_store.read_batch('orders')).events) e),
    (SELECT jsonb_agg(to_jsonb(e)) FROM event_store.read_all('orders') e), 'read_batch() returns the same as read_all()');

-- The same where row-level security applies, which takes another way.
CREATE ROLE es_upcasters_reader;
GRANT SELECT ON orders, others, reads TO es_upcasters_reader;
CREATE POLICY all_of_them ON orders USING (true);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE es_upcasters_reader;
SELECT is(pg_temp.read(query, 'false'), upcast, 'with policies: ' || description) FROM reads;
SELECT is(pg_temp.read(query, 'true'), raw, 'with policies, raw: ' || description) FROM reads;
RESET ROLE;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
DROP POLICY all_of_them ON orders;

-- Own events, columns of users, large values, names of any length.
BEGIN;
SELECT event_store.append('orders', 'mine-1', 'Placed', '{"total": 5}') \g /dev/null
SELECT is(data, '{"cents": 500, "currency": "EUR"}', 'an own uncommitted event is upcast') FROM event_store.read_stream('orders', 'mine-1');
ROLLBACK;
BEGIN;
SELECT event_store.unregister_upcaster('orders', 'Placed', 2) \g /dev/null
SELECT is((SELECT schema_version FROM event_store.read_stream('orders', 'o-1', max_count => 1)), 2, 'a transaction sees what it has unregistered');
SAVEPOINT s;
SELECT event_store.register_upcaster('orders', 'Placed', 2, 'cents(jsonb)') \g /dev/null
SELECT is((SELECT schema_version FROM event_store.read_stream('orders', 'o-1', max_count => 1)), 3, 'and registered');
ROLLBACK TO s;
SELECT is((SELECT schema_version FROM event_store.read_stream('orders', 'o-1', max_count => 1)), 2, 'and rolled back to a savepoint');
ROLLBACK;
SELECT is((SELECT schema_version FROM event_store.read_stream('orders', 'o-1', max_count => 1)), 3, 'and rolled back');
ALTER TABLE others ADD COLUMN customer text DEFAULT 'ann', ADD COLUMN extra int;
SELECT event_store.register_upcaster('others', 'Placed', 1, 'currency(jsonb)') \g /dev/null
SELECT event_store.append('others', repeat('s', 512), repeat('ü', 127), jsonb_build_object('a', repeat('x', 3000), 'b', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i)),
    metadata => (SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, 3000) i)) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT position, schema_version, data, type FROM event_store.read_stream('others', 'o-1') $$),
    '(1,2,"{""total"": 1, ""currency"": ""EUR""}",Placed)', 'a table with columns of users');
SELECT is((SELECT schema_version FROM event_store.last_event('others', repeat('s', 512))), 1, 'long names, without an upcaster');
SELECT event_store.register_upcaster('others', repeat('ü', 127), 1, 'currency(jsonb)') \g /dev/null
SELECT is((SELECT format('%s %s %s %s', r.schema_version, r.data - 'currency' = e.data, r.data ->> 'currency', r.metadata = e.metadata)
    FROM event_store.last_event('others', repeat('s', 512)) r, others e WHERE e.stream = r.stream), '2 t EUR t',
    'long names, with one; large data and metadata');
SELECT is((SELECT format('%s %s', e #>> '{1,schema_version}', length(e #>> '{1,data,b}')) FROM (SELECT events FROM event_store.read_batch('others')) b(e)),
    '2 96000', 'and in a batch');
-- Many types: each upcaster takes its own.
SELECT event_store.append('others', 'many-' || i, 'T' || i, '{}') FROM generate_series(1, 300) i \g /dev/null
SELECT event_store.register_upcaster('others', 'T' || i, 1, 'currency(jsonb)') FROM generate_series(3, 300, 3) i \g /dev/null
SELECT is((SELECT count(*) FROM event_store.read_all('others') WHERE type ~ '^T' AND (schema_version = 2) = (substr(type, 2)::int % 3 = 0)
    AND (data = '{"currency": "EUR"}') = (schema_version = 2)), 300::bigint, 'a hundred upcasters take their hundred types, and no others');

-- A chain ends where its next version is missing, as after a careless INSERT.
INSERT INTO event_store.registered_upcasters VALUES ('orders', 'Shipped', 1, 'public.currency(jsonb)'), ('orders', 'Shipped', 3, 'public.cents(jsonb)');
SELECT is(pg_temp.rows_of($$ SELECT schema_version, data FROM event_store.last_event('orders', 'o-1') $$), '(2,"{""by"": ""DHL"", ""currency"": ""EUR""}")',
    'a chain with a hole is followed up to the hole');
SELECT is(pg_temp.rows_of($$ SELECT position, event_id, stream, version, type, schema_version, sqlstate, message FROM event_store.check_upcasters('orders') $$),
    '(2,00000000-0000-0000-0000-000000000002,o-1,2,Shipped,1,SE008,"no upcaster takes schema version 2 to the next")', 'check_upcasters() finds it');
DELETE FROM event_store.registered_upcasters WHERE type = 'Shipped';
SELECT is((SELECT schema_version FROM event_store.last_event('orders', 'o-1')), 1, 'a row that is deleted by SQL is noticed');
SELECT event_store.unregister_upcaster('orders', 'Placed', 1) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT schema_version, data FROM event_store.read_stream('orders', 'o-1') $$), '(1,"{""total"": 1}") (1,"{""by"": ""DHL""}")',
    'an event older than its chain is delivered as stored');
SELECT is(pg_temp.rows_of($$ SELECT position, sqlstate, message FROM event_store.check_upcasters('orders') $$),
    '(1,SE008,"no upcaster takes schema version 1 to the next")', 'check_upcasters() finds it, too');
SELECT event_store.register_upcaster('orders', 'Placed', 1, 'currency(jsonb)') \g /dev/null
SELECT is_empty($$ SELECT * FROM event_store.check_upcasters('orders') $$, 'check_upcasters() returns nothing where all is well');

-- Rows that say nonsense are the reader's SE008, not the server's error.
INSERT INTO event_store.registered_upcasters SELECT 'orders', 'Shipped', 1, 'none';
CREATE FUNCTION pg_temp.read_with(registered text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE event_store.registered_upcasters SET function = registered WHERE type = 'Shipped';
    RETURN left(pg_temp.rows_of($q$ SELECT * FROM event_store.last_event('orders', 'o-1') $q$), 100);
END $$;
SELECT is(pg_temp.read_with(nonsense), left('SE008: could not upcast event 00000000-0000-0000-0000-000000000002, version 2 of stream "o-1": upcaster '
        || nonsense || ' does not exist', 100), format('an upcaster that is registered as %L', nonsense))
  FROM (VALUES (''), ('('), ('(jsonb)'), ('currency(jsonb)'), ('public.currency'), ('public.currency(json)'), ('public.currency(jsonb) '), ('.(jsonb)'),
               ('a.public.currency(jsonb)'), ('"public.currency(jsonb)'), ('nowhere.currency(jsonb)'), ('public.nothing(jsonb)'), ('12(jsonb)')) AS n(nonsense);
DELETE FROM event_store.registered_upcasters WHERE type = 'Shipped';

DROP TABLE orders, others;
SELECT is_empty('SELECT * FROM event_store.registered_upcasters', 'upcasters go with their event table');
DROP OWNED BY es_upcasters_reader;
DROP ROLE es_upcasters_reader;
SELECT * FROM finish();
