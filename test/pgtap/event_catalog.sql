-- event_catalog: which types of events there are, known or seen; and the sample
-- that check_upcasters() takes.
SET client_min_messages = warning;
SELECT plan(22);

\ir include/rows_of.sql

CREATE ROLE es_catalog_owner;
CREATE ROLE es_catalog_reader;
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
CREATE FUNCTION same(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1;

SELECT is_empty($$ SELECT * FROM event_store.event_catalog('orders') $$, 'of an empty table it is empty');
SELECT event_store.append('orders', 'o-' || i % 3, CASE WHEN i % 2 = 0 THEN 'Even' ELSE 'Odd' END, to_jsonb(i),
    metadata => CASE WHEN i > 5 THEN '"m"'::jsonb END, schema_version => 1 + i % 4) FROM generate_series(1, 10) i \g /dev/null
SELECT event_store.append('orders', 'o-1', 'Other', '{}') \g /dev/null
SELECT event_store.append('others', 'o-1', 'Elsewhere', '{}') \g /dev/null
SELECT event_store.register_event_type('orders', 'Even', 'divides by two', 'numbers', '2') \g /dev/null
SELECT event_store.register_event_type('orders', 'Never', 'not seen') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Odd', 2, 'same(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Odd', 3, 'same(jsonb)') \g /dev/null
SELECT event_store.register_upcaster('orders', 'Unborn', 1, 'same(jsonb)') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT type, registered, description, owner_team, example, events, streams, schema_versions, upcast_to FROM event_store.event_catalog('orders') $$),
    '(Even,t,"divides by two",numbers,2,5,3,"{1,3}",) (Never,t,"not seen",,,0,0,{},) (Odd,f,,,,5,3,"{2,4}",4) (Other,f,,,,1,1,{1},) (Unborn,f,,,,0,0,{},2)',
    'types that are stored, registered, or have upcasters');
SELECT is(pg_temp.rows_of($$ SELECT type, first_recorded_at, last_recorded_at, bytes FROM event_store.event_catalog('orders') WHERE events > 0 $$),
    pg_temp.rows_of($$ SELECT type, min(recorded_at), max(recorded_at), sum(pg_column_size(data) + coalesce(pg_column_size(metadata), 0)) FROM orders GROUP BY type ORDER BY type $$),
    'when they were recorded, and how much they take up');
SELECT is(pg_temp.rows_of($$ SELECT first_recorded_at, last_recorded_at, bytes FROM event_store.event_catalog('orders') WHERE type = 'Never' $$), '(,,0)', 'those of none');
SELECT is((SELECT sum(events) FROM event_store.event_catalog('orders')), 11::numeric, 'every event is counted');
SELECT results_eq($$ SELECT type, registered, description, owner_team, example, events, streams, first_recorded_at, last_recorded_at, bytes, schema_versions, upcast_to
                       FROM event_store.event_catalog WHERE event_table = 'orders'::regclass $$,
    $$ SELECT * FROM event_store.event_catalog('orders') $$, 'the view has the same');
SELECT is((SELECT string_agg(event_table || ' ' || type, ', ' ORDER BY event_table::text, type) FROM event_store.event_catalog),
    'orders Even, orders Never, orders Odd, orders Other, orders Unborn, others Elsewhere', 'for all event tables');

-- Who sees what.
ALTER TABLE others OWNER TO es_catalog_owner;
GRANT SELECT ON orders TO es_catalog_reader;
CREATE POLICY odd ON orders USING (type = 'Odd');
SET ROLE es_catalog_reader;
SELECT is((SELECT string_agg(DISTINCT event_table::text, ', ') FROM event_store.event_catalog), 'orders', 'the view shows tables that may be read');
SELECT throws_ok($$ SELECT * FROM event_store.event_catalog('others') $$, '42501', NULL, 'the function refuses others');
RESET ROLE;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE es_catalog_reader;
SELECT is(pg_temp.rows_of($$ SELECT type, events FROM event_store.event_catalog('orders') $$), '(Even,0) (Never,0) (Odd,5) (Unborn,0)', 'row-level security is honoured');
SELECT is_empty('SELECT * FROM event_store.event_catalog', 'the view goes through no policy');
SELECT is_empty($$ SELECT * FROM event_store.check_upcasters('orders') $$, 'check_upcasters() sees what the caller may');
RESET ROLE;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;

-- The sample.
CREATE FUNCTION fails(e jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'always'; END $$;
SELECT event_store.create_event_table('many') \g /dev/null
INSERT INTO many (stream, type, data, schema_version) SELECT 's', CASE WHEN i % 2 = 0 THEN 'A' ELSE 'B' END, to_jsonb(i), CASE WHEN i <= 100 THEN 1 ELSE 2 END FROM generate_series(1, 200) i;
INSERT INTO many (stream, type, data, schema_version) VALUES ('s', 'A', '{}', 3), ('s', 'A', '{}', 4), ('s', 'C', '{}', 1);
SELECT event_store.register_upcaster('many', 'A', v, 'fails(jsonb)') FROM generate_series(1, 2) v \g /dev/null
SELECT event_store.register_upcaster('many', 'B', 1, 'fails(jsonb)') \g /dev/null
SELECT is((SELECT string_agg(format('%s%s: %s, %s to %s', type, schema_version, n, a, z), '; ' ORDER BY type, schema_version)
             FROM (SELECT type, schema_version, count(*) n, min(position) a, max(position) z FROM event_store.check_upcasters('many', sample) GROUP BY 1, 2) c), expected,
    'check_upcasters(), sample ' || coalesce(sample::text, 'NULL'))
  FROM (VALUES (NULL, 'A1: 50, 2 to 100; A2: 50, 102 to 200; B1: 50, 1 to 99'),
               (1, 'A1: 1, 100 to 100; A2: 1, 200 to 200; B1: 1, 99 to 99'),
               (5, 'A1: 5, 20 to 100; A2: 5, 120 to 200; B1: 5, 19 to 99'),
               (49, 'A1: 49, 4 to 100; A2: 49, 104 to 200; B1: 49, 3 to 99'),
               (50, 'A1: 50, 2 to 100; A2: 50, 102 to 200; B1: 50, 1 to 99'),
               (9223372036854775807, 'A1: 50, 2 to 100; A2: 50, 102 to 200; B1: 50, 1 to 99')) AS c(sample, expected);
SELECT throws_ok($$ SELECT * FROM event_store.check_upcasters('many', 0) $$, '22023', 'sample must be at least 1, not 0', 'a sample of none is refused');
SELECT is((SELECT array_agg(DISTINCT sqlstate) FROM event_store.check_upcasters('many')), '{SE008}', 'every failure has its SQLSTATE');
SELECT is(pg_temp.rows_of($$ SELECT c.position = e.position AND c.event_id = e.event_id AND c.stream = e.stream AND c.version = e.version AND c.type = e.type
        AND c.schema_version = e.schema_version AND c.message LIKE '%' || e.event_id || '%always'
    FROM event_store.check_upcasters('many', 1) c JOIN many e USING (position) WHERE position = 200 $$), '(t)', 'and names its event');
SELECT is((SELECT count(*) FROM many), 203::bigint, 'nothing has changed');

DROP TABLE orders, others, many;
DROP OWNED BY es_catalog_owner, es_catalog_reader;
DROP ROLE es_catalog_owner, es_catalog_reader;
SELECT * FROM finish();
