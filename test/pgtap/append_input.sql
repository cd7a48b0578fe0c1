-- Bad input to the appending functions gets a clear error, odd but good input
-- is stored as it is; and nothing is half done.
SET client_min_messages = warning;
SELECT plan(161);

\ir include/error_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'there-1', 'T', '{}') \g /dev/null

-- Streams and types, in each function: %1$L is the stream, %2$L the type.
CREATE TEMP TABLE ways (way text, command text);
INSERT INTO ways VALUES
    ('append', $$ SELECT event_store.append('orders', %1$L, %2$L, '{}') $$),
    ('append_batch', $$ SELECT event_store.append_batch('orders', %1$L, ARRAY['T', %2$L], '{1,2}') $$),
    ('append_json', $$ SELECT event_store.append_json('orders', %1$L, jsonb_build_array('{"type": "T", "data": 1}'::jsonb,
                           jsonb_build_object('type', %2$L::text, 'data', 2))) $$),
    ('append_streams', $$ SELECT event_store.append_streams('orders', jsonb_build_array(jsonb_build_object('stream', %1$L::text, 'events',
                           jsonb_build_array(jsonb_build_object('type', %2$L::text, 'data', 2))))) $$),
    ('INSERT', $$ INSERT INTO orders (stream, type, data) VALUES (%1$L, 'T', '{}'), (%1$L, %2$L, '{}') $$);
SELECT throws_ok(format(command, stream, type), state,
                 CASE WHEN way = 'append_batch' AND type IS NULL THEN 'types[2] must not be null' ELSE message END,
                 format('%s: %s', way, description))
  FROM ways,
       (VALUES (NULL, 'T', '22004', 'stream must not be null', 'a stream that is NULL'),
               ('', 'T', '22023', 'stream must not be empty', 'an empty stream name'),
               (repeat('s', 513), 'T', '22023', 'stream is too long: 513 bytes', 'a stream name of 513 bytes'),
               (repeat('ä', 256) || 's', 'T', '22023', 'stream is too long: 513 bytes', 'a stream name of 257 characters in 513 bytes'),
               ('a-1', NULL, '22004', 'type must not be null', 'a type that is NULL'),
               ('a-1', '', '22023', 'type must not be empty', 'an empty type'),
               ('a-1', repeat('t', 256), '22023', 'type is too long: 256 bytes', 'a type of 256 bytes'),
               ('a-1', repeat('€', 85) || 't', '22023', 'type is too long: 256 bytes', 'a type of 86 characters in 256 bytes'))
       AS c(stream, type, state, message, description);
SELECT is(pg_temp.error_of(format($$ SELECT event_store.append('orders', %L, 'T', '{}') $$, repeat('s', 600))),
          E'22023\nstream is too long: 600 bytes\nAt most 512 bytes are allowed.', 'the detail says how long a stream name may be');
SELECT is(count(*), 1::bigint, 'none of these has left a row') FROM orders;

-- At the limit, and odd names.
SELECT lives_ok(format(command, stream, type), format('%s: %s', way, description))
  FROM ways,
       (VALUES (repeat('s', 512), repeat('t', 255), 'a stream of 512 bytes and a type of 255'),
               (repeat('ä', 256), repeat('€', 85), 'a stream of 256 characters in 512 bytes and a type of 85 in 255')) AS c(stream, type,
                   description);
CREATE TEMP TABLE odd (stream text);
INSERT INTO odd VALUES ('o''quoted'), ('"double"'), (E'back\\slash'), (E'line\nfeed'), (E'tab\t'), (' space '), ('-'), ('-dash'), ('ünï-€-𝄞'),
    ('semi;--colon'), ('per%cent_'), ('$1'), ('{"json": 1}'), ('NULL'), ('a.b');
SELECT is((event_store.append('orders', stream, stream, to_jsonb(stream), 0, metadata => to_jsonb(stream),
    correlation_id => stream)).last_version,
          1::bigint, 'a stream and type named ' || quote_ident(stream))
  FROM odd WHERE stream !~ '\n';
SELECT event_store.append('orders', stream, stream, to_jsonb(stream), 0, metadata => to_jsonb(stream), correlation_id => stream)
  FROM odd WHERE stream ~ '\n' \g /dev/null
SELECT is_empty($$ SELECT o.stream FROM odd o LEFT JOIN LATERAL event_store.read_stream('orders', o.stream) e ON true
                    WHERE (e.stream, e.type, e.correlation_id, e.data #>> '{}', e.metadata #>> '{}')
                          IS DISTINCT FROM (o.stream COLLATE "C", o.stream COLLATE "C", o.stream, o.stream, o.stream) $$,
                'odd names, a line feed among them, come back as they were');
SELECT alike(pg_temp.error_of(format($$ SELECT event_store.append('orders', %L, 'T', '{}', 5) $$, E'o''"\n')),
             E'SE001\nstream "o''"\n" is at version 0, not at the expected 5%', 'an error shows an odd name as it is');

-- What else may not be NULL.
SELECT throws_ok(command, '22004', message, description)
  FROM (VALUES
    ($$ SELECT event_store.append(NULL, 'a-1', 'T', '{}') $$, 'event_table must not be null', 'append: a table that is NULL'),
    ($$ SELECT event_store.append_batch(NULL, 'a-1', '{T}', '{1}') $$, 'event_table must not be null', 'append_batch: a table that is NULL'),
    ($$ SELECT event_store.append_json(NULL, 'a-1', '[{"type":"T","data":1}]') $$, 'event_table must not be null',
        'append_json: a table that is NULL'),
    ($$ SELECT event_store.append_streams(NULL, '[]') $$, 'event_table must not be null', 'append_streams: a table that is NULL'),
    ($$ SELECT event_store.append('orders', 'a-1', 'T', NULL) $$, 'data must not be null', 'append: data that is NULL'),
    ($$ SELECT event_store.append('orders', 'a-1', 'T', '{}', schema_version => NULL) $$, 'schema_version must not be null',
        'append: schema_version that is NULL'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', NULL, '{1}') $$, 'types must not be null', 'append_batch: types that are NULL'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{T}', NULL) $$, 'data must not be null', 'append_batch: data that is NULL'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,NULL}') $$, 'data[2] must not be null',
        'append_batch: an element of data that is NULL'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}', schema_versions => '{NULL,1}') $$,
        'schema_versions[1] must not be null',
     'append_batch: a schema version that is NULL'),
    ($$ SELECT event_store.append_json('orders', 'a-1', NULL) $$, 'events must not be null', 'append_json: events that are NULL'),
    ($$ SELECT event_store.append_json('orders', 'a-1', '[{"type": "T"}]') $$, 'data must not be null', 'append_json: no data'),
    ($$ SELECT event_store.append_json('orders', 'a-1', '[{"type": "T", "data": null}]') $$, 'data must not be null', 'append_json: data null'),
    ($$ SELECT event_store.append_json('orders', 'a-1', '[{"data": 1}]') $$, 'type must not be null', 'append_json: no type'),
    ($$ SELECT event_store.append_streams('orders', NULL) $$, 'appends must not be null', 'append_streams: appends that are NULL'),
    ($$ SELECT event_store.append_streams('orders', '[{"events": [{"type":"T","data":1}]}]') $$, 'stream must not be null',
        'append_streams: no stream'),
    ($$ SELECT event_store.append_streams('orders', '[{"stream": "a-1"}]') $$, 'events must not be null', 'append_streams: no events'),
    ($$ SELECT event_store.append_streams('orders', '[{"stream": "a-1", "events": [{"type":"T","data":1}]}]', '[{"stream": "b-1"}]') $$,
     'expected_version must not be null', 'append_streams: a check without expected_version'),
    ($$ SELECT event_store.append_streams('orders', '[{"stream": "a-1", "events": [{"type":"T","data":1}]}]', '[{"stream": "b-1", "expected_version": null}]') $$,
     'expected_version must not be null', 'append_streams: a check with expected_version null')
  ) AS c(command, message, description);
SELECT throws_ok($$ INSERT INTO orders (stream, type, data) VALUES ('a-1', 'T', NULL) $$, '23502', NULL, 'INSERT: data that is NULL');

-- Arrays.
SELECT throws_ok(command, state, message, description)
  FROM (VALUES
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A,B}', '{1}') $$, '2202E',
     'the array data has 1 elements, but types has 2', 'append_batch: less data than types'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A}', '{1,2}') $$, '2202E',
     'the array data has 2 elements, but types has 1', 'append_batch: more data than types'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A,B}', '{1,2}', metadata => '{1}') $$, '2202E',
     'the array metadata has 1 elements, but types has 2', 'append_batch: less metadata than types'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A,B}', '{1,2}', occurred_at => '{}') $$, '2202E',
     'the array occurred_at has 0 elements, but types has 2', 'append_batch: an empty occurred_at'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A,B}', '{1,2}', schema_versions => '{1,1,1}') $$, '2202E',
     'the array schema_versions has 3 elements, but types has 2', 'append_batch: more schema_versions than types'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{{A,B}}', '{1,2}') $$, '2202E',
     'types must be a one-dimensional array', 'append_batch: types of two dimensions'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{A,B}', '{{1},{2}}') $$, '2202E',
     'data must be a one-dimensional array', 'append_batch: data of two dimensions'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{}', '{}') $$, '22023',
     'there are no events to append', 'append_batch: no events'),
    ($$ SELECT event_store.append_json('orders', 'a-1', '[]') $$, '22023',
     'there are no events to append', 'append_json: no events'),
    ($$ SELECT event_store.append_streams('orders', '[]') $$, '22023',
     'there are no events to append', 'append_streams: no streams'),
    ($$ SELECT event_store.append_streams('orders', '[]', '[{"stream": "a-1", "expected_version": 0}]') $$, '22023',
     'there are no events to append', 'append_streams: checks only'),
    ($$ SELECT event_store.append_streams('orders', '[{"stream": "a-1", "events": []}]') $$, '22023',
     'there are no events to append', 'append_streams: a stream without events'),
    ($$ SELECT event_store.append('orders', 'a-1', 'T', '{}', schema_version => 0) $$, '22023',
     'schema_version must be at least 1, not 0', 'append: schema_version 0'),
    ($$ SELECT event_store.append_batch('orders', 'a-1', '{T,T}', '{1,2}', schema_versions => '{1,-7}') $$, '22023',
     'schema_version must be at least 1, not -7', 'append_batch: a negative schema version'),
    ($$ SELECT event_store.append_json('orders', 'a-1', '[{"type": "T", "data": 1, "schema_version": 0}]') $$, '22023',
     'schema_version must be at least 1, not 0', 'append_json: schema_version 0'),
    ($$ INSERT INTO orders (stream, type, data, schema_version) VALUES ('a-1', 'T', '{}', 0) $$, '22023',
     'schema_version must be at least 1, not 0', 'INSERT: schema_version 0')
  ) AS c(command, state, message, description);
SELECT lives_ok($$ SELECT event_store.append_batch('orders', 'array-1', '[5:6]={A,B}', '[-1:0]={1,2}', occurred_at => '{NULL,now}', metadata => '{NULL,null}') $$,
                'append_batch: arrays with other lower bounds, and NULL where NULL is allowed');
SELECT is(array_agg(data ORDER BY version), '{1,2}'::jsonb[], 'and element i of each belongs to event i') FROM orders WHERE stream = 'array-1';

-- JSON that is not what it should be.
SELECT throws_ok(format($$ SELECT event_store.append_json('orders', 'a-1', %L) $$, events), state, message, 'append_json: ' || description)
  FROM (VALUES
    ('{"type": "T", "data": 1}', '22023', 'events must be a JSON array, not an object', 'an object where an array is wanted'),
    ('"[{\"type\": \"T\", \"data\": 1}]"', '22023', 'events must be a JSON array, not a string', 'a string that contains JSON'),
    ('null', '22023', 'events must be a JSON array, not null', 'JSON null'),
    ('1', '22023', 'events must be a JSON array, not a number', 'a number'),
    ('true', '22023', 'events must be a JSON array, not a boolean', 'a boolean'),
    ('["T"]', '22023', 'each element of events must be a JSON object, not a string', 'an array of strings'),
    ('[[{"type": "T", "data": 1}]]', '22023', 'each element of events must be a JSON object, not an array', 'an array of arrays'),
    ('[null]', '22023', 'each element of events must be a JSON object, not null', 'an array of null'),
    ('[{"type": "T", "data": 1, "eventId": 1}]', '22023', 'unknown key "eventId"', 'an unknown key'),
    ('[{"Type": "T", "data": 1}]', '22023', 'unknown key "Type"', 'a key in another case'),
    ('[{"type": "T", "data": 1, "": 1}]', '22023', 'unknown key ""', 'an empty key'),
    ('[{"type": "T", "data": 1, "stream": "a"}]', '22023', 'unknown key "stream"', 'a stream in the event'),
    ('[{"type": "T", "data": 1, "position": 1}]', '22023', 'unknown key "position"', 'a position'),
    ('[{"type": "T", "data": 1, "version": 1}]', '22023', 'unknown key "version"', 'a version'),
    ('[{"type": "T", "data": 1, "recorded_at": "2001-01-01"}]', '22023', 'unknown key "recorded_at"', 'a recorded_at'),
    ('[{"type": 1, "data": 1}]', '22023', 'type must be a JSON string, not a number', 'a number for type'),
    ('[{"type": ["T"], "data": 1}]', '22023', 'type must be a JSON string, not an array', 'an array for type'),
    ('[{"type": "T", "data": 1, "event_id": 7}]', '22023', 'event_id must be a JSON string, not a number', 'a number for event_id'),
    ('[{"type": "T", "data": 1, "event_id": "7"}]', '22P02', 'invalid input syntax for type uuid: "7"', 'an event_id that is no UUID'),
    ('[{"type": "T", "data": 1, "correlation_id": {}}]', '22023', 'correlation_id must be a JSON string, not an object',
        'an object for correlation_id'),
    ('[{"type": "T", "data": 1, "causation_id": true}]', '22023', 'causation_id must be a JSON string, not a boolean',
        'a boolean for causation_id'),
    ('[{"type": "T", "data": 1, "occurred_at": 1700000000}]', '22023', 'occurred_at must be a JSON string, not a number',
        'a number for occurred_at'),
    ('[{"type": "T", "data": 1, "occurred_at": "soon"}]', '22007', 'invalid input syntax for type timestamp with time zone: "soon"',
        'an occurred_at that is no time'),
    ('[{"type": "T", "data": 1, "schema_version": "2"}]', '22023', 'schema_version must be a JSON number, not a string',
        'a string for schema_version'),
    ('[{"type": "T", "data": 1, "schema_version": 1.5}]', '22P02', 'invalid input syntax for type integer: "1.5"',
        'a fraction for schema_version'),
    ('[{"type": "T", "data": 1, "schema_version": 3000000000}]', '22003', 'value "3000000000" is out of range for type integer',
        'a schema_version out of range')
  ) AS c(events, state, message, description);
SELECT is(pg_temp.error_of($$ SELECT event_store.append_json('orders', 'a-1', '"[]"') $$),
          E'22023\nevents must be a JSON array, not a string\nA string that contains JSON is not JSON: some drivers encode a value once more that is '
          'encoded already. Pass the array itself, or its text as a parameter of type text cast to jsonb.',
          'the hint for a string tells of drivers that encode twice');
SELECT is(pg_temp.error_of($$ SELECT event_store.append_json('orders', 'a-1', '{}') $$),
          E'22023\nevents must be a JSON array, not an object\nWrap a single object in an array.', 'the hint for an object says to wrap it');
SELECT is(pg_temp.error_of($$ SELECT event_store.append_json('orders', 'a-1', '[{"type": "T", "data": 1, "meta": 2}]') $$),
          E'22023\nunknown key "meta"\nThe keys are type, data, event_id, metadata, correlation_id, causation_id, occurred_at and schema_version.\n'
          'What belongs to the event itself goes into data, its context into metadata.', 'the error of an unknown key says which there are');
SELECT throws_ok(format($$ SELECT event_store.append_streams('orders', %L, %L) $$, appends, checks), state, message,
    'append_streams: ' || description)
  FROM (VALUES
    ('{"stream": "a-1"}', NULL, '22023', 'appends must be a JSON array, not an object', 'an object for appends'),
    ('"[]"', NULL, '22023', 'appends must be a JSON array, not a string', 'a string for appends'),
    ('["a-1"]', NULL, '22023', 'each element of appends must be a JSON object, not a string', 'strings in appends'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1}], "metadata": 1}]', NULL, '22023', 'unknown key "metadata"',
        'an unknown key in appends'),
    ('[{"stream": 1, "events": [{"type": "T", "data": 1}]}]', NULL, '22023', 'stream must be a JSON string, not a number', 'a number for stream'),
    ('[{"stream": "a-1", "events": {"type": "T", "data": 1}}]', NULL, '22023', 'events must be a JSON array, not an object',
        'an object for events'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1, "x": 1}]}]', NULL, '22023', 'unknown key "x"', 'an unknown key in an event'),
    ('[{"stream": "a-1", "expected_version": "0", "events": [{"type": "T", "data": 1}]}]', NULL, '22023',
     'expected_version must be a JSON number, not a string', 'a string for expected_version'),
    ('[{"stream": "a-1", "expected_version": 0.5, "events": [{"type": "T", "data": 1}]}]', NULL, '22P02',
     'invalid input syntax for type bigint: "0.5"', 'a fraction for expected_version'),
    ('[{"stream": "a-1", "expected_version": 1e30, "events": [{"type": "T", "data": 1}]}]', NULL, '22003',
     'value "1000000000000000000000000000000" is out of range for type bigint', 'an expected_version out of range'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1}]}]', '{}', '22023', 'checks must be a JSON array, not an object',
        'an object for checks'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1}]}]', '[{"stream": "b-1", "expected_version": 0, "events": []}]', '22023',
     'unknown key "events"', 'events in checks'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1}]}]', '[{"stream": "", "expected_version": 0}]', '22023',
     'stream must not be empty', 'an empty stream in checks'),
    ('[{"stream": "a-1", "events": [{"type": "T", "data": 1}]}]', '[{"stream": "b-1", "expected_version": -1}]', '22023',
     'invalid expected_version -1', 'expected_version -1 in checks')
  ) AS c(appends, checks, state, message, description);
SELECT is_empty($$ SELECT * FROM orders WHERE stream IN ('a-1', 'b-1') $$, 'none of these has left a row');

-- JSON scalars are data too.
SELECT event_store.append_batch('orders', 'scalar-1', '{A,B,C,D,E}', '{"\"text\"",7,true,"null","[]"}') \g /dev/null
SELECT is(array_agg(data ORDER BY version), '{"\"text\"",7,true,"null","[]"}'::jsonb[], 'scalars, JSON null and arrays are data')
  FROM event_store.read_stream('orders', 'scalar-1');

-- Large data.
SELECT event_store.append('orders', 'large-1', 'T', jsonb_build_object('x', (SELECT string_agg(md5(i::text), '') FROM generate_series(1,
    160000) i)),
                          metadata => to_jsonb(repeat('m', 1000000))) \g /dev/null
SELECT is((SELECT md5(data ->> 'x') || length(data ->> 'x') || length(metadata #>> '{}') FROM event_store.read_stream('orders', 'large-1')),
          (SELECT md5(string_agg(md5(i::text), '')) FROM generate_series(1, 160000) i) || '5120000' || '1000000',
          '5 MB of data and 1 MB of metadata come back as they were');

-- A transaction that may not write.
BEGIN READ ONLY;
SELECT throws_ok(command, '25006', NULL, 'in a read-only transaction: ' || way)
  FROM (VALUES ('append', $$ SELECT event_store.append('orders', 'r-1', 'T', '{}') $$),
               ('append_batch', $$ SELECT event_store.append_batch('orders', 'r-1', '{T}', '{1}') $$),
               ('append_json', $$ SELECT event_store.append_json('orders', 'r-1', '[{"type": "T", "data": 1}]') $$),
               ('append_streams', $$ SELECT event_store.append_streams('orders', '[{"stream": "r-1", "events": [{"type": "T", "data": 1}]}]') $$),
               ('INSERT', $$ INSERT INTO orders (stream, type, data) VALUES ('r-1', 'T', '{}') $$),
               ('save_snapshot', $$ SELECT event_store.save_snapshot('orders', 'there-1', 1, '{}') $$),
               ('create_event_table', $$ SELECT event_store.create_event_table('nothing') $$),
               ('drop_event_table', $$ SELECT event_store.drop_event_table('orders') $$)) AS c(way, command);
COMMIT;
SELECT is(event_store.stream_version('orders', 'r-1'), 0::bigint, 'a read-only transaction has written nothing');

SELECT * FROM finish();
