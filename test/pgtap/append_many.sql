-- Very many events and very many streams in one call or command.
SET client_min_messages = warning;
SELECT plan(14);

CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text; t text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT, t = TABLE_NAME;
    RETURN concat_ws(E'\n', SQLSTATE, SQLERRM, nullif(hint, ''), nullif(t, ''));
END $$;

SELECT event_store.create_event_table('orders') \g /dev/null
-- 100,000 events for one stream.
SELECT results_eq($$ SELECT first_version, last_version, last_position - first_position, cardinality(event_ids), duplicate
                       FROM event_store.append_batch('orders', 'long-1', array_fill('T'::text, ARRAY[100000]), (SELECT array_agg(to_jsonb(i) ORDER BY i) FROM generate_series(1, 100000) AS i), 0) $$,
                  $$ VALUES (1::bigint, 100000::bigint, 99999::bigint, 100000, false) $$, 'append_batch() of 100,000 events');
SELECT results_eq($$ SELECT first_version, last_version, cardinality(event_ids)
                       FROM event_store.append_json('orders', 'long-1', (SELECT jsonb_agg(jsonb_build_object('type', 'T', 'data', i) ORDER BY i) FROM generate_series(1, 20000) AS i), 100000) $$,
                  $$ VALUES (100001::bigint, 120000::bigint, 20000) $$, 'append_json() of 20,000 more');
INSERT INTO orders (stream, type, data) SELECT 'long-1', 'T', to_jsonb(i) FROM generate_series(1, 20000) AS i;
SELECT results_eq($$ SELECT count(*), min(version), max(version), count(DISTINCT version), sum(data::int)::bigint FROM orders WHERE stream = 'long-1' $$,
                  $$ VALUES (140000::bigint, 1::bigint, 140000::bigint, 140000::bigint, 5000050000 + 2 * 200010000) $$,
                      'and a plain INSERT of 20,000: all are there, numbered on');
SELECT is((SELECT bool_and(data = to_jsonb(version)) FROM event_store.read_stream('orders', 'long-1', max_count => 100000)), true,
    'in their order');
SELECT is_empty('SELECT position FROM (SELECT position, version, lag(version) OVER (ORDER BY position) AS before FROM orders) o WHERE version <> before + 1', 'versions rise with positions');
SELECT is((SELECT format('%s %s', checkpoint, jsonb_array_length(events)) FROM event_store.read_batch('orders', 0, 200000)), '100000 100000',
    'a batch of the feed looks at 100,000 events at most');
SELECT is((SELECT format('%s %s', checkpoint, jsonb_array_length(events)) FROM event_store.read_batch('orders', types => '{None}')), '100000 0',
    'also where the filter lets nothing through');
SELECT is((SELECT format('%s %s', checkpoint, jsonb_array_length(events)) FROM event_store.read_batch('orders', 100000, types => '{None}')),
    '140000 0', 'and goes on from there');

-- 100,000 streams in one call; one plain INSERT has a lock for each.
SELECT event_store.create_event_table('wide') \g /dev/null
SELECT is((SELECT count(*) FROM event_store.append_streams('wide', (SELECT jsonb_agg(jsonb_build_object('stream', 's-' || i, 'expected_version',
    0, 'events', '[{"type": "T", "data": 1}]'::jsonb))
              FROM generate_series(1, 100000) AS i))), 100000::bigint, 'append_streams() of 100,000 streams');
SELECT is((SELECT count(DISTINCT stream) || ' ' || max(version) FROM wide), '100000 1', 'all are there');
SELECT alike(pg_temp.error_of($$ INSERT INTO wide (stream, type, data) SELECT 't-' || i, 'T', '{}' FROM generate_series(1, 100000) AS i $$),
             E'53200\nout of shared memory\n%LOCK TABLE % IN SHARE ROW EXCLUSIVE MODE%',
                 'a plain INSERT into very many streams runs out of locks; the hint names the way');
SELECT is((SELECT count(*) FROM wide), 100000::bigint, 'nothing of it is written');
BEGIN;
LOCK TABLE wide IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO wide (stream, type, data) SELECT 't-' || i, 'T', '{}' FROM generate_series(1, 100000) AS i;
COMMIT;
SELECT is((SELECT count(*) FROM wide), 200000::bigint, 'behind LOCK TABLE it works');
SELECT is((event_store.append('wide', 't-100000', 'T', '{}', 1)).last_position, (SELECT max(position) + 1 FROM wide), 'and appends go on');

SELECT * FROM finish();
