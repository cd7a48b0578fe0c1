-- fold(), the SQL aggregate: over any query that has events.
SET client_min_messages = warning;
SELECT plan(24);

\ir include/rows_of.sql

CREATE FUNCTION pg_temp.context_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN context;
END $$;
CREATE FUNCTION listed(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || to_jsonb(event.version)';
CREATE FUNCTION counted(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS 'BEGIN RETURN to_jsonb(state::int + 1); END';
CREATE FUNCTION third(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN event.version <> 3 THEN state END';
SELECT event_store.create_aggregate('list', 'listed(jsonb, event_store.event)', '[]') \g /dev/null
SELECT event_store.create_aggregate('count', 'counted(jsonb, event_store.event)', '0') \g /dev/null
SELECT event_store.create_aggregate('third', 'third(jsonb, event_store.event)') \g /dev/null
SELECT event_store.create_aggregate('order') \g /dev/null
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'order-' || i % 3, 'T' || i % 2, jsonb_build_object('k' || i % 4, i)) FROM generate_series(1, 12) i \g /dev/null

SELECT is(pg_temp.rows_of(query), expected, description)
  FROM (VALUES ($$ SELECT stream, event_store.fold(e, 'list' ORDER BY e.version) FROM event_store.read_all('orders') e GROUP BY stream ORDER BY stream $$,
                '(order-0,"[1, 2, 3, 4]") (order-1,"[1, 2, 3, 4]") (order-2,"[1, 2, 3, 4]")', 'a state per group'),
               ($$ SELECT event_store.fold(e, 'list' ORDER BY e.version DESC) FROM event_store.read_stream('orders', 'order-1') e $$, '("[4, 3, 2, 1]")', 'in the order that is asked for'),
               ($$ SELECT event_store.fold(e, 'list' ORDER BY e.version) FILTER (WHERE type = 'T1') FROM event_store.read_stream('orders', 'order-1') e $$, '("[1, 3]")', 'with a filter'),
               ($$ SELECT event_store.fold(e, 'list' ORDER BY e.version), event_store.fold(e, 'count'), event_store.fold(e, 'order' ORDER BY e.version) FROM event_store.read_stream('orders', 'order-1') e $$,
                '("[1, 2, 3, 4]",4,"{""k0"": 4, ""k1"": 1, ""k2"": 10, ""k3"": 7}")', 'several at once'),
               ($$ SELECT x, event_store.fold(e, x ORDER BY e.version) FROM event_store.read_stream('orders', 'order-1') e, unnest('{list,count}'::text[]) x GROUP BY x ORDER BY x $$, '(count,4) (list,"[1, 2, 3, 4]")', 'another aggregate for each group'),
               ($$ SELECT version, event_store.fold(e, 'list') OVER (ORDER BY version) FROM event_store.read_stream('orders', 'order-1') e $$, '(1,[1]) (2,"[1, 2]") (3,"[1, 2, 3]") (4,"[1, 2, 3, 4]")', 'over a window: the state after each event'),
               ($$ SELECT version, event_store.fold(e, 'list') OVER (ORDER BY version ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM event_store.read_stream('orders', 'order-1') e $$, '(1,[1]) (2,"[1, 2]") (3,"[2, 3]") (4,"[3, 4]")', 'over a window that moves'),
               ($$ SELECT event_store.fold(e, 'list') FROM event_store.read_stream('orders', 'order-9') e $$, '()', 'no rows: NULL'),
               ($$ SELECT event_store.fold(NULL, 'none') $$, '()', 'no event: NULL, and nobody asks which aggregate'),
               ($$ SELECT event_store.fold(e, 'list' ORDER BY v) FROM generate_series(1, 6) v LEFT JOIN event_store.read_stream('orders', 'order-1') e ON e.version = v $$, '("[1, 2, 3, 4]")', 'events that are NULL are left out'),
               ($$ SELECT event_store.fold(x.e, 'list' ORDER BY (x.e).position) FROM (SELECT e FROM event_store.read_category('orders', 'order') e LIMIT 5) x $$, '("[1, 1, 1, 2, 2]")', 'over a subquery'),
               ($$ SELECT event_store.fold(ROW(o.*)::event_store.event, 'list' ORDER BY version) FROM orders o WHERE stream = 'order-1' $$, '("[1, 2, 3, 4]")', 'over the table itself'),
               ($$ SELECT event_store.fold(e, 'count') FROM event_store.read_batch('orders') b, jsonb_populate_recordset(NULL::event_store.event, b.events) e $$, '(12)', 'over a batch'),
               ($$ SELECT event_store.fold(DISTINCT e, 'count') FROM event_store.read_all('orders') e, generate_series(1, 3) $$, '(12)', 'of distinct events'),
               ($$ SELECT event_store.fold(e, 'none') FROM event_store.read_all('orders') e $$, '42704: aggregate "none" does not exist', 'an aggregate that is not there'),
               ($$ SELECT event_store.fold(e, NULL) FROM event_store.read_all('orders') e $$, '22004: aggregate must not be null', 'one that is NULL'),
               ($$ SELECT event_store.fold(e, CASE WHEN version < 3 THEN 'list' ELSE 'count' END ORDER BY version) FROM event_store.read_stream('orders', 'order-1') e $$,
                '22023: aggregate must be the same for all rows of a group, not "list" and "count"', 'two in one group'),
               ($$ SELECT event_store.fold(e, 'third') FROM event_store.read_all('orders') e $$, '22004: public.third(pg_catalog.jsonb,event_store.event) returned NULL', 'a reducer that returns NULL')) AS c(query, expected, description);
SELECT matches((SELECT string_agg(l, ' ') FROM unnest(string_to_array(context, E'\n')) l WHERE l ~ '^folding'), '^folding event [0-9a-f-]{36} \(stream "order-1", version 3, type "T1"\) into aggregate "third"$', 'the error names the event')
  FROM (SELECT pg_temp.context_of($$ SELECT event_store.fold(e, 'third' ORDER BY position) FROM event_store.read_all('orders') e $$)) AS c(context);

-- Many groups, by sorting and by hashing.
SELECT event_store.create_event_table('many') \g /dev/null
SELECT count(*) FROM event_store.append_streams('many', (SELECT jsonb_agg(jsonb_build_object('stream', 'm-' || i, 'events', '[{"type": "T", "data": {"a": 1}}, {"type": "T", "data": {"b": 1}}]'::jsonb)) FROM generate_series(1, 20000) i)) \g /dev/null
SET work_mem = '1MB';
SET enable_sort = off;
SELECT is((SELECT count(*) || ' ' || count(DISTINCT state) || ' ' || min(state::text) FROM (SELECT event_store.fold(e, 'order') AS state FROM event_store.read_all('many', max_count => 100000) e GROUP BY stream) s), '20000 1 {"a": 1, "b": 1}', 'many groups, by hashing');
RESET enable_sort;
SET enable_hashagg = off;
SELECT is((SELECT count(*) || ' ' || count(DISTINCT state) FROM (SELECT event_store.fold(e, 'order' ORDER BY version) AS state FROM event_store.read_all('many', max_count => 100000) e GROUP BY stream) s), '20000 1', 'and by sorting');
RESET enable_hashagg;

-- Privileges are those on the reducer.
CREATE ROLE es_fold_reader;
GRANT SELECT ON orders TO es_fold_reader;
REVOKE EXECUTE ON FUNCTION listed(jsonb, event_store.event) FROM PUBLIC;
SET ROLE es_fold_reader;
SELECT is((SELECT event_store.fold(e, 'count') FROM event_store.read_all('orders') e), '12', 'a reader folds');
SELECT throws_ok($$ SELECT event_store.fold(e, 'list') FROM event_store.read_all('orders') e $$, '42501', 'permission denied for function listed', 'but not with a reducer that he may not execute');
RESET ROLE;
-- Which error the server makes of it has changed within 15.
SELECT ok(pg_temp.rows_of($$ SELECT event_store._fold_step(NULL, NULL::event_store.event, 'list') $$) ~ '^(42883|0A000):', 'the step cannot be called by hand');

DROP TABLE orders, many;
DROP ROLE es_fold_reader;
SELECT * FROM finish();
