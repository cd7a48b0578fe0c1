-- Feeds: read_all() and read_category(): bounds, directions, filters, the mark;
-- after_event_id; what a transaction does not see.
SET client_min_messages = warning;
SELECT plan(159);

\ir include/rows_of.sql

-- Positions 1 to 12 but 5, which a rolled-back append has taken.
SELECT event_store.create_event_table('orders') \g /dev/null
CREATE FUNCTION pg_temp.fill() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    e record;
BEGIN
    FOR e IN SELECT * FROM (VALUES (1, 'a-1', 'Red', NULL), (2, 'b-1', 'Green', 'x'), (3, 'a-2', 'Blue', 'y'), (4, 'a-1', 'Green', 'x'), (5, 'lost', 'Lost', NULL),
                                   (6, 'c', 'Red', NULL), (7, 'b-1', 'Blue', 'y'), (8, 'a-1', 'Red', 'x'), (9, 'b-2', 'Red', 'x'), (10, 'a-2', 'Green', NULL),
                                   (11, 'c', 'Blue', 'y'), (12, 'a-1', 'Blue', NULL)) AS v(i, stream, type, correlation) ORDER BY i
    LOOP
        BEGIN
            PERFORM event_store.append('orders', e.stream, e.type, to_jsonb(e.i), correlation_id => e.correlation, event_id => ('00000000-0000-0000-0000-' || lpad(e.i::text, 12, '0'))::uuid);
            IF e.stream = 'lost' THEN
                RAISE SQLSTATE 'X0001';
            END IF;
        EXCEPTION WHEN SQLSTATE 'X0001' THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT pg_temp.fill() \g /dev/null

-- %s is read_all('orders' or, with the same arguments, the category's feed.
CREATE TEMP TABLE reads (query text, expected text, description text);
INSERT INTO reads VALUES
    ($$ read_all('orders') $$, '1 2 3 4 6 7 8 9 10 11 12', 'all'),
    ($$ read_all('orders', 0) $$, '1 2 3 4 6 7 8 9 10 11 12', 'after 0'),
    ($$ read_all('orders', NULL) $$, '1 2 3 4 6 7 8 9 10 11 12', 'after NULL is from the beginning'),
    ($$ read_all('orders', -5) $$, '1 2 3 4 6 7 8 9 10 11 12', 'after a negative position'),
    ($$ read_all('orders', 4) $$, '6 7 8 9 10 11 12', 'after is exclusive'),
    ($$ read_all('orders', 5) $$, '6 7 8 9 10 11 12', 'after a position that no event has'),
    ($$ read_all('orders', 12) $$, 'nothing', 'after the last'),
    ($$ read_all('orders', 99999) $$, 'nothing', 'after more than there is'),
    ($$ read_all('orders', 9223372036854775807) $$, 'nothing', 'after the greatest bigint'),
    ($$ read_all('orders', -9223372036854775808) $$, '1 2 3 4 6 7 8 9 10 11 12', 'after the least bigint'),
    ($$ read_all('orders', max_count => 3) $$, '1 2 3', 'max_count'),
    ($$ read_all('orders', 3, 2) $$, '4 6', 'max_count counts events, not positions'),
    ($$ read_all('orders', max_count => 0) $$, 'nothing', 'max_count 0'),
    ($$ read_all('orders', max_count => NULL) $$, '1 2 3 4 6 7 8 9 10 11 12', 'max_count NULL is the default'),
    ($$ read_all('orders', max_count => -3) $$, '22023: max_count must not be negative, but is -3', 'a negative max_count is refused'),
    ($$ read_all('orders', before => 4) $$, '1 2 3', 'before is exclusive'),
    ($$ read_all('orders', 2, before => 8) $$, '3 4 6 7', 'between two positions'),
    ($$ read_all('orders', 2, before => 3) $$, 'nothing', 'between two neighbours'),
    ($$ read_all('orders', 8, before => 2) $$, 'nothing', 'before below after'),
    ($$ read_all('orders', before => 1) $$, 'nothing', 'before the first'),
    ($$ read_all('orders', before => 0) $$, 'nothing', 'before 0'),
    ($$ read_all('orders', before => -9223372036854775808) $$, 'nothing', 'before the least bigint'),
    ($$ read_all('orders', before => 9223372036854775807) $$, '1 2 3 4 6 7 8 9 10 11 12', 'before the greatest bigint is up to the mark'),
    ($$ read_all('orders', before => NULL) $$, '1 2 3 4 6 7 8 9 10 11 12', 'before NULL is up to the mark'),
    ($$ read_all('orders', direction => 'backward') $$, '12 11 10 9 8 7 6 4 3 2 1', 'backward from the mark'),
    ($$ read_all('orders', direction => 'backward', max_count => 2) $$, '12 11', 'the last two'),
    ($$ read_all('orders', direction => 'backward', before => 11, max_count => 2) $$, '10 9', 'the two before them'),
    ($$ read_all('orders', direction => 'backward', before => 6) $$, '4 3 2 1', 'backward over a gap'),
    ($$ read_all('orders', 2, direction => 'backward', before => 8) $$, '7 6 4 3', 'backward down to after'),
    ($$ read_all('orders', direction => NULL, max_count => 2) $$, '1 2', 'direction NULL is forward'),
    ($$ read_all('orders', direction => 'up') $$, '22023: direction must be forward or backward, not "up"', 'another direction is refused'),
    ($$ read_all('orders', types => '{Red}') $$, '1 6 8 9', 'one type'),
    ($$ read_all('orders', types => '{Blue,Red}') $$, '1 3 6 7 8 9 11 12', 'two types'),
    ($$ read_all('orders', types => '{red}') $$, 'nothing', 'types differ in case'),
    ($$ read_all('orders', types => '{}') $$, 'nothing', 'no type lets nothing through'),
    ($$ read_all('orders', types => '{Red,NULL}') $$, '22004: types[2] must not be null', 'a type that is NULL is refused'),
    ($$ read_all('orders', types => '{Red,Red}', max_count => 2, after => 1) $$, '6 8', 'max_count counts what the filter lets through'),
    ($$ read_all('orders', types => '{Red}', direction => 'backward', max_count => 2) $$, '9 8', 'a type, backward'),
    ($$ read_all('orders', categories => '{a}') $$, '1 3 4 8 10 12', 'one category'),
    ($$ read_all('orders', categories => '{b,c}') $$, '2 6 7 9 11', 'two categories'),
    ($$ read_all('orders', categories => '{a-1}') $$, 'nothing', 'a stream is no category'),
    ($$ read_all('orders', categories => '{}') $$, 'nothing', 'no category lets nothing through'),
    ($$ read_all('orders', categories => '{NULL}') $$, '22004: categories[1] must not be null', 'a category that is NULL is refused'),
    ($$ read_all('orders', streams => '{a-1}') $$, '1 4 8 12', 'one stream'),
    ($$ read_all('orders', streams => '{c,a-2,none-1}') $$, '3 6 10 11', 'several streams'),
    ($$ read_all('orders', streams => '{NULL}') $$, '22004: streams[1] must not be null', 'a stream that is NULL is refused'),
    ($$ read_all('orders', correlation_id => 'x') $$, '2 4 8 9', 'a correlation'),
    ($$ read_all('orders', correlation_id => 'none') $$, 'nothing', 'a correlation that is not there'),
    ($$ read_all('orders', 2, correlation_id => 'x', direction => 'backward', before => 9) $$, '8 4', 'a correlation, with bounds, backward'),
    ($$ read_all('orders', types => '{Red,Green}', categories => '{a}', correlation_id => 'x') $$, '4 8',
        'types and category and correlation: all must match'),
    ($$ read_all('orders', types => '{Red}', streams => '{a-1}', categories => '{a}') $$, '1 8', 'type and stream and category'),
    ($$ read_all('orders', streams => '{a-1}', categories => '{b}') $$, 'nothing', 'a stream that is not of the category'),
    ($$ read_category('orders', 'a') $$, '1 3 4 8 10 12', 'read_category'),
    ($$ read_category('orders', 'a', 3) $$, '4 8 10 12', 'read_category: after'),
    ($$ read_category('orders', 'a', 3, 2) $$, '4 8', 'read_category: max_count'),
    ($$ read_category('orders', 'a', before => 8) $$, '1 3 4', 'read_category: before'),
    ($$ read_category('orders', 'a', direction => 'backward', max_count => 3) $$, '12 10 8', 'read_category: backward'),
    ($$ read_category('orders', 'a', types => '{Green}') $$, '4 10', 'read_category: types'),
    ($$ read_category('orders', 'a', correlation_id => 'x') $$, '4 8', 'read_category: correlation'),
    ($$ read_category('orders', 'a', types => '{Red}', correlation_id => 'x', after => 4, before => 12) $$, '8', 'read_category: all of them'),
    ($$ read_category('orders', 'c') $$, '6 11', 'read_category: a stream without a dash is its category'),
    ($$ read_category('orders', 'none') $$, 'nothing', 'read_category: a category that is not there'),
    ($$ read_category('orders', '') $$, 'nothing', 'read_category: the empty category'),
    ($$ read_category('orders', NULL) $$, '22004: category must not be null', 'read_category: NULL is refused'),
    ($$ read_category('orders', 'a', max_count => -1) $$, '22023: max_count must not be negative, but is -1',
        'read_category: a negative max_count is refused'),
    -- after_event_id
    ($$ read_all('orders', 4, 2, after_event_id => '00000000-0000-0000-0000-000000000004') $$, '6 7', 'after_event_id: the event at after'),
    ($$ read_all('orders', 5, 2, after_event_id => '00000000-0000-0000-0000-000000000004') $$, '6 7',
        'after_event_id: the newest event before a gap'),
    ($$ read_all('orders', 12, after_event_id => '00000000-0000-0000-0000-000000000012') $$, 'nothing', 'after_event_id: the last event'),
    ($$ read_all('orders', 99, after_event_id => '00000000-0000-0000-0000-000000000012') $$, 'nothing',
        'after_event_id: the last event, at a position above it'),
    ($$ read_category('orders', 'a', 9, after_event_id => '00000000-0000-0000-0000-000000000009') $$, '10 12',
        'after_event_id: an event of another category'),
    ($$ read_all('orders', 4, types => '{Blue}', after_event_id => '00000000-0000-0000-0000-000000000004') $$, '7 11 12',
        'after_event_id: an event that the filter would not let through'),
    ($$ read_all('orders', 4, after_event_id => '00000000-0000-0000-0000-000000000003') $$,
        'SE009: the checkpoint at position 4 is not of this event table''s history', 'after_event_id: another event than that at after'),
    ($$ read_all('orders', 12, after_event_id => '00000000-0000-0000-0000-0000000000ff') $$,
        'SE009: the checkpoint at position 12 is not of this event table''s history', 'after_event_id: an unknown event'),
    ($$ read_all('orders', 20, after_event_id => '00000000-0000-0000-0000-000000000020') $$,
        'SE009: the checkpoint at position 20 is not of this event table''s history', 'after_event_id: a checkpoint ahead of the log'),
    ($$ read_all('orders', 0, after_event_id => '00000000-0000-0000-0000-000000000001') $$,
        'SE009: the checkpoint at position 0 is not of this event table''s history', 'after_event_id: an event where after is 0'),
    ($$ read_all('orders', after_event_id => '00000000-0000-0000-0000-000000000001') $$,
        'SE009: the checkpoint at position 0 is not of this event table''s history', 'after_event_id: an event without after'),
    ($$ read_category('orders', 'a', 4, after_event_id => '00000000-0000-0000-0000-000000000003') $$,
        'SE009: the checkpoint at position 4 is not of this event table''s history', 'after_event_id: read_category looks too');
CREATE FUNCTION pg_temp.positions(query text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN r ~ '^\w{5}:' THEN r ELSE replace(replace(r, '(', ''), ')', '') END
      FROM pg_temp.rows_of('SELECT position FROM event_store.' || query) AS r $$;
SELECT is(pg_temp.positions(query), expected, description) FROM reads;

-- The same feeds by other indexes: a category filter and read_category() agree, and so they do without the indexes.
SELECT is(pg_temp.positions(format('read_category(''orders'', %L, %s)', c, rest)),
    pg_temp.positions(format('read_all(''orders'', %s, categories => ARRAY[%L])', rest, c)),
          format('read_category and read_all agree: %s, %s', c, rest))
  FROM unnest('{a,b,c}'::text[]) AS c, unnest(ARRAY['3, 2', '1, before => 10', '0, direction => ''backward'', max_count => 4',
      '2, types => ''{Blue}''', '0, correlation_id => ''x''']) AS rest;
DROP INDEX orders_category_position_idx, orders_correlation_id_position_idx;
SELECT is(pg_temp.positions(query), expected, 'without the indexes: ' || description) FROM reads WHERE query ~ 'read_category|correlation'
    AND query !~ 'NULL|-1';
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.read_all('orders') $$), pg_temp.rows_of('SELECT * FROM orders ORDER BY position'),
    'read_all returns the columns of the table, in their order');

-- The error of a checkpoint that has diverged.
CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text; hint text; s text; t text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, s = SCHEMA_NAME, t = TABLE_NAME;
    RETURN concat_ws(E'\n', SQLSTATE, detail, hint, s || '.' || t);
END $$;
SELECT alike(pg_temp.error_of($$ SELECT event_store.read_batch('orders', 5, after_event_id => '00000000-0000-0000-0000-000000000003') $$),
             E'SE009\nThe newest event at or before it is 00000000-0000-0000-0000-000000000004 at position 4; event 00000000-0000-0000-0000-000000000003 was expected.\n_%\npublic.orders',
             'the error of a diverged checkpoint says what is there, what was expected, and of which table');
SELECT alike(pg_temp.error_of($$ SELECT event_store.read_all('orders', 0, after_event_id => '00000000-0000-0000-0000-000000000003') $$),
             E'SE009\nThere is no event at or before it; event 00000000-0000-0000-0000-000000000003 was expected.\n_%\npublic.orders',
                 'also where there is nothing');

-- The default of max_count.
SELECT event_store.create_event_table('many') \g /dev/null
INSERT INTO many (stream, type, data) SELECT 'm-1', 'T', '{}' FROM generate_series(1, 1005);
SELECT is((SELECT count(*) FROM event_store.read_all('many')), 1000::bigint, 'read_all: by default a thousand events');
SELECT is((SELECT count(*) FROM event_store.read_all('many', max_count => NULL)), 1000::bigint, 'so it is with NULL');
SELECT is((SELECT count(*) FROM event_store.read_category('many', 'm')), 1000::bigint, 'read_category: the same');
SELECT is((SELECT count(*) FROM event_store.read_all('many', max_count => 5000)), 1005::bigint, 'more only if asked for');

-- Own uncommitted events are not in feeds, whatever came before; then they are.
CREATE TEMP TABLE seen (what text, positions text);
BEGIN;
SELECT event_store.append('orders', 'own-1', 'T', '{}') \g /dev/null
INSERT INTO orders (stream, type, data) VALUES ('own-1', 'T', '{}'), ('a-9', 'T', '{}');
INSERT INTO seen VALUES ('read_all', pg_temp.positions($$ read_all('orders', 9) $$)), ('backward',
    pg_temp.positions($$ read_all('orders', 9, direction => 'backward') $$)),
    ('read_category', pg_temp.positions($$ read_category('orders', 'a', 9) $$)), ('read_batch',
        (SELECT checkpoint || ' ' || jsonb_array_length(events) FROM event_store.read_batch('orders', 9))),
    ('mark', event_store.high_water_mark('orders')::text), ('stream', event_store.stream_version('orders', 'own-1')::text);
COMMIT;
SELECT is(positions, expected, 'own uncommitted events: ' || what)
  FROM (VALUES ('read_all', '10 11 12'), ('backward', '12 11 10'), ('read_category', '10 12'), ('read_batch', '12 3'), ('mark', '12'),
      ('stream', '2')) AS c(what, expected) JOIN seen USING (what);
SELECT is(pg_temp.positions($$ read_all('orders', 9) $$), '10 11 12 13 14 15', 'after the commit they are in the feed');
BEGIN;
SAVEPOINT s;
SELECT event_store.append('orders', 'own-2', 'T', '{}') \g /dev/null
ROLLBACK TO s;
SELECT event_store.high_water_mark('orders') AS mark \gset
COMMIT;
SELECT is(:mark, 15, 'a rolled-back savepoint holds the mark until its transaction ends');
SELECT is(event_store.high_water_mark('orders'), 16::bigint, 'then the mark covers the position that nobody has');
-- A repeatable read transaction whose snapshot is older than what a prepared one commits meanwhile.
BEGIN;
SELECT event_store.append('orders', 'two-1', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_feeds_1';
SELECT event_store.append('orders', 'two-2', 'T', '{}') \g /dev/null
SELECT is(pg_temp.positions($$ read_all('orders', 12) $$), '13 14 15', 'a prepared transaction keeps later events out of the feed');
SELECT is(event_store.high_water_mark('orders'), 16::bigint, 'the mark stays below its first position');
SELECT is(pg_temp.rows_of($$ SELECT event_table, position, pid, prepared_transaction, since <= now(), "user" = current_user, application_name, state FROM event_store.mark_holders $$),
          '(orders,16,,es_feeds_1,t,t,,)', 'mark_holders names the prepared transaction, since when, and whose it is');
SELECT is((SELECT version FROM event_store.read_stream('orders', 'two-2')), 1::bigint, 'streams can be read meanwhile');
SELECT is(event_store.last_position('orders'), 18::bigint, 'last_position() is no mark');
COMMIT PREPARED 'es_feeds_1';
SELECT is(pg_temp.positions($$ read_all('orders', 15) $$), '17 18', 'after COMMIT PREPARED both are there');
BEGIN;
SELECT event_store.append('orders', 'two-1', 'T', '{}') \g /dev/null
PREPARE TRANSACTION 'es_feeds_2';
SELECT event_store.append('orders', 'two-2', 'T', '{}') \g /dev/null
ROLLBACK PREPARED 'es_feeds_2';
SELECT is(pg_temp.positions($$ read_all('orders', 18) $$), '20', 'after ROLLBACK PREPARED the mark moves on');

-- mark_holders, for a backend.
SELECT is_empty('SELECT * FROM event_store.mark_holders', 'nobody appends, nobody holds a mark');
BEGIN;
SELECT event_store.append('orders', 'hold-1', 'T', '{}') \g /dev/null
SELECT event_store.append_batch('many', 'm-1', '{T,T}', '{1,2}') \g /dev/null
INSERT INTO orders (stream, type, data) VALUES ('hold-1', 'T', '{}');
SELECT is(pg_temp.rows_of($$ SELECT event_table, position, pid = pg_backend_pid(), prepared_transaction, since = now(), "user" = current_user, application_name, state
                               FROM event_store.mark_holders ORDER BY event_table::text $$),
          '(many,1005,t,,t,t,psql,active) (orders,20,t,,t,t,psql,active)',
              'mark_holders has a row for each table and transaction, with the backend');
COMMIT;
SELECT is(event_store.high_water_mark(t), p::bigint, 'the mark of ' || t || ' is the last position, when all is committed')
    FROM (VALUES ('orders'::regclass, 22), ('many', 1007)) AS c(t, p);
SELECT event_store.create_event_table('empty') \g /dev/null
SELECT is(event_store.high_water_mark('empty'), 0::bigint, 'the mark of an empty table is 0');
SELECT is(pg_temp.positions($$ read_all('empty') $$) || pg_temp.positions($$ read_category('empty', 'a') $$), 'nothingnothing',
    'an empty table has empty feeds');

-- Feeds take a snapshot of their own.
SELECT results_eq($$ SELECT (a.r).last_position, (SELECT count(*) FROM event_store.read_all('empty', max_count => (a.r).last_version)) FROM (SELECT event_store.append('empty', 'a-1', 'T', '{}') AS r OFFSET 0) a $$,
                  $$ VALUES (1::bigint, 0::bigint) $$, 'an append and a feed in one statement: its event is not in the feed');
BEGIN READ ONLY;
SELECT is(pg_temp.positions($$ read_all('empty') $$), '1', 'feeds need no right to write');
COMMIT;

-- position_at.
SELECT is(event_store.position_at('orders', o.recorded_at), o.position, 'position_at the time of event ' || o.position) FROM orders o
    WHERE position IN (1, 7, 22);
SELECT is(event_store.position_at('orders', o.recorded_at - interval '1 microsecond'), o.position - 1,
    'position_at just before event ' || o.position) FROM orders o WHERE position IN (1, 7, 22);
SELECT is(event_store.position_at('orders', at), expected::bigint, 'position_at ' || at)
  FROM (VALUES ('-infinity'::timestamptz, 0), ('1900-01-01', 0), ('infinity', 22), ('294276-01-01', 22)) AS c(at, expected);
SELECT is(event_store.position_at('orders', clock_timestamp()), 22::bigint, 'position_at now is the last');
SELECT event_store.create_event_table('none') \g /dev/null
SELECT is(event_store.position_at('none', now()), 0::bigint, 'position_at in an empty table is 0');
SELECT throws_ok($$ SELECT event_store.position_at('orders', NULL) $$, '22004', 'at must not be null', 'position_at NULL is refused');
-- Far apart: a table whose events were recorded over years.
SET session_replication_role = replica;
INSERT INTO none (position, stream, version, event_id, type, data, recorded_at)
    SELECT i, 's-1', i, gen_random_uuid(), 'T', '{}', '2001-01-01 00:00:00+00'::timestamptz + i * interval '400 days' FROM generate_series(1,
        12) AS i;
RESET session_replication_role;
SELECT is(event_store.position_at('none', at), expected::bigint, 'position_at between events years apart: ' || at)
  FROM (VALUES ('2001-01-01'::timestamptz, 0), ('2002-02-05 00:00:00+00', 1), ('2003-01-01', 1), ('2005-12-31', 4), ('2024-01-01', 12),
      ('2999-01-01', 12)) AS c(at, expected);

SELECT * FROM finish();
