-- Handlers that fail, under each policy; parked events; and handlers that change
-- what they are a part of.
SET client_min_messages = warning;
SELECT plan(113);

\ir include/error_of.sql
\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE model (position bigint PRIMARY KEY, stream text, data jsonb);
CREATE FUNCTION fail(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO model SELECT event.position, event.stream, event.data;
    IF event.data ? 'sqlstate' AND NOT EXISTS (SELECT FROM fixed WHERE position = event.position) THEN
        RAISE EXCEPTION 'poison %', event.data ->> 'n' USING ERRCODE = event.data ->> 'sqlstate';
    END IF;
END $$;
CREATE TABLE fixed (position bigint);
CREATE FUNCTION pg_temp.run(name text) RETURNS text LANGUAGE sql AS $$ SELECT pg_temp.rows_of(format('SELECT * FROM event_store.run_projection(%L)', name)) $$;
CREATE FUNCTION pg_temp.append(stream text, sqlstate text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
$$ SELECT (event_store.append('orders', stream, 'Typed', jsonb_strip_nulls(jsonb_build_object('n', 1, 'sqlstate', sqlstate)))).last_position $$;
CREATE FUNCTION pg_temp.model() RETURNS text LANGUAGE sql AS $$ SELECT coalesce(string_agg(position::text, ' ' ORDER BY position), 'empty') FROM model $$;
CREATE FUNCTION pg_temp.parked(name text) RETURNS text LANGUAGE sql AS
$$ SELECT pg_temp.rows_of(format('SELECT position, stream, type, attempts, sqlstate, message FROM event_store.parked_events WHERE projection = %L ORDER BY 1', name)) $$;
CREATE FUNCTION pg_temp.context_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    EXECUTE query;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
    RETURN context;
END $$;

SELECT pg_temp.append('a-1'), pg_temp.append('a-2') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'Bad', '{"n": 7, "sqlstate": "P0001"}', event_id => '00000000-0000-0000-0000-000000000003', metadata => '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}') \g /dev/null
SELECT pg_temp.append('a-2'), pg_temp.append('a-1'), pg_temp.append('a-3') \g /dev/null

-- Stop.
SELECT event_store.create_projection('stop', 'orders', function => 'fail(event_store.event)', mode => 'manual') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('stop') $$),
    E'SE007\nprojection "stop" failed at position 3: poison 7\nEvent 00000000-0000-0000-0000-000000000003 of type "Bad" in stream "a-1"; SQLSTATE P0001.', 'stop: which event, and why');
SELECT matches(pg_temp.context_of($$ SELECT event_store.run_projection('stop') $$),
    'PL/pgSQL function (public\.)?fail\(.*\) line 5 at RAISE\n(.*\n)*event 00000000-0000-0000-0000-000000000003 at position 3 \(stream "a-1", type "Bad", trace 0af7651916cd43dd8448eb211c80319c\) in projection "stop"', 'the context has the handler''s, the event and its trace');
SELECT is(pg_temp.model(), 'empty', 'nothing is written');
SELECT is((SELECT position || ' ' || status FROM event_store.projections WHERE name = 'stop'), '0 ready', 'nor has the checkpoint moved');
INSERT INTO fixed VALUES (3);
SELECT is(pg_temp.run('stop'), '(6,1,0,6)', 'once it is put right it goes on');
SELECT is(pg_temp.model(), '1 2 3 4 5 6', 'all are there, once');
SELECT event_store.create_projection('set', 'orders', 'SELECT 1 / (position - 4) FROM events', mode => 'manual') \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('set') $$), '^SE007\nprojection "set" failed at position 4: division by zero\nEvent .* in stream "a-2"; SQLSTATE 22012\.$', 'in a statement the event is found, too');
-- The trace is named where the metadata has a valid one.
SELECT event_store.create_projection('trace', 'orders', 'SELECT 1 / 0 FROM events', mode => 'manual', types => '{Traced}') \g /dev/null
CREATE TEMP TABLE traces (n bigint, traceparent text, trace text);
INSERT INTO traces VALUES (7, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', '0af7651916cd43dd8448eb211c80319c'),
    (8, '00-00000000000000000000000000000000-b7ad6b7169203331-01', NULL), (9, '00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01', NULL),
    (10, 'ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', NULL), (11, '00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01', NULL),
    (12, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more', NULL), (13, '01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more', '0af7651916cd43dd8448eb211c80319c'),
    (14, '', NULL), (15, NULL, NULL), (16, E'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nforged', NULL);
SELECT event_store.append('orders', 'trace-1', 'Traced', '{}', metadata => jsonb_build_object('traceparent', traceparent)) FROM traces ORDER BY n \g /dev/null
CREATE FUNCTION pg_temp.trace_at(at bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_store.reset_projection('trace', at - 1);
    RETURN coalesce(substring(pg_temp.context_of($q$ SELECT event_store.run_projection('trace', 1) $q$) FROM 'at position ' || at || ' \(stream "trace-1", type "Traced"(?:, trace ([^)]*))?\) in'), 'none');
END $$;
SELECT is(pg_temp.trace_at(n), coalesce(trace, 'none'), 'trace of ' || coalesce(to_json(traceparent)::text, 'null')) FROM traces;
SELECT event_store.drop_projection('trace') \g /dev/null
TRUNCATE model, fixed;
SELECT event_store.drop_event_table('orders'), event_store.create_event_table('orders') \g /dev/null
SELECT pg_temp.append('a-1'), pg_temp.append('a-2') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'Bad', '{"n": 7, "sqlstate": "P0001"}', event_id => '00000000-0000-0000-0000-000000000003') \g /dev/null
SELECT pg_temp.append('a-2'), pg_temp.append('a-1'), pg_temp.append('a-3') \g /dev/null

-- Park.
SELECT event_store.create_projection('park', 'orders', function => 'fail(event_store.event)', mode => 'manual', on_error => 'park') \g /dev/null
SELECT is(pg_temp.run('park'), '(5,1,1,6)', 'park: the others are handled');
SELECT is(pg_temp.model(), '1 2 4 5 6', 'and what the failing one has written is not there');
SELECT is(pg_temp.parked('park'), '(3,a-1,Bad,1,P0001,"poison 7")', 'the view has it');
SELECT matches((SELECT context FROM event_store.parked_events), 'line 5 at RAISE(.*\n)*event 00000000-0000-0000-0000-000000000003 at position 3 ', 'with its context');
SELECT is(pg_temp.rows_of($$ SELECT parked, errors, position, status, events FROM event_store.projections WHERE name = 'park' $$), '(1,1,6,ready,5)', 'so has the view of projections');
SELECT is(pg_temp.error_of(format('SELECT event_store.%s(''park'', 4)', f)), E'42704\nprojection "park" has parked no event at position 4\nThey are in event_store.parked_events.', f || '() of one that is not parked')
  FROM unnest('{retry_parked,drop_parked}'::text[]) f;
SELECT is(event_store.retry_parked('park'), 0::bigint, 'retry_parked(): it fails again');
SELECT is(pg_temp.parked('park') || pg_temp.model(), '(3,a-1,Bad,2,P0001,"poison 7")1 2 4 5 6', 'one attempt more');
INSERT INTO fixed VALUES (3);
SELECT is(event_store.retry_parked('park', 3), 1::bigint, 'it is put right');
SELECT is(pg_temp.parked('park') || pg_temp.model(), 'nothing1 2 3 4 5 6', 'and counts, now');
SELECT is(event_store.retry_parked('park') || ' ' || event_store.drop_parked('park'), '0 0', 'nothing is parked any more');
SELECT pg_temp.append('a-4', c) FROM unnest('{22000,23505,P0002,38001}'::text[]) c \g /dev/null
SELECT pg_temp.append('a-5') \g /dev/null
SELECT is(pg_temp.run('park'), '(1,1,4,11)', 'several in one batch');
SELECT is(pg_temp.parked('park'), '(7,a-4,Typed,1,22000,"poison 1") (8,a-4,Typed,1,23505,"poison 1") (9,a-4,Typed,1,P0002,"poison 1") (10,a-4,Typed,1,38001,"poison 1")', 'are all parked');
INSERT INTO fixed VALUES (8), (10);
SELECT is(event_store.retry_parked('park'), 2::bigint, 'two of them are put right');
SELECT is(event_store.drop_parked('park', 7) || ' ' || event_store.drop_parked('park'), '1 1', 'the others dropped, one by position, one as all there are');
SELECT is(pg_temp.parked('park') || pg_temp.model(), 'nothing1 2 3 4 5 6 8 10 11', 'these will never be handled');
BEGIN;
SELECT pg_temp.append('a-4', 'P0001') \g /dev/null
COMMIT;
BEGIN;
SELECT is(pg_temp.run('park'), '(0,1,1,12)', 'in a transaction that is rolled back');
ROLLBACK;
SELECT is(pg_temp.parked('park') || (SELECT position FROM event_store.projections WHERE name = 'park'), 'nothing11', 'nothing is parked');

-- Errors that are not the event's always stop.
SELECT event_store.create_projection('always', 'orders', function => 'fail(event_store.event)', mode => 'manual', on_error => 'park', types => '{Always}') \g /dev/null
SELECT event_store.append('orders', 'c-' || c, 'Always', jsonb_build_object('sqlstate', c)) FROM unnest('{42P01,42501,42883,53100,58030,XX000,25006,0A000,08006,08P01,57000,57P01,72000}'::text[]) c \g /dev/null
CREATE FUNCTION pg_temp.run_at(at bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_store.reset_projection('always', at - 1);
    RETURN pg_temp.run('always');
END $$;
SELECT matches(pg_temp.run_at(position), format('^SE007: projection "always" failed at position %s: poison ', position), data ->> 'sqlstate' || ' is not the event''s fault') FROM orders WHERE type = 'Always' ORDER BY position;
SELECT is_empty('SELECT * FROM event_store.parked_events', 'and none of them is parked');

-- Park the stream.
SELECT event_store.drop_event_table('orders'), event_store.create_event_table('orders') \g /dev/null
TRUNCATE model, fixed;
SELECT event_store.create_projection('stream', 'orders', function => 'fail(event_store.event)', mode => 'manual', on_error => 'park_stream', batch_size => 4) \g /dev/null
SELECT pg_temp.append(stream, c) FROM (VALUES ('a-1', NULL), ('a-1', 'P0001'), ('a-2', NULL), ('a-1', NULL), ('a-2', NULL), ('a-1', '22012'), ('a-1', NULL), ('a-2', NULL)) AS e(stream, c) \g /dev/null
SELECT is(pg_temp.run('stream'), '(4,2,4,8)', 'park_stream: four events are parked, in two batches');
SELECT is(pg_temp.model(), '1 3 5 8', 'what comes before in the stream, and other streams, are handled');
SELECT is(pg_temp.parked('stream'), '(2,a-1,Typed,1,P0001,"poison 1") (4,a-1,Typed,0,,) (6,a-1,Typed,0,,) (7,a-1,Typed,0,,)', 'the rest of the stream waits, untried');
SELECT pg_temp.append(stream) FROM unnest('{a-1,a-2}'::text[]) stream \g /dev/null
SELECT is(pg_temp.run('stream'), '(1,1,1,10)', 'and whatever comes later in it');
SELECT is(pg_temp.error_of(format('SELECT event_store.retry_parked(''stream'', %s)', p)),
    format(E'55000\nthe event at position %s waits behind a parked one of its stream\nStream "a-1".\nRetry or drop that one first.', p), 'it cannot be retried before its turn: ' || p) FROM unnest('{4,6,9}'::int[]) p;
SELECT is(event_store.retry_parked('stream'), 0::bigint, 'all: the first fails again');
SELECT is(pg_temp.parked('stream'), '(2,a-1,Typed,2,P0001,"poison 1") (4,a-1,Typed,0,,) (6,a-1,Typed,0,,) (7,a-1,Typed,0,,) (9,a-1,Typed,0,,)', 'so the others are not tried');
INSERT INTO fixed VALUES (2);
SELECT is(event_store.retry_parked('stream', 2), 1::bigint, 'the first alone, put right');
SELECT is(event_store.retry_parked('stream'), 1::bigint, 'all: up to the next one that fails');
SELECT is(pg_temp.parked('stream') || pg_temp.model(), '(6,a-1,Typed,1,22012,"poison 1") (7,a-1,Typed,0,,) (9,a-1,Typed,0,,)1 2 3 4 5 8 10', 'which has been tried now');
SELECT is(event_store.drop_parked('stream', 7), 1::bigint, 'one in the middle is dropped');
SELECT is(event_store.drop_parked('stream', 6), 1::bigint, 'so is the one that fails');
SELECT is(event_store.retry_parked('stream', 9), 1::bigint, 'it is the turn of the last');
SELECT pg_temp.append('a-1') \g /dev/null
SELECT is(pg_temp.run('stream'), '(1,1,0,11)', 'the stream goes on');
SELECT is(pg_temp.model() || ' ' || pg_temp.parked('stream'), '1 2 3 4 5 8 9 10 11 nothing', 'all but those that were dropped');
SELECT pg_temp.append(stream, 'P0001') FROM unnest('{a-1,a-2}'::text[]) stream \g /dev/null
SELECT pg_temp.append(stream) FROM unnest('{a-1,a-2}'::text[]) stream \g /dev/null
SELECT is(pg_temp.run('stream'), '(0,1,4,15)', 'two streams are parked');
INSERT INTO fixed VALUES (13);
SELECT is(event_store.retry_parked('stream'), 2::bigint, 'all: one stream is stuck, the other is not');
SELECT is(pg_temp.parked('stream'), '(12,a-1,Typed,2,P0001,"poison 1") (14,a-1,Typed,0,,)', 'what is still parked');
SELECT event_store.reset_projection('stream', 13) \g /dev/null
SELECT is(pg_temp.parked('stream'), '(12,a-1,Typed,2,P0001,"poison 1")', 'a reset forgets what is parked behind the position');

-- What the handler needs is gone.
SELECT event_store.create_projection('gone', 'orders', function => 'fail(event_store.event)', mode => 'manual', on_error => 'park') \g /dev/null
ALTER FUNCTION fail(event_store.event) RENAME TO renamed;
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('gone') $$),
    '^SE007\nprojection "gone" failed at position 1: public\.fail\(event_store\.event\), the function of projection "gone", does not exist\n.*SQLSTATE 42883', 'the function is not there');
CREATE FUNCTION fail(event event_store.event, more text) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT matches(pg_temp.run('gone'), 'does not exist$', 'another signature is another function');
CREATE FUNCTION fail(event event_store.event) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('gone') $$), '^SE007\n.*: fail\(event_store\.event\) cannot be the function of projection "gone"\n.*SQLSTATE 42P13', 'it returns a set now');
DROP FUNCTION fail(event_store.event);
CREATE FUNCTION fail(event event_store.event) RETURNS void LANGUAGE sql AS 'INSERT INTO model VALUES (-event.position)';
TRUNCATE model;
SELECT is(pg_temp.run('gone'), '(15,1,0,15)', 'one that fits is used');
SELECT is((SELECT count(*) FROM model WHERE position < 0), 15::bigint, 'for every event');
ALTER TABLE model RENAME TO elsewhere;
SELECT pg_temp.append('a-1') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('gone') $$) ~ '^SE007\nprojection "gone" failed at position 16: relation "model" does not exist\n.*SQLSTATE 42P01', true, 'the table of the read model is gone');
SELECT is(pg_temp.parked('gone'), 'nothing', 'nothing of that is parked');
ALTER TABLE elsewhere RENAME TO model;
SELECT is(pg_temp.run('gone'), '(1,1,0,16)', 'and back again');

-- Nothing of a handler is deferred here; what its caller has left pending is not the
-- event's, and stays pending.
CREATE TABLE parent (a bigint PRIMARY KEY);
CREATE TABLE child (a bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
SELECT event_store.create_projection('defers', 'orders', 'INSERT INTO parent SELECT position FROM events; INSERT INTO child SELECT position FROM events', mode => 'manual', on_error => 'park', start_after => 11) \g /dev/null
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('defers') $$), '^SE007\n.*cannot fire deferred trigger within security-restricted operation\n.*SQLSTATE 42501', 'a handler cannot defer');
SELECT is(pg_temp.parked('defers'), 'nothing', 'which is no event''s fault');
SELECT event_store.alter_projection('defers', 'INSERT INTO parent SELECT position FROM events') \g /dev/null
BEGIN;
INSERT INTO child VALUES (1);
SELECT pg_temp.run('defers') AS with_pending, event_store.retry_parked('gone') \gset
SELECT events AS dry FROM event_store.dry_run_projection('defers', 11) \gset
INSERT INTO child VALUES (2);
INSERT INTO parent VALUES (1), (2);
COMMIT;
SELECT is((:'with_pending')::text, '(5,1,0,16)', 'a violation of the caller''s that is pending is not the event''s');
SELECT is((SELECT count(*) FROM child), 2::bigint, 'and constraints of the transaction stay deferred');
SELECT event_store.alter_projection('defers', 'SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO parent SELECT position + 100 FROM events; INSERT INTO child SELECT position + 100 FROM events'), event_store.reset_projection('defers', 11) \g /dev/null
SELECT is(pg_temp.run('defers'), '(5,1,0,16)', 'one that has them checked at once works');
SELECT event_store.drop_projection('defers') \g /dev/null

-- A batch that does not fit in memory, with events that fail.
SELECT event_store.create_event_table('large') \g /dev/null
SELECT event_store.append_batch('large', 'l-' || s, array_agg('L'::text), array_agg(jsonb_build_object('n', i, 'pad', repeat('x', 400)))) FROM generate_series(1, 3000) i, LATERAL (SELECT i % 3 AS s) t GROUP BY s ORDER BY s \g /dev/null
CREATE TABLE sums (stream text COLLATE "C" PRIMARY KEY, events bigint, n bigint, bytes bigint);
CREATE FUNCTION sum_up(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sums VALUES (event.stream, 1, (event.data ->> 'n')::bigint, length(event.data ->> 'pad'))
        ON CONFLICT (stream) DO UPDATE SET events = sums.events + 1, n = sums.n + excluded.n, bytes = sums.bytes + excluded.bytes;
    IF (event.data ->> 'n')::int % 499 = 7 THEN RAISE EXCEPTION 'poison'; END IF;
END $$;
\set summing 'INSERT INTO sums SELECT stream, count(*), sum((data ->> ''n'')::bigint / CASE WHEN (data ->> ''n'')::int % 499 = 7 THEN 0 ELSE 1 END), sum(length(data ->> ''pad'')) FROM events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET events = sums.events + excluded.events, n = sums.n + excluded.n, bytes = sums.bytes + excluded.bytes'
CREATE FUNCTION pg_temp.wrong_sums() RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM (SELECT stream, count(*), sum((data ->> 'n')::bigint)::bigint, sum(length(data ->> 'pad')) FROM large WHERE (data ->> 'n')::int % 499 <> 7 GROUP BY 1) l FULL JOIN sums s ON (l.*) = (s.*) WHERE l IS NULL OR s IS NULL $$;
SET work_mem = '64kB';
SET maintenance_work_mem = '1MB';
SELECT event_store.create_projection('spilled function', 'large', function => 'sum_up(event_store.event)', mode => 'manual', on_error => 'park') \g /dev/null
SELECT event_store.create_projection('spilled statement', 'large', :'summing', mode => 'manual', on_error => 'park') \g /dev/null
SELECT event_store.create_projection('spilled stream', 'large', function => 'sum_up(event_store.event)', mode => 'manual', on_error => 'park_stream') \g /dev/null
SELECT is(pg_temp.rows_of(format('SELECT events, failed FROM event_store.dry_run_projection(%L)', 'spilled ' || k)), '(2994,6)', 'a batch that is spilled, dry: ' || k) FROM unnest('{function,statement}'::text[]) k;
SELECT matches(pg_temp.run('spilled function'), '^\(2994,\d+,6,3000\)$', 'a function, in batches that are spilled');
SELECT is(pg_temp.wrong_sums(), 0::bigint, 'its sums');
TRUNCATE sums;
SELECT matches(pg_temp.run('spilled statement'), '^\(2994,\d+,6,3000\)$', 'a statement');
SELECT is(pg_temp.wrong_sums(), 0::bigint, 'its sums');
SELECT is(event_store.retry_parked('spilled statement'), 0::bigint, 'all fail again');
TRUNCATE sums;
SELECT pg_temp.run('spilled stream') \g /dev/null
SELECT is((SELECT sum(events) FROM sums) + (SELECT count(*) FROM event_store.parked_events WHERE projection = 'spilled stream'), 3000::numeric, 'by stream: each is handled or parked');
SELECT is_empty($$ SELECT stream FROM event_store.parked_events WHERE projection = 'spilled stream' GROUP BY 1 HAVING count(*) FILTER (WHERE sqlstate IS NOT NULL) <> 1 $$, 'behind one event for each stream');
RESET work_mem;
RESET maintenance_work_mem;
SELECT event_store.drop_event_table('large') \g /dev/null

-- Handlers that change their own projection.
CREATE TABLE done (position bigint);
CREATE FUNCTION pg_temp.self(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM done;
    IF EXISTS (SELECT FROM event_store.projections WHERE name = 'self') THEN PERFORM event_store.drop_projection('self'); END IF;
    PERFORM event_store.create_projection('self', 'orders', format('INSERT INTO done SELECT position FROM events; %s', command), mode => 'manual', batch_size => 8, start_after => 4);
    RETURN pg_temp.run('self');
END $$;
SELECT matches(pg_temp.self($$ SELECT event_store.run_projection('self') $$), '^SE007: projection "self" failed at position 5: projection "self" is being run by this session already$', 'a handler cannot run its own projection');
SELECT matches(pg_temp.self($$ SELECT event_store.alter_projection('self', partitions => 2) $$), '^SE007: .* is being run by this session already$', 'nor give it more partitions');
SELECT matches(pg_temp.self($$ SELECT event_store.alter_projection('self', mode => 'inline') $$), '^SE007: .* is being run by this session already$', 'nor make it inline');
SELECT is(pg_temp.self($$ SELECT event_store.pause_projection('self') $$), '(8,1,0,12)', 'it may pause it');
SELECT is((SELECT position || ' ' || status FROM event_store.projections WHERE name = 'self') || ' ' || (SELECT count(*) FROM done), '12 paused 8', 'what it has done stays, and nothing runs any more');
SELECT is(pg_temp.self($$ SELECT event_store.alter_projection('self', 'INSERT INTO done SELECT -position FROM events') $$), '(12,2,0,16)', 'it may change it');
SELECT is((SELECT string_agg(position::text, ' ' ORDER BY abs(position)) FROM done), '5 6 7 8 9 10 11 12 -13 -14 -15 -16', 'from the next batch on');
SELECT is(pg_temp.self($$ SELECT event_store.reset_projection('self', 3) WHERE (SELECT count(*) FROM done) = 8 $$), '(21,3,0,16)', 'it may reset it');
SELECT is((SELECT count(*) || ' ' || min(position) FROM done), '21 4', 'and goes on from there');
SELECT is(pg_temp.self($$ SELECT event_store.drop_projection('self') $$), '(8,1,0,)', 'it may drop it');
SELECT is((SELECT count(*) FROM done) || ' ' || (SELECT count(*) FROM event_store.registered_projections WHERE name = 'self'), '8 0', 'what it has done stays');
SELECT is(pg_temp.self($$ SELECT event_store.append('orders', 'more-1', 'More', '{}') $$), '(12,2,0,16)', 'it may append to its event table');
SELECT is((SELECT max(position) FROM orders WHERE type = 'More'), 18::bigint, 'an event for each batch');
SELECT is(pg_temp.run('self'), '(2,1,0,18)', 'which comes to it in the next transaction');
SELECT is((SELECT own_appends FROM event_store.projections WHERE name = 'self'), 3::bigint, 'and is noted: three batches in a row');
SELECT is((SELECT count(*) || ' ' || count(DISTINCT position) FROM done), '14 14', 'no event twice');

-- The same over partitions: what the first one does holds for the others.
TRUNCATE done;
SELECT event_store.create_projection('parts', 'orders', 'INSERT INTO done SELECT position FROM events; SELECT event_store.pause_projection(''parts'')', mode => 'manual', partitions => 4, types => '{More}') \g /dev/null
SELECT event_store.append('orders', 'part-' || i, 'More', '{}') FROM generate_series(1, 40) i \g /dev/null
SELECT is((SELECT batches FROM event_store.run_projection('parts')), 1::bigint, 'paused in one partition, the others are not run');
SELECT event_store.drop_projection('parts') \g /dev/null
TRUNCATE done;
SELECT event_store.create_projection('parts', 'orders', 'INSERT INTO done SELECT position FROM events; SELECT event_store.alter_projection(''parts'', ''INSERT INTO done SELECT -position FROM events'')', mode => 'manual', partitions => 4, types => '{More}') \g /dev/null
SELECT is((SELECT batches FROM event_store.run_projection('parts')), 4::bigint, 'changed in one');
SELECT is((SELECT count(*) > 0 FROM done WHERE position < 0), true, 'the others use the new definition');
SELECT event_store.drop_projection('parts') \g /dev/null
TRUNCATE done;
SELECT event_store.create_projection('parts', 'orders', 'INSERT INTO done SELECT position FROM events; SELECT event_store.drop_projection(''parts'')', mode => 'manual', partitions => 4, types => '{More}') \g /dev/null
SELECT is((SELECT batches || ' ' || coalesce(position::text, 'none') FROM event_store.run_projection('parts')), '1 none', 'dropped in one, the others are gone');

SELECT * FROM finish();
