-- Wherever a call stands in a query it is the same append, with the same
-- privileges, though the planner rewrites it.
SET client_min_messages = warning;
SELECT plan(11);
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE ROLE es_calls_insert;
GRANT INSERT ON orders TO es_calls_insert;

SELECT is(pg_temp.rows_of($$ SELECT last_version, duplicate FROM event_store.append('orders', 's-1', 'T', '1') $$), '(1,f)', 'in FROM');
SELECT is(pg_temp.rows_of($$ SELECT (event_store.append('orders', 's-1', 'T', '1')).last_version $$), '(2)', 'in the select list');
SELECT is(pg_temp.rows_of($$ SELECT v, last_version FROM generate_series(2, 3) v, LATERAL event_store.append('orders', 's-1', 'T', '1', v) $$),
    '(2,3) (3,4)', 'lateral');
SELECT is(pg_temp.rows_of($$ SELECT last_version, ordinality FROM event_store.append('orders', 's-1', 'T', '1', occurred_at => now()) WITH ORDINALITY $$),
    '(5,1)', 'with ordinality and named arguments');
SELECT is(pg_temp.rows_of($$ SELECT a, l FROM ROWS FROM (event_store.append_batch('orders', 's-1', '{A,B}', '{1,2}'), event_store.append_json('orders', 's-2', '[{"type": "T", "data": 1}]')) AS r (a, b, c, d, e, f, g, l) $$),
    '(6,1)', 'in ROWS FROM');
SELECT is(pg_temp.rows_of($$ SELECT last_version FROM event_store.append('orders', (SELECT 's-' || max(i) FROM generate_series(1, 2) i), 'T', '1') $$), '(2)', 'with a subquery');
PREPARE append(text, bigint) AS SELECT last_version, duplicate FROM event_store.append('orders', 's-3', $1, '1', $2);
SET plan_cache_mode = force_generic_plan;
SELECT results_eq($$ EXECUTE append('T', 0) $$, $$ VALUES (1::bigint, false) $$, 'prepared');
SELECT throws_ok($$ EXECUTE append('T', 0) $$, 'SE001', NULL, 'which is planned once');
SELECT is((SELECT string_agg(version || ' ' || (occurred_at IS NOT NULL), ', ' ORDER BY version) FROM orders WHERE stream = 's-1'),
    '1 false, 2 false, 3 false, 4 false, 5 true, 6 false, 7 false', 'each has appended once');

REVOKE EXECUTE ON FUNCTION event_store.append FROM PUBLIC;
SET ROLE es_calls_insert;
SELECT is(pg_temp.rows_of($$ SELECT last_version FROM event_store.append('orders', 's-1', 'T', '1') $$), '42501: permission denied for function append', 'EXECUTE is checked, in FROM');
SELECT is(pg_temp.rows_of($$ SELECT (event_store.append('orders', 's-1', 'T', '1')).last_version $$), '42501: permission denied for function append', 'and in the select list');
RESET ROLE;
DROP OWNED BY es_calls_insert;
DROP ROLE es_calls_insert;

SELECT * FROM finish();
