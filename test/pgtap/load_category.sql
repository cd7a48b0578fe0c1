-- load_category(): a row for each stream of a category, and for no other.
SET client_min_messages = warning;
SELECT plan(30);

\ir include/rows_of.sql

CREATE FUNCTION listed(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || to_jsonb(event.version)';
SELECT event_store.create_aggregate('list', 'listed(jsonb, event_store.event)', '[]') \g /dev/null
SELECT event_store.create_event_table('log') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load_category('log', 'order', 'list') $$), 'nothing', 'an empty table has no streams');

-- Names that sort into, before and behind a category.
SELECT event_store.append_batch('log', s, array_fill('T'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n]))
  FROM (VALUES ('order', 2), ('order-', 1), ('order-1', 3), ('order-10', 1), ('order-2', 2), ('order--', 1), ('order-1-2', 1), ('order-' || E'\u00e4', 1), ('order-!', 1), ('order-' || repeat('x', 506), 1),
               ('order!x', 1), ('order,x', 1), ('order.', 1), ('order.x', 1), ('order/x', 1), ('orders', 1), ('orders-1', 1), ('Order-1', 1), ('orde', 1), ('orde-r', 1), ('-', 1), ('-1', 1), ('a%_-1', 1), (E'\u00fcber-1', 2)) AS x(s, n) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load_category('log', 'order', 'list') WHERE length(stream) < 20 $$),
    format('(order,2,"[1, 2]",2,) (order-,1,[1],1,) (order-!,1,[1],1,) (order--,1,[1],1,) (order-1,3,"[1, 2, 3]",3,) (order-1-2,1,[1],1,) (order-10,1,[1],1,) (order-2,2,"[1, 2]",2,) (order-%s,1,[1],1,)', E'\u00e4'), 'all of them, in the order of their names');
CREATE TABLE names AS SELECT DISTINCT stream, event_store.category(stream) AS category FROM log;
SELECT is((SELECT string_agg(stream, ' ' ORDER BY stream) FROM event_store.load_category('log', category, 'list')), string_agg(stream, ' ' ORDER BY stream), 'the streams of category ' || category)
  FROM names GROUP BY category;
SELECT is((SELECT array_agg(stream) FROM event_store.load_category('log', 'order', 'list')), (SELECT array_agg(stream ORDER BY stream COLLATE "C") FROM names WHERE category = 'order'), 'in the order of COLLATE "C"');
SELECT is_empty($$ SELECT * FROM names n, event_store.load_category('log', n.category, 'list') c, event_store.load('log', c.stream, 'list') l WHERE (c.version, c.state, c.events_folded) <> (l.version, l.state, l.events_folded) $$, 'each row is what load() gives');
SELECT is(pg_temp.rows_of(format('SELECT * FROM event_store.load_category(''log'', %s)', arguments)), expected, description)
  FROM (VALUES ($$ 'none', 'list' $$, 'nothing', 'a category that is empty'),
               ($$ 'order-1', 'list' $$, 'nothing', 'what has a "-" is no category'),
               ($$ 'order', 'list', '-infinity' $$, 'nothing', 'streams that were not there yet are left out'),
               ($$ 'order', 'list', NULL, '-infinity' $$, 'nothing', 'nothing had occurred'),
               ($$ NULL, 'list' $$, '22004: category must not be null', 'a category that is NULL'),
               ($$ 'order', NULL $$, '22004: aggregate must not be null', 'an aggregate that is NULL'),
               ($$ 'order', 'none' $$, '42704: aggregate "none" does not exist', 'an aggregate that is not there')) AS c(arguments, expected, description);

-- In the past, and with snapshots.
SELECT event_store.create_event_table('past') \g /dev/null
SET session_replication_role = replica;
INSERT INTO past (position, stream, version, event_id, type, schema_version, data, occurred_at, recorded_at)
SELECT row_number() OVER (), s, v, gen_random_uuid(), 'T', 1, '1', timestamptz '2026-01-20' - v * interval '1 day', timestamptz '2026-01-01' + v * interval '1 day'
  FROM (VALUES ('a-1', 1), ('a-2', 3), ('a-3', 5)) AS x(s, first), generate_series(first, first + 2) AS v;
RESET session_replication_role;
SELECT is(pg_temp.rows_of($$ SELECT stream, version, state FROM event_store.load_category('past', 'a', 'list', as_of => '2026-01-05') $$), '(a-1,3,"[1, 2, 3]") (a-2,4,"[3, 4]")', 'as of a time');
SELECT is(pg_temp.rows_of($$ SELECT stream, version, state FROM event_store.load_category('past', 'a', 'list', occurred_as_of => '2026-01-17') $$), '(a-1,3,[3]) (a-2,5,"[5, 4, 3]") (a-3,7,"[7, 6, 5]")', 'as of a time in the world');
SELECT event_store.save_snapshot('past', 'a-2', 4, '[3, 4]', 'list') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load_category('past', 'a', 'list') $$), '(a-1,3,"[1, 2, 3]",3,) (a-2,5,"[3, 4, 5]",1,4) (a-3,7,"[5, 6, 7]",3,)', 'with the snapshots that there are');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load_category('past', 'a', 'list', use_snapshot => false) $$), '(a-1,3,"[1, 2, 3]",3,) (a-2,5,"[3, 4, 5]",3,) (a-3,7,"[5, 6, 7]",3,)', 'or without');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load_category('past', 'a', 'list', as_of => '2026-01-05') WHERE stream = 'a-2' $$), '(a-2,4,"[3, 4]",0,4)', 'also in the past');
SELECT is(pg_temp.rows_of($$ SELECT stream FROM event_store.load_category('past', 'a', 'list') LIMIT 1 $$), '(a-1)', 'with a LIMIT');

-- With policies.
CREATE ROLE es_category_reader;
GRANT SELECT ON log TO es_category_reader;
CREATE POLICY short ON log FOR SELECT USING (length(stream) < 8 AND version <> 2);
ALTER TABLE log ENABLE ROW LEVEL SECURITY;
SET ROLE es_category_reader;
SELECT is(pg_temp.rows_of($$ SELECT stream, version, state FROM event_store.load_category('log', 'order', 'list') $$),
    format('(order,1,[1]) (order-,1,[1]) (order-!,1,[1]) (order--,1,[1]) (order-1,3,"[1, 3]") (order-2,1,[1]) (order-%s,1,[1])', E'\u00e4'), 'with policies, of what one may see');
RESET ROLE;

DROP TABLE log, past;
DROP ROLE es_category_reader;
SELECT * FROM finish();
