-- read_batch(): always one row; its checkpoint is that of an existing event, it
-- moves on also where a filter lets nothing through, and never below after.
SET client_min_messages = warning;
SELECT plan(52);

CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid $$;
-- Checkpoint, its event, positions of the events.
CREATE FUNCTION pg_temp.batch(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT count(*) || '': '' || string_agg(format(''%%s %%s %%s'', checkpoint, coalesce(right(checkpoint_event_id::text, 3), ''-''), jsonb_path_query_array(events, ''$[*].position'')), '';'')
                      FROM event_store.read_batch(%s)', arguments) INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT is(pg_temp.batch($$ 'orders' $$), '1: 0 - []', 'an empty table: one row, checkpoint 0 and no event');
SELECT is(pg_temp.batch($$ 'orders', 7 $$), '1: 7 - []', 'an empty table, after 7: the checkpoint is not below after');
SELECT is(pg_temp.batch($$ 'orders', 7, after_event_id => pg_temp.id(7) $$),
    'SE009: the checkpoint at position 7 is not of this event table''s history',
          'an empty table, with an event: the checkpoint has diverged');

-- Positions 1 to 10 but 4 and 10, whose appends were rolled back.
DO $$
BEGIN
    FOR i IN 1..10 LOOP
        BEGIN
            PERFORM event_store.append('orders', CASE WHEN i % 2 = 0 THEN 'even-' ELSE 'odd-' END || i % 3, CASE WHEN i = 2 THEN 'Rare' ELSE 'T' END, to_jsonb(i),
                                       event_id => pg_temp.id(i), correlation_id => CASE WHEN i > 6 THEN 'late' END);
            IF i IN (4, 10) THEN
                RAISE SQLSTATE 'X0001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'X0001' THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT is(pg_temp.batch(arguments), expected, description)
  FROM (VALUES
    ($$ 'orders' $$, '1: 9 009 [1, 2, 3, 5, 6, 7, 8, 9]', 'all: the checkpoint is the last event, not the position of a rolled-back one'),
    ($$ 'orders', NULL $$, '1: 9 009 [1, 2, 3, 5, 6, 7, 8, 9]', 'after NULL is from the beginning'),
    ($$ 'orders', 0, 3 $$, '1: 3 003 [1, 2, 3]', 'max_count: the checkpoint is the last event of the batch'),
    ($$ 'orders', 3, 2 $$, '1: 6 006 [5, 6]', 'the next batch'),
    ($$ 'orders', 4, 2 $$, '1: 6 006 [5, 6]', 'after a position that no event has'),
    ($$ 'orders', 9 $$, '1: 9 009 []', 'at the end: the same checkpoint, no events'),
    ($$ 'orders', 8, 1 $$, '1: 9 009 [9]', 'the last event'),
    ($$ 'orders', 8, 2 $$, '1: 9 009 [9]', 'fewer than max_count'),
    ($$ 'orders', 10 $$, '1: 10 - []', 'after a position above the last event: it stays there, with no event'),
    ($$ 'orders', 99999 $$, '1: 99999 - []', 'after more than there is: never below after'),
    ($$ 'orders', 9223372036854775807 $$, '1: 9223372036854775807 - []', 'after the greatest bigint'),
    ($$ 'orders', 4, 0 $$, '1: 4 - []', 'max_count 0 reads nothing and moves nothing'),
    ($$ 'orders', 3, 0 $$, '1: 3 003 []', 'max_count 0 at an event names it'),
    ($$ 'orders', 0, 0 $$, '1: 0 - []', 'max_count 0 from the beginning'),
    ($$ 'orders', 0, NULL $$, '1: 9 009 [1, 2, 3, 5, 6, 7, 8, 9]', 'max_count NULL is the default'),
    ($$ 'orders', 0, -1 $$, '22023: max_count must not be negative, but is -1', 'a negative max_count is refused'),
    ($$ 'orders', types => '{Rare}' $$, '1: 9 009 [2]', 'a filter: the checkpoint is beyond the last event that it lets through'),
    ($$ 'orders', 0, 1, types => '{Rare}' $$, '1: 2 002 [2]', 'a filter and max_count: the checkpoint is the last event returned'),
    ($$ 'orders', 2, types => '{Rare}' $$, '1: 9 009 []', 'a filter that lets nothing through moves on to the end'),
    ($$ 'orders', types => '{None}' $$, '1: 9 009 []', 'from the beginning, too'),
    ($$ 'orders', types => '{}' $$, '1: 9 009 []', 'also the empty filter'),
    ($$ 'orders', 9, types => '{None}' $$, '1: 9 009 []', 'and stays there'),
    ($$ 'orders', categories => '{even}' $$, '1: 9 009 [2, 6, 8]', 'categories'),
    ($$ 'orders', 2, 1, categories => '{even}' $$, '1: 6 006 [6]', 'categories and max_count'),
    ($$ 'orders', streams => '{odd-1,even-2}' $$, '1: 9 009 [1, 2, 7, 8]', 'streams'),
    ($$ 'orders', correlation_id => 'late' $$, '1: 9 009 [7, 8, 9]', 'a correlation'),
    ($$ 'orders', 0, 2, correlation_id => 'late', categories => '{odd}' $$, '1: 9 009 [7, 9]', 'a correlation and a category'),
    ($$ 'orders', 3, 2, correlation_id => 'none' $$, '1: 9 009 []', 'a correlation that is not there'),
    ($$ 'orders', 3, 2, after_event_id => pg_temp.id(3) $$, '1: 6 006 [5, 6]', 'after_event_id: the event at after'),
    ($$ 'orders', 4, 2, after_event_id => pg_temp.id(3) $$, '1: 6 006 [5, 6]', 'after_event_id: the newest event before a gap'),
    ($$ 'orders', 10, after_event_id => pg_temp.id(9) $$, '1: 10 009 []', 'after_event_id: kept where the checkpoint does not move'),
    ($$ 'orders', 9, after_event_id => pg_temp.id(9) $$, '1: 9 009 []', 'after_event_id: the last event'),
    ($$ 'orders', 3, after_event_id => pg_temp.id(2) $$, 'SE009: the checkpoint at position 3 is not of this event table''s history',
        'after_event_id: another event'),
    ($$ 'orders', 10, after_event_id => pg_temp.id(10) $$, 'SE009: the checkpoint at position 10 is not of this event table''s history',
        'after_event_id: an event that was rolled back'),
    ($$ 'orders', types => '{NULL}' $$, '22004: types[1] must not be null', 'a type that is NULL is refused')
  ) AS c(arguments, expected, description);

-- The event in the batch is the event.
SELECT is((SELECT events -> 0 FROM event_store.read_batch('orders', 6, 1)), to_jsonb(o),
    'an event in a batch has all columns of the table, as to_jsonb() writes them')
  FROM orders o WHERE position = 7;
SELECT is((SELECT array_agg(k ORDER BY k) FROM event_store.read_batch('orders', 6, 1), jsonb_object_keys(events -> 0) AS k),
          '{causation_id,correlation_id,data,event_id,metadata,occurred_at,position,recorded_at,schema_version,stream,type,version}'::text[],
              'no more and no fewer');
SELECT event_store.append('orders', 'full-1', 'T', '{"a": {"b": [1, "x", null]}}', metadata => '"text"', causation_id => 'c2',
    occurred_at => '2001-02-03 04:05:06.789+00', schema_version => 3) \g /dev/null
SELECT event_store.append_batch('orders', 'full-1', '{T,T,T,T}', '{"null",true,"[]","\"s\""}',
    occurred_at => '{infinity,-infinity,NULL,0044-03-15 BC}') \g /dev/null
SELECT is((SELECT events FROM event_store.read_batch('orders', 9)), (SELECT jsonb_agg(to_jsonb(o) ORDER BY position) FROM orders o
    WHERE stream = 'full-1'),
          'nested data, scalars, JSON null and times far away are as to_jsonb() writes them');
SELECT results_eq($$ SELECT e.version, e.data FROM event_store.read_batch('orders', 9) b, jsonb_populate_recordset(NULL::event_store.event, b.events) e WHERE e.data IS NOT NULL $$,
                  $$ SELECT version, data FROM orders WHERE stream = 'full-1' AND data <> 'null' ORDER BY version $$,
                      'jsonb_populate_recordset() makes events of a batch again (but for data that is JSON null)');

-- The consumer's loop, with and without a filter, reaches every event once.
SELECT event_store.create_event_table('many') \g /dev/null
INSERT INTO many (stream, type, data) SELECT 'm-' || i % 7, CASE WHEN i % 100 = 0 THEN 'Rare' ELSE 'T' END, to_jsonb(i) FROM generate_series(1,
    1005) AS i;
CREATE FUNCTION pg_temp.loop(size bigint, only_types text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    b      record;
    place  bigint := 0;
    id     uuid;
    seen   bigint[] := '{}';
    rounds int := 0;
BEGIN
    LOOP
        SELECT * INTO b FROM event_store.read_batch('many', place, size, types => only_types, after_event_id => id);
        EXIT WHEN b.checkpoint = place;
        rounds := rounds + 1;
        seen := seen || ARRAY(SELECT (e ->> 'data')::bigint FROM jsonb_array_elements(b.events) WITH ORDINALITY AS x(e, o) ORDER BY o);
        place := b.checkpoint;
        id := b.checkpoint_event_id;
    END LOOP;
    RETURN format('%s rounds to %s, %s events, sum %s, in order %s', rounds, place, cardinality(seen), (SELECT sum(s) FROM unnest(seen) s), seen = (SELECT array_agg(s ORDER BY s) FROM unnest(seen) s));
END $$;
SELECT is(pg_temp.loop(100, NULL), '11 rounds to 1005, 1005 events, sum 505515, in order t', 'batches of 100');
SELECT is(pg_temp.loop(NULL, NULL), '2 rounds to 1005, 1005 events, sum 505515, in order t', 'batches of the default size, a thousand');
SELECT is(pg_temp.loop(3, '{Rare}'), '4 rounds to 1005, 10 events, sum 5500, in order t', 'batches of 3 of a rare type');
SELECT is(pg_temp.loop(5, '{None}'), '1 rounds to 1005, 0 events, sum , in order ', 'a type that is not there: once to the end');

-- In flight: the checkpoint stays below, and where it was.
BEGIN;
SELECT event_store.append('many', 'm-1', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_feed_batches';
SELECT event_store.append('many', 'm-2', 'T', '{}', event_id => pg_temp.id(777)) \g /dev/null
SELECT is(pg_temp.batch($$ 'many', 1004 $$), format('1: 1005 %s [1005]', (SELECT right(event_id::text, 3) FROM many WHERE position = 1005)),
    'an append in flight holds the checkpoint');
SELECT is(pg_temp.batch($$ 'many', 1007 $$), '1: 1007 777 []', 'a checkpoint above a mark that is lower now stays, with its event');
SELECT is(pg_temp.batch($$ 'many', 1007, after_event_id => pg_temp.id(777) $$), '1: 1007 777 []', 'also with after_event_id');
ROLLBACK PREPARED 'es_feed_batches';
SELECT is(pg_temp.batch($$ 'many', 1005 $$), '1: 1007 777 [1007]', 'after the rollback the feed goes on, over the gap');

-- Large events: a batch ends at some size; the loop still gets all.
SELECT event_store.create_event_table('large') \g /dev/null
SELECT event_store.append('large', 'l-' || i, 'T', to_jsonb(repeat('x', 4000000))) FROM generate_series(1, 6) AS i \g /dev/null
SELECT is((SELECT format('%s %s', checkpoint, jsonb_array_length(events)) FROM event_store.read_batch('large')), '4 4',
    'a batch ends before the event that would make it more than 16 MB of data');
SELECT is((SELECT format('%s %s', checkpoint, jsonb_array_length(events)) FROM event_store.read_batch('large', 5)), '6 1',
    'and the next one goes on');

SELECT * FROM finish();
