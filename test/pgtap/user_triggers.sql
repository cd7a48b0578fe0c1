-- Triggers that users have put on an event table, on every way in: append(),
-- append_batch() of three, append_json(), append_streams(), and INSERT
-- of three rows.
SET client_min_messages = warning;
SELECT plan(127);

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE log (n bigserial, what text);

-- The ways in: so many events to the stream of that name.
CREATE FUNCTION pg_temp.go(way text, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n int;
    r event_store.append_result;
BEGIN
    CASE way
        WHEN 'append' THEN
            r := event_store.append('orders', name, 'T', '{"n": 1}');
        WHEN 'append_batch' THEN
            r := event_store.append_batch('orders', name, '{T,T,T}', ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3}']::jsonb[]);
        WHEN 'append_json' THEN
            r := event_store.append_json('orders', name, '[{"type": "T", "data": {"n": 1}}, {"type": "T", "data": {"n": 2}}]');
        WHEN 'append_streams' THEN
            SELECT first_version, last_version, first_position, last_position, event_ids, duplicate INTO r
              FROM event_store.append_streams('orders', jsonb_build_array(jsonb_build_object('stream', name, 'events',
                       '[{"type": "T", "data": {"n": 1}}, {"type": "T", "data": {"n": 2}}]'::jsonb)));
        WHEN 'INSERT' THEN
            INSERT INTO orders (stream, type, data) VALUES (name, 'T', '{"n": 1}'), (name, 'T', '{"n": 2}'), (name, 'T', '{"n": 3}');
            GET DIAGNOSTICS n = ROW_COUNT;
            RETURN n || ' rows';
    END CASE;
    IF r.event_ids IS DISTINCT FROM (SELECT array_agg(o.event_id ORDER BY o.version) FROM orders o WHERE o.stream = name AND o.position BETWEEN r.first_position AND r.last_position) THEN
        RETURN 'the result is not what is stored';
    END IF;
    RETURN cardinality(r.event_ids) || ' rows';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE TEMP TABLE ways (i int, way text, n int);
INSERT INTO ways VALUES (1, 'append', 1), (2, 'append_batch', 3), (3, 'append_json', 2), (4, 'append_streams', 2), (5, 'INSERT', 3);

-- A BEFORE ROW trigger that changes what the event says.
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.data := NEW.data || jsonb_build_object('by', 'trigger', 'seen', (SELECT count(*) FROM orders WHERE stream = NEW.stream));
    NEW.metadata := '{"m": "trigger"}';
    NEW.type := 'Changed';
    NEW.correlation_id := 'c';
    NEW.causation_id := 'd';
    NEW.schema_version := 7;
    NEW.occurred_at := '2001-01-01';
    NEW.recorded_at := '1999-01-01';
    RETURN NEW;
END $$;
CREATE TRIGGER a_before BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION before_row();
SELECT is(pg_temp.go(way, 'change-' || i), n || ' rows', way || ': a BEFORE ROW trigger may change what the event says') FROM ways;
SELECT is((SELECT string_agg(format('%s %s', version, data ->> 'seen'), ', ' ORDER BY version) FROM orders
            WHERE stream = 'change-' || i AND type = 'Changed' AND metadata = '{"m": "trigger"}' AND correlation_id = 'c' AND causation_id = 'd'
              AND schema_version = 7 AND occurred_at = '2001-01-01' AND data ->> 'by' = 'trigger' AND recorded_at > now() - interval '1 hour'),
          (SELECT string_agg(format('%s %s', v, v - 1), ', ' ORDER BY v) FROM generate_series(1, n) AS v),
          way || ': what the trigger left is stored, but for recorded_at; and it saw the rows before it') FROM ways WHERE way <> 'INSERT';
SELECT is((SELECT count(*) FROM orders WHERE stream = 'change-5' AND type = 'Changed' AND schema_version = 7 AND data ->> 'by' = 'trigger'
    AND recorded_at > now() - interval '1 hour'),
          3::bigint, 'INSERT: what the trigger left is stored, but for recorded_at');

-- What it leaves is checked as input is.
CREATE FUNCTION set_before_row(body text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS %L', 'BEGIN ' || body || ' RETURN NEW; END');
END $$;
CREATE FUNCTION pg_temp.with_trigger(body text, why text, expected text, of_insert text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    w      record;
    before bigint;
BEGIN
    PERFORM set_before_row(body);
    FOR w IN SELECT * FROM ways LOOP
        before := (SELECT count(*) FROM orders);
        RETURN NEXT is(pg_temp.go(w.way, 'bad-1'), CASE WHEN w.way = 'INSERT' THEN coalesce(of_insert, expected) ELSE expected END, w.way || ': ' || why);
        IF (SELECT count(*) FROM orders) <> before THEN
            RETURN NEXT fail('nothing is written');
        END IF;
    END LOOP;
END $$;
SELECT t FROM (VALUES
    ('NEW.type := '''';', 'an empty type from a trigger is refused', '22023: type must not be empty', NULL),
    ('NEW.type := NULL;', 'a type that a trigger has set to NULL is refused', '22004: type must not be null', NULL),
    ('NEW.type := repeat(''x'', 300);', 'a type too long from a trigger is refused', '22023: type is too long: 300 bytes', NULL),
    ('NEW.schema_version := -1;', 'a bad schema_version from a trigger is refused', '22023: schema_version must be at least 1, not -1', NULL),
    ('NEW.data := NULL;', 'data that a trigger has set to NULL is refused',
        '23502: null value in column "data" of relation "orders" violates not-null constraint', NULL),
    ('NEW.stream := ''another-1'';', 'a trigger may not change the stream',
        '27000: a BEFORE INSERT trigger of "orders" has changed the stream of an event', 'ok'),
    ('NEW.stream := NULL;', 'a trigger may not set the stream to NULL',
        '27000: a BEFORE INSERT trigger of "orders" has changed the stream of an event', '22004: stream must not be null'),
    ('NEW.version := 99;', 'a trigger may not change the version',
        '27000: a BEFORE INSERT trigger of "orders" has changed the version of an event',
     'SE001: stream "bad-1" is at version 0, not at the expected 98'),
    ('NEW.position := 1;', 'a trigger may not change the position',
        '27000: a BEFORE INSERT trigger of "orders" has changed the position of an event',
     '428C9: position must not be given: 1'),
    ('NEW.position := NULL;', 'a trigger may not set the position to NULL',
        '27000: a BEFORE INSERT trigger of "orders" has changed the position of an event', 'ok'),
    ('NEW.event_id := gen_random_uuid();', 'a trigger may not change the event_id',
        '27000: a BEFORE INSERT trigger of "orders" has changed the event_id of an event', 'ok'),
    ('RETURN NULL;', 'a trigger may not suppress an event', '09000: a BEFORE INSERT trigger of "orders" has suppressed an event', 'ok'),
    ('RAISE ''not so'';', 'a trigger may refuse the append', 'P0001: not so', NULL)
    ) AS c(body, why, expected, of_insert), pg_temp.with_trigger(body, why, expected, of_insert) AS t
 WHERE of_insert IS DISTINCT FROM 'ok';

-- Where INSERT differs: the trigger fires before the guard, which then takes what it left.
CREATE FUNCTION pg_temp.with_trigger_append(body text, why text, expected text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    w record;
BEGIN
    PERFORM set_before_row(body);
    FOR w IN SELECT * FROM ways WHERE way <> 'INSERT' LOOP
        RETURN NEXT is(pg_temp.go(w.way, 'bad-1'), expected, w.way || ': ' || why);
    END LOOP;
END $$;
SELECT pg_temp.with_trigger_append('NEW.stream := ''another-1'';', 'a trigger may not change the stream',
    '27000: a BEFORE INSERT trigger of "orders" has changed the stream of an event');
SELECT pg_temp.with_trigger_append('NEW.position := NULL;', 'a trigger may not set the position to NULL',
    '27000: a BEFORE INSERT trigger of "orders" has changed the position of an event');
SELECT pg_temp.with_trigger_append('NEW.event_id := gen_random_uuid();', 'a trigger may not change the event_id',
    '27000: a BEFORE INSERT trigger of "orders" has changed the event_id of an event');
SELECT pg_temp.with_trigger_append('RETURN NULL;', 'a trigger may not suppress an event',
    '09000: a BEFORE INSERT trigger of "orders" has suppressed an event');
SELECT pg_temp.with_trigger_append('IF NEW.data ->> ''n'' = ''1'' THEN RETURN NULL; END IF;', 'or the first of several',
    '09000: a BEFORE INSERT trigger of "orders" has suppressed an event');
SELECT is_empty($$ SELECT * FROM orders WHERE stream IN ('bad-1', 'another-1') AND type <> 'T' $$, 'what was refused left nothing');
SELECT set_before_row('NEW.stream := ''moved-1'';') \g /dev/null
SELECT is(pg_temp.go('INSERT', 'moved-0'), '3 rows', 'INSERT: a trigger before the guard may name another stream');
SELECT is((SELECT string_agg(version || ' ' || stream, ', ' ORDER BY position) FROM orders WHERE stream LIKE 'moved-%'),
    '1 moved-1, 2 moved-1, 3 moved-1',
          'and the events are numbered there');
SELECT set_before_row('NEW.event_id := ''00000000-0000-0000-0000-00000000000'' || (NEW.data ->> ''n'');') \g /dev/null
SELECT is(pg_temp.go('INSERT', 'ids-1'), '3 rows', 'INSERT: a trigger before the guard may give the ids');
SELECT is((SELECT max(event_id::text) FROM orders WHERE stream = 'ids-1'), '00000000-0000-0000-0000-000000000003', 'and they are stored');
SELECT set_before_row('IF NEW.data ->> ''n'' = ''2'' THEN RETURN NULL; END IF;') \g /dev/null
SELECT is(pg_temp.go('INSERT', 'some-1'), '2 rows', 'INSERT: a trigger may suppress a row, as in SQL');
SELECT is((SELECT string_agg(version || ':' || (data ->> 'n'), ' ' ORDER BY version) FROM orders WHERE stream = 'some-1'), '1:1 2:3',
    'and leaves no hole in the versions');
DROP TRIGGER a_before ON orders;

-- All kinds of triggers, how often and with what they fire.
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        INSERT INTO log (what) VALUES (format('%s row %s v%s p%s', lower(TG_WHEN), NEW.data ->> 'n', NEW.version, NEW.position IS NOT NULL));
        RETURN NEW;
    END IF;
    INSERT INTO log (what) VALUES (lower(TG_WHEN) || ' statement');
    RETURN NULL;
END $$;
CREATE FUNCTION log_table() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log (what) SELECT format('new table %s of %s', string_agg(data ->> 'n', '+' ORDER BY position), (SELECT count(*) FROM orders WHERE stream = min(added.stream))) FROM added;
    RETURN NULL;
END $$;
CREATE TRIGGER before_statement BEFORE INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION log_it();
CREATE TRIGGER before_row BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER after_row AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER after_statement AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION log_it();
CREATE TRIGGER after_table AFTER INSERT ON orders REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION log_table();
CREATE FUNCTION pg_temp.logged(way text, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    TRUNCATE log;
    result := pg_temp.go(way, name);
    RETURN result || ': ' || (SELECT string_agg(what, ', ' ORDER BY n) FROM log);
END $$;
SELECT is(pg_temp.logged('append', 'all-1'),
          '1 rows: before statement, before row 1 v1 pt, after row 1 v1 pt, after statement, new table 1 of 1',
              'append: every kind of trigger fires once');
SELECT is(pg_temp.logged('append_batch', 'all-2'),
          '3 rows: before statement, before row 1 v1 pt, before row 2 v2 pt, before row 3 v3 pt, after row 1 v1 pt, after row 2 v2 pt, after row 3 v3 pt, '
          'after statement, new table 1+2+3 of 3', 'append_batch: row triggers once per row, statement triggers once');
SELECT is(pg_temp.logged('append_json', 'all-3'),
          '2 rows: before statement, before row 1 v1 pt, before row 2 v2 pt, after row 1 v1 pt, after row 2 v2 pt, after statement, new table 1+2 of 2', 'append_json: the same');
SELECT is(pg_temp.logged('append_streams', 'all-4'),
          '2 rows: before statement, before row 1 v1 pt, before row 2 v2 pt, after row 1 v1 pt, after row 2 v2 pt, after statement, new table 1+2 of 2', 'append_streams: the same');
SELECT is(pg_temp.logged('INSERT', 'all-5'),
          '3 rows: before statement, before row 1 v pf, before row 2 v pf, before row 3 v pf, after row 1 v1 pt, after row 2 v2 pt, after row 3 v3 pt, '
          'after statement, new table 1+2+3 of 3', 'INSERT: the same, BEFORE triggers see neither version nor position yet');
DROP TRIGGER before_row ON orders;
SELECT is(pg_temp.logged('append_batch', 'all-6'),
          '3 rows: before statement, after row 1 v1 pt, after row 2 v2 pt, after row 3 v3 pt, after statement, new table 1+2+3 of 3',
          'append_batch: AFTER triggers where no BEFORE ROW trigger is');
ALTER TABLE orders DISABLE TRIGGER after_row;
SELECT is(pg_temp.logged('append', 'all-7'), '1 rows: before statement, after statement, new table 1 of 1', 'a disabled trigger does not fire');
ALTER TABLE orders ENABLE REPLICA TRIGGER after_row;
SELECT is(pg_temp.logged('append', 'all-8'), '1 rows: before statement, after statement, new table 1 of 1', 'nor one for replicas');
DROP TRIGGER before_statement ON orders;
DROP TRIGGER after_row ON orders;
DROP TRIGGER after_statement ON orders;
DROP TRIGGER after_table ON orders;

-- WHEN, constraint triggers, a trigger that fails late, one that appends.
CREATE TRIGGER selective BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.data ->> 'n' = '2') EXECUTE FUNCTION log_it();
SELECT is(pg_temp.logged('append_batch', 'when-1'), '3 rows: before row 2 v2 pt', 'a condition of a trigger is looked at');
DROP TRIGGER selective ON orders;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_it();
TRUNCATE log;
BEGIN;
SELECT pg_temp.go('append_batch', 'late-1') \g /dev/null
SELECT count(*) AS soon FROM log \gset
COMMIT;
SELECT is(:soon || ' then ' || (SELECT string_agg(what, ', ' ORDER BY n) FROM log),
    '0 then after row 1 v1 pt, after row 2 v2 pt, after row 3 v3 pt',
          'a deferred constraint trigger fires at commit');
DROP TRIGGER late ON orders;
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.type = 'T' THEN
        PERFORM event_store.append('orders', NEW.stream, 'Followed', jsonb_build_object('n', 10 + (NEW.data ->> 'n')::int));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER follow AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION follow();
SELECT is(pg_temp.go(way, 'follow-' || i), CASE way WHEN 'append' THEN '1 rows' WHEN 'INSERT' THEN '3 rows' ELSE n || ' rows' END,
    way || ': an AFTER trigger may append to the same stream')
  FROM ways WHERE way IN ('append', 'append_batch', 'INSERT');
SELECT is((SELECT string_agg(version || ':' || (data ->> 'n'), ' ' ORDER BY version) FROM orders WHERE stream = name), stored,
    name || ' has no hole in its versions')
  FROM (VALUES ('follow-1', '1:1 2:11'), ('follow-2', '1:1 2:2 3:3 4:11 5:12 6:13'), ('follow-5', '1:1 2:2 3:3 4:11 5:12 6:13')) AS c(name,
      stored);
DROP TRIGGER follow ON orders;
-- A BEFORE ROW trigger that appends to the stream that is being appended to takes its version.
CREATE TRIGGER follow BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.type = 'T') EXECUTE FUNCTION follow();
SELECT is(pg_temp.go('append', 'nested-1'), 'SE001: stream "nested-1" has been appended to in the middle of this append',
          'append: a BEFORE trigger that appends to the same stream takes the version away: an error, no hole');
SELECT is(pg_temp.go('INSERT', 'nested-2'), '3 rows', 'INSERT: a BEFORE trigger that appends to the same stream comes first');
SELECT is((SELECT string_agg(version || ':' || (data ->> 'n'), ' ' ORDER BY version) FROM orders WHERE stream = 'nested-2'),
    '1:11 2:1 3:12 4:2 5:13 6:3',
          'and the guard goes on from it');
DROP TRIGGER follow ON orders;
SELECT is_empty('SELECT stream FROM orders GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1',
    'no stream has a hole in its versions');

-- The same rules where row-level security makes appends go through the executor.
CREATE ROLE es_triggers_writer;
GRANT SELECT, INSERT ON orders TO es_triggers_writer;
GRANT ALL ON ways, log, log_n_seq TO es_triggers_writer;
CREATE POLICY everything ON orders USING (true);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE TRIGGER a_before BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION before_row();
CREATE FUNCTION pg_temp.as_writer(body text, why text, expected text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    w record;
    result text;
BEGIN
    PERFORM set_before_row(body);
    FOR w IN SELECT * FROM ways WHERE way <> 'INSERT' LOOP
        SET LOCAL ROLE es_triggers_writer;
        result := pg_temp.go(w.way, 'policy-' || w.i);
        RESET ROLE;
        RETURN NEXT matches(result, expected, format('%s under row-level security: %s', w.way, why));
    END LOOP;
END $$;
SELECT pg_temp.as_writer('NEW.stream := ''another-1'';', 'a trigger may not change the stream', '^(27000|09000|SE001): ');
SELECT pg_temp.as_writer('NEW.version := 99;', 'a trigger may not change the version', '^(27000|09000|SE001): ');
SELECT pg_temp.as_writer('NEW.event_id := gen_random_uuid();', 'a trigger may not change the event_id', '^27000: ');
SELECT pg_temp.as_writer('RETURN NULL;', 'a trigger may not suppress an event', '^(27000|09000): ');
SELECT pg_temp.as_writer('NEW.type := '''';', 'an empty type from a trigger is refused', '^22023: type must not be empty');
SELECT pg_temp.as_writer('NEW.data := NEW.data || ''{"by": "trigger"}'';', 'a trigger may change the data', '^\d rows$');
SELECT is_empty($$ SELECT * FROM orders WHERE stream LIKE 'policy-%' AND data ->> 'by' IS DISTINCT FROM 'trigger' $$,
    'what was refused left nothing');

DROP OWNED BY es_triggers_writer;
DROP ROLE es_triggers_writer;
SELECT * FROM finish();
