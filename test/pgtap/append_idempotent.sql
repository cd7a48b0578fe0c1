-- Idempotent appends: the same event ids again return the first result and
-- write nothing; anything between old and new is SE003.
SET client_min_messages = warning;
SELECT plan(94);

CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) q', query) INTO result;
    RETURN result;
END $$;

-- An id to write short.
CREATE FUNCTION pg_temp.id(n text) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT ('00000000-0000-0000-0000-' || lpad(n, 12, '0'))::uuid $$;

-- Events of those ids: [{"event_id": …, "type": "T", "data": {"n": id}}, …]
CREATE FUNCTION pg_temp.events(VARIADIC ids text[]) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('event_id', pg_temp.id(i), 'type', 'T', 'data', jsonb_build_object('n', i)))
      FROM unnest(ids) AS i $$;

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null

-- First and second time, by each function, with every kind of expected version.
-- The stream is at version 2 before, the events are 3 and 4 (append: only 3).
CREATE FUNCTION pg_temp.append(way text, name text, expected bigint, one text, two text)
    RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    CASE way
        WHEN 'append' THEN
            SELECT a::text INTO result FROM event_store.append('orders', name, 'T', jsonb_build_object('n', one), expected, pg_temp.id(one)) a;
        WHEN 'append_batch' THEN
            SELECT a::text INTO result FROM event_store.append_batch('orders', name, '{T,T}',
                ARRAY[jsonb_build_object('n', one), jsonb_build_object('n', two)], expected, ARRAY[pg_temp.id(one), pg_temp.id(two)]) a;
        WHEN 'append_json' THEN
            SELECT a::text INTO result FROM event_store.append_json('orders', name, pg_temp.events(one, two), expected) a;
        WHEN 'append_streams' THEN
            SELECT a::text INTO result FROM event_store.append_streams('orders', jsonb_build_array(
                jsonb_build_object('stream', name, 'expected_version', expected, 'events', pg_temp.events(one, two)))) a;
    END CASE;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION pg_temp.state() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT concat(count(*), ' ', max(position), ' ', md5(string_agg(o::text, ',' ORDER BY position)),
                  ' ', (SELECT last_value FROM orders_position_seq)) FROM orders o $$;
CREATE FUNCTION pg_temp.twice(way text, name text, one text, two text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    original text;
    again    text;
    before   text;
    expected bigint;
BEGIN
    PERFORM event_store.append_batch('orders', name, '{A,B}', '{1,2}');
    original := pg_temp.append(way, name, 2, one, two);
    RETURN NEXT matches(original, ',f\)$', way || ' writes the events the first time');
    before := pg_temp.state();
    FOREACH expected IN ARRAY ARRAY[NULL, 0, 1, 2, 3, 4, 99, event_store.stream_exists()] LOOP
        again := pg_temp.append(way, name, expected, one, two);
        RETURN NEXT is(again, left(original, -2) || 't)',
            format('%s again with expected_version %s returns the first result, and duplicate', way, coalesce(expected::text, 'NULL')));
    END LOOP;
    RETURN NEXT is(pg_temp.state(), before, way || ' again wrote nothing and drew no position');
    PERFORM event_store.append('orders', name, 'Later', '{}');
    RETURN NEXT is(pg_temp.append(way, name, 2, one, two), left(original, -2) || 't)',
        way || ' again, after later events in the stream, still returns the first result');
    RETURN NEXT is(pg_temp.append(way, name, -1, one, two),
        '22023: invalid expected_version -1', way || ' again with a bad expected_version is refused all the same');
END $$;
SELECT t FROM (VALUES ('append', 'a-1', '11', '12'), ('append_batch', 'a-2', '21', '22'),
                      ('append_json', 'a-3', '31', '32'), ('append_streams', 'a-4', '41', '42')) AS c(way, name, one, two),
       pg_temp.twice(way, name, one, two) AS t;
SELECT is(pg_temp.append('append_json', 'a-2', 0, '21', '22'), pg_temp.append('append_batch', 'a-2', 0, '21', '22'),
          'what one function has written another one recognises');

-- What is not the same append.  Stored: stream b-1, events 51, 52, 53.
SELECT event_store.append_json('orders', 'b-1', pg_temp.events('51', '52', '53')) \g /dev/null
SELECT event_store.append('orders', 'b-1', 'T', '{}', event_id => pg_temp.id('5f')) \g /dev/null
SELECT event_store.append('orders', 'b-2', 'T', '{"n": "2"}', event_id => pg_temp.id('61')) \g /dev/null
CREATE TEMP TABLE before AS SELECT pg_temp.state() AS state;
SELECT throws_ok(command, 'SE003', format('event id %s is already in use', pg_temp.id(id)), description)
  FROM (VALUES
    ($$ SELECT event_store.append('orders', 'b-1', 'T', '{"n": "changed"}', event_id => pg_temp.id('51')) $$,
     '51', 'other data'),
    ($$ SELECT event_store.append('orders', 'b-1', 'Other', '{"n": "51"}', event_id => pg_temp.id('51')) $$,
     '51', 'another type'),
    ($$ SELECT event_store.append('orders', 'b-1', 't', '{"n": "51"}', event_id => pg_temp.id('51')) $$,
     '51', 'a type that differs in case'),
    ($$ SELECT event_store.append('orders', 'b-9', 'T', '{"n": "51"}', event_id => pg_temp.id('51')) $$,
     '51', 'another stream'),
    ($$ SELECT event_store.append('orders', 'b-', 'T', '{"n": "51"}', event_id => pg_temp.id('51')) $$,
     '51', 'a stream whose name is a prefix of the right one'),
    ($$ SELECT event_store.append('orders', 'b-9', 'T', '{"n": "51"}', 0, event_id => pg_temp.id('51')) $$,
     '51', 'another stream, with a right expected version'),
    ($$ SELECT event_store.append('orders', 'b-9', 'T', '{"n": "51"}', 7, event_id => pg_temp.id('51')) $$,
     '51', 'another stream, with a wrong expected version (the id is looked at first)'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('52', '51')) $$,
     '51', 'the same events in another order'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('51', '53')) $$,
     '53', 'some events of the first append, not consecutive'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('53', '54')) $$,
     '53', 'old events followed by a new one'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('50', '51')) $$,
     '51', 'a new event followed by an old one'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('51') || pg_temp.events('61')) $$,
     '61', 'old events of two streams'),
    ($$ SELECT event_store.append_batch('orders', 'b-3', '{T,T}', '{1,1}', NULL, ARRAY[pg_temp.id('71'), pg_temp.id('71')]) $$,
     '71', 'one new id twice in a batch'),
    ($$ SELECT event_store.append_json('orders', 'b-3', pg_temp.events('71', '72', '71')) $$,
     '71', 'one new id twice in append_json'),
    ($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('51', '51')) $$,
     '51', 'one stored id twice in append_json'),
    ($$ SELECT event_store.append_streams('orders', jsonb_build_array(
            jsonb_build_object('stream', 'b-3', 'events', pg_temp.events('71', '72')),
            jsonb_build_object('stream', 'b-4', 'events', pg_temp.events('73', '72')))) $$,
     '72', 'one new id in two streams of append_streams'),
    ($$ SELECT event_store.append_streams('orders', jsonb_build_array(
            jsonb_build_object('stream', 'b-1', 'events', pg_temp.events('51', '52')),
            jsonb_build_object('stream', 'b-4', 'events', pg_temp.events('73')))) $$,
     '52', 'an old and a new stream in append_streams'),
    ($$ SELECT event_store.append_streams('orders', jsonb_build_array(
            jsonb_build_object('stream', 'b-2', 'events', pg_temp.events('51')),
            jsonb_build_object('stream', 'b-1', 'events', pg_temp.events('61')))) $$,
     '51', 'the old events of two streams, exchanged')
  ) AS c(command, id, description);
SELECT is(pg_temp.state(), state, 'none of these wrote anything, or drew a position') FROM before;

CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text; hint text; s text; t text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, s = SCHEMA_NAME, t = TABLE_NAME;
    RETURN format('%s %s.%s: %s / %s', SQLSTATE, s, t, detail, hint);
END $$;
SELECT is(pg_temp.error_of($$ SELECT event_store.append_json('orders', 'b-1', pg_temp.events('53', '54')) $$),
          format('SE003 public.orders: Some events of this call are stored already, but event %s is not. / An append is repeated with '
                 'the same ids, types and data, in the same order, to the same stream; a new event takes a new id.', pg_temp.id('54')),
          'the error names the table, the event that is missing, and what a repetition is');

-- A subset that is consecutive is a repetition too: same ids, types, data, order.
SELECT is(pg_temp.rows_of($$ SELECT first_version, last_version, duplicate FROM event_store.append_json('orders', 'b-1', pg_temp.events('52', '53')) $$),
          '(2,3,t)', 'consecutive events out of a longer append are recognised');
SELECT event_store.append_json('orders', 'b-6', pg_temp.events('65')) \g /dev/null
SELECT event_store.append_json('orders', 'b-6', pg_temp.events('66')) \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT first_version, last_version, duplicate FROM event_store.append_json('orders', 'b-6', pg_temp.events('65', '66')) $$),
          '(1,2,t)', 'two appends of one event each repeat as one of two');

-- Ids for some events of a call only.
SELECT throws_ok(command, '22023', 'event ids must be given for all events of a call or for none', description)
  FROM (VALUES
    ($$ SELECT event_store.append_json('orders', 'c-1', pg_temp.events('81') || '[{"type": "T", "data": {}}]') $$,
     'append_json with an id for the first event only'),
    ($$ SELECT event_store.append_json('orders', 'c-1', '[{"type": "T", "data": {}}]' || pg_temp.events('81')) $$,
     'append_json with an id for the second event only'),
    ($$ SELECT event_store.append_json('orders', 'c-1', pg_temp.events('81') || '[{"type": "T", "data": {}, "event_id": null}]') $$,
     'append_json with a null for an id'),
    ($$ SELECT event_store.append_streams('orders', jsonb_build_array(
            jsonb_build_object('stream', 'c-1', 'events', pg_temp.events('81')),
            jsonb_build_object('stream', 'c-2', 'events', '[{"type": "T", "data": {}}]'::jsonb))) $$,
     'append_streams with ids for one stream only')
  ) AS c(command, description);
SELECT throws_ok($$ SELECT event_store.append_batch('orders', 'c-1', '{T,T}', '{1,2}', NULL, ARRAY[pg_temp.id('81'), NULL]) $$,
                 '22004', 'event_ids[2] must not be null', 'append_batch with an id for the first event only');
SELECT throws_ok($$ SELECT event_store.append_batch('orders', 'c-1', '{T,T}', '{1,2}', NULL, ARRAY[pg_temp.id('81')]) $$,
                 '2202E', 'the array event_ids has 1 elements, but types has 2', 'append_batch with fewer ids than events');

-- append_streams as a whole.
PREPARE whole(bigint) AS SELECT * FROM event_store.append_streams('orders', jsonb_build_array(
    jsonb_build_object('stream', 'd-2', 'expected_version', $1, 'events', pg_temp.events('91', '92')),
    jsonb_build_object('stream', 'd-1', 'expected_version', $1, 'events', pg_temp.events('93'))),
    jsonb_build_array(jsonb_build_object('stream', 'd-3', 'expected_version', $1)));
CREATE TEMP TABLE first_time AS EXECUTE whole(0);
CREATE TEMP TABLE second_time AS EXECUTE whole(0);
CREATE TEMP TABLE third_time AS EXECUTE whole(77);
SELECT is(pg_temp.rows_of('SELECT stream, first_version, last_version, duplicate FROM first_time'), '(d-2,1,2,f) (d-1,1,1,f)',
          'append_streams writes two streams the first time');
UPDATE first_time SET duplicate = true;
SELECT results_eq('SELECT * FROM second_time', 'SELECT * FROM first_time',
                  'append_streams again returns the first result for every stream');
SELECT results_eq('SELECT * FROM third_time', 'SELECT * FROM first_time',
                  'also where expected versions and checks are wrong now');

-- In the same transaction, and in the same statement.
SELECT is(pg_temp.rows_of($$ SELECT a.first_version, a.duplicate FROM generate_series(1, 3) AS i,
                             LATERAL event_store.append('orders', 'e-1', 'T', '1', 0, pg_temp.id('e1'), to_jsonb(i)) a $$),
          '(1,f) (1,t) (1,t)', 'a repetition in the same statement is recognised');
BEGIN;
SELECT event_store.append('orders', 'e-2', 'T', '1', 0, pg_temp.id('e2')) \g /dev/null
ROLLBACK;
SELECT is((event_store.append('orders', 'e-2', 'T', '1', 0, pg_temp.id('e2'))).duplicate, false,
          'after a rollback the same id is written, for the first time');

-- Ids are per event table.
SELECT is((SELECT duplicate FROM event_store.append('others', 'b-9', 'Other', '{}', 0, pg_temp.id('51'))), false,
          'another event table knows nothing of the id');

-- "The same data" is equality of jsonb, not of text; context does not count.
SELECT event_store.append('orders', 'f-1', 'T', '{"b": 1, "a": [1.0, "x"]}', 0, pg_temp.id('f1'), '{"m": 1}', 'corr') \g /dev/null
SELECT is((SELECT duplicate FROM event_store.append('orders', 'f-1', 'T', data, 0, pg_temp.id('f1'), '{"m": 1}', 'corr')),
          true, 'the same data: ' || description)
  FROM (VALUES ('{"a": [1.0, "x"], "b": 1}'::jsonb, 'keys in another order'),
               ('{"b":1,"a":[1.0,"x"]}', 'other spaces'),
               ('{"b": 2, "b": 1, "a": [1.0, "x"]}', 'a key given twice, the last value counts'),
               ('{"b": 1.00, "a": [1, "x"]}', 'numbers of another scale')) AS c(data, description);
SELECT is((SELECT duplicate FROM event_store.append('orders', 'f-1', 'T', '{"b": 1, "a": [1.0, "x"]}', 0, pg_temp.id('f1'),
                                                    '{"m": 2}', 'other', 'other', now(), 9)),
          true, 'metadata, correlation, time and schema version are not compared');
SELECT throws_ok(format($$ SELECT event_store.append('orders', 'f-1', 'T', %L, 0, pg_temp.id('f1')) $$, data), 'SE003', NULL,
                 'not the same data: ' || description)
  FROM (VALUES ('{"b": 1, "a": ["x", 1.0]}', 'an array in another order'),
               ('{"b": "1", "a": [1.0, "x"]}', 'a string for a number'),
               ('{"b": 1, "a": [1.0, "x"], "c": null}', 'a key more'),
               ('{}', 'an empty object'),
               ('null', 'JSON null')) AS c(data, description);
SELECT event_store.append('orders', 'f-2', 'T', to_jsonb(repeat('x', 100000)), 0, pg_temp.id('f2')) \g /dev/null
SELECT is((SELECT duplicate FROM event_store.append('orders', 'f-2', 'T', to_jsonb(repeat('x', 100000)), 0, pg_temp.id('f2'))), true,
          'data that is stored out of line compares too');

SELECT * FROM finish();
