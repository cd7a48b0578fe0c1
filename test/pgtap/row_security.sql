-- Row-level security on an event table is honoured on every path: policies for
-- INSERT by every way to append, those for SELECT by every way to read.
SET client_min_messages = warning;
SELECT plan(257);

CREATE ROLE es_policies_owner;
CREATE ROLE es_policies_user;
CREATE ROLE es_policies_writer;
CREATE ROLE es_policies_free BYPASSRLS;
CREATE SCHEMA shop AUTHORIZATION es_policies_owner;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
SET ROLE es_policies_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
ALTER TABLE shop.orders ADD COLUMN added_by name DEFAULT current_user;
GRANT SELECT, INSERT ON shop.orders TO es_policies_user, es_policies_free;
GRANT INSERT ON shop.orders TO es_policies_writer;
-- Positions: own-1 has 1 and 4, other-1 2 and 5, own-2 3 and 6, other-2 7.
SELECT event_store.append('shop.orders', s, 'T' || i, to_jsonb(i), correlation_id => 'c',
    event_id => ('00000000-0000-0000-0000-00000000000' || i)::uuid)
  FROM (VALUES (1, 'own-1'), (2, 'other-1'), (3, 'own-2'), (4, 'own-1'), (5, 'other-1'), (6, 'own-2'), (7, 'other-2')) AS c(i, s) \g /dev/null
SELECT event_store.save_snapshot('shop.orders', 'own-1', 1, '{}') \g /dev/null
CREATE POLICY reading ON shop.orders FOR SELECT USING (stream LIKE 'own-%');
CREATE POLICY writing ON shop.orders FOR INSERT WITH CHECK (stream LIKE 'own-%' AND data <> '"forbidden"');
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
RESET ROLE;

CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT coalesce(string_agg(q::text, '' ''), ''nothing'') FROM (%s) q', query) INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

CREATE FUNCTION types(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT to_jsonb(10 * state::int + substr(event.type, 2)::int) $$;
SELECT event_store.create_aggregate('types', 'types(jsonb, event_store.event)', '0') \g /dev/null

-- Reading: what a role without policies sees, and what one with them does.
CREATE TABLE reads (description text, query text, for_all text, for_user text);
GRANT SELECT ON reads TO PUBLIC;
INSERT INTO reads VALUES
    ('SELECT', $$ SELECT position FROM shop.orders ORDER BY position $$, '(1) (2) (3) (4) (5) (6) (7)', '(1) (3) (4) (6)'),
    ('read_stream, a visible stream',
        $$ SELECT version, position, type, data, correlation_id FROM event_store.read_stream('shop.orders', 'own-1') $$,
        '(1,1,T1,1,c) (2,4,T4,4,c)', '(1,1,T1,1,c) (2,4,T4,4,c)'),
    ('read_stream, a hidden stream', $$ SELECT version FROM event_store.read_stream('shop.orders', 'other-1') $$, '(1) (2)', 'nothing'),
    ('read_stream backward', $$ SELECT version FROM event_store.read_stream('shop.orders', 'own-1', direction => 'backward') $$, '(2) (1)',
        '(2) (1)'),
    ('read_stream from a version, one event', $$ SELECT version FROM event_store.read_stream('shop.orders', 'own-1', 2, 1) $$, '(2)', '(2)'),
    ('stream_version of a visible stream', $$ SELECT event_store.stream_version('shop.orders', 'own-2') $$, '(2)', '(2)'),
    ('stream_version of a hidden stream', $$ SELECT event_store.stream_version('shop.orders', 'other-1') $$, '(2)', '(0)'),
    ('last_event of a visible stream', $$ SELECT position FROM event_store.last_event('shop.orders', 'own-1') $$, '(4)', '(4)'),
    ('last_event of a type', $$ SELECT position FROM event_store.last_event('shop.orders', 'own-1', 'T1') $$, '(1)', '(1)'),
    ('last_event of a hidden stream', $$ SELECT position FROM event_store.last_event('shop.orders', 'other-1') $$, '(5)', 'nothing'),
    ('read_event, visible', $$ SELECT position FROM event_store.read_event('shop.orders', '00000000-0000-0000-0000-000000000003') $$, '(3)',
        '(3)'),
    ('read_event, hidden', $$ SELECT position FROM event_store.read_event('shop.orders', '00000000-0000-0000-0000-000000000002') $$, '(2)',
        'nothing'),
    ('last_position', $$ SELECT event_store.last_position('shop.orders') $$, '(7)', '(6)'),
    ('position_at', $$ SELECT event_store.position_at('shop.orders', 'infinity') $$, '(7)', '(6)'),
    ('streams', $$ SELECT stream, version, last_position FROM event_store.streams('shop.orders') $$,
        '(other-1,2,5) (other-2,1,7) (own-1,2,4) (own-2,2,6)', '(own-1,2,4) (own-2,2,6)'),
    ('streams of a hidden category', $$ SELECT stream FROM event_store.streams('shop.orders', 'other') $$, '(other-1) (other-2)', 'nothing'),
    ('read_all', $$ SELECT position FROM event_store.read_all('shop.orders') $$, '(1) (2) (3) (4) (5) (6) (7)', '(1) (3) (4) (6)'),
    ('read_all after, limited', $$ SELECT position FROM event_store.read_all('shop.orders', 1, 2) $$, '(2) (3)', '(3) (4)'),
    ('read_all backward', $$ SELECT position FROM event_store.read_all('shop.orders', before => 6, direction => 'backward') $$,
        '(5) (4) (3) (2) (1)', '(4) (3) (1)'),
    ('read_all with types', $$ SELECT position FROM event_store.read_all('shop.orders', types => '{T1,T2,T3}') $$, '(1) (2) (3)', '(1) (3)'),
    ('read_all with streams', $$ SELECT position FROM event_store.read_all('shop.orders', streams => '{other-1,own-2}') $$, '(2) (3) (5) (6)',
        '(3) (6)'),
    ('read_all with categories', $$ SELECT position FROM event_store.read_all('shop.orders', categories => '{other}') $$, '(2) (5) (7)',
        'nothing'),
    ('read_all with correlation_id', $$ SELECT position FROM event_store.read_all('shop.orders', correlation_id => 'c', after => 2) $$,
        '(3) (4) (5) (6) (7)', '(3) (4) (6)'),
    ('read_category, visible', $$ SELECT position FROM event_store.read_category('shop.orders', 'own', 3) $$, '(4) (6)', '(4) (6)'),
    ('read_category, hidden', $$ SELECT position FROM event_store.read_category('shop.orders', 'other') $$, '(2) (5) (7)', 'nothing'),
    ('read_batch', $$ SELECT checkpoint, checkpoint_event_id, jsonb_path_query_array(events, '$[*].position') FROM event_store.read_batch('shop.orders') $$,
     '(7,00000000-0000-0000-0000-000000000007,"[1, 2, 3, 4, 5, 6, 7]")', '(6,00000000-0000-0000-0000-000000000006,"[1, 3, 4, 6]")'),
    ('read_batch of two', $$ SELECT checkpoint, jsonb_path_query_array(events, '$[*].position') FROM event_store.read_batch('shop.orders', 1, 2) $$, '(3,"[2, 3]")', '(4,"[3, 4]")'),
    ('read_batch whose filter lets nothing through',
        $$ SELECT checkpoint, events FROM event_store.read_batch('shop.orders', types => '{None}') $$, '(7,[])', '(6,[])'),
    ('read_all with after_event_id',
        $$ SELECT position FROM event_store.read_all('shop.orders', 4, after_event_id => '00000000-0000-0000-0000-000000000004') $$,
        '(5) (6) (7)', '(6)'),
    ('read_all with a hidden after_event_id',
        $$ SELECT position FROM event_store.read_all('shop.orders', 5, after_event_id => '00000000-0000-0000-0000-000000000005') $$, '(6) (7)',
        'SE009'),
    ('load, a visible stream', $$ SELECT version, state FROM event_store.load('shop.orders', 'own-1', 'types') $$, '(2,14)', '(2,14)'),
    ('load, a hidden stream', $$ SELECT version, state FROM event_store.load('shop.orders', 'other-1', 'types') $$, '(2,25)', '(0,0)'),
    ('load_category, visible', $$ SELECT stream, state FROM event_store.load_category('shop.orders', 'own', 'types') $$, '(own-1,14) (own-2,36)', '(own-1,14) (own-2,36)'),
    ('load_category, hidden', $$ SELECT stream, state FROM event_store.load_category('shop.orders', 'other', 'types') $$, '(other-1,25) (other-2,7)', 'nothing'),
    ('read_stream_from_snapshot, hidden', $$ SELECT version FROM event_store.read_stream_from_snapshot('shop.orders', 'other-1', '') $$, '(2)', '(0)'),
    ('load_snapshot', $$ SELECT version FROM event_store.load_snapshot('shop.orders', 'own-1') $$, '(1)', 'nothing');
SELECT is(pg_temp.rows_of(query), for_all, 'superuser: ' || description) FROM reads;
SET ROLE es_policies_free;
SELECT is(pg_temp.rows_of(query), for_all, 'BYPASSRLS: ' || description) FROM reads;
SET ROLE es_policies_owner;
SELECT is(pg_temp.rows_of(query), for_all, 'owner: ' || description) FROM reads;
SET ROLE es_policies_user;
SELECT is(pg_temp.rows_of(query), for_user, 'with policies: ' || description) FROM reads;
SET ROLE es_policies_owner;
ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY;
SELECT is(pg_temp.rows_of(query), for_user, 'owner under FORCE: ' || description) FROM reads;
ALTER TABLE shop.orders NO FORCE ROW LEVEL SECURITY;
SET ROLE es_policies_user;
SET row_security = off;
SELECT throws_ok(query, '42501', 'query would be affected by row-level security policy for table "orders"',
    'row_security = off is an error, not a leak: ' || description) FROM reads;
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'own-1', 'T', '{}') $$, '42501',
    'query would be affected by row-level security policy for table "orders"', 'append() with row_security = off');
RESET row_security;
RESET ROLE;

-- Writing.
CREATE FUNCTION pg_temp.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    IF command ~ '^\s*INSERT' THEN
        EXECUTE command;
    ELSE
        EXECUTE format('SELECT a.last_version || '' '' || a.duplicate FROM %s AS a', command) INTO result;
    END IF;
    RETURN coalesce(result, 'done');
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE TABLE writes (who text, description text, command text, expected text);
GRANT SELECT ON writes TO PUBLIC;
INSERT INTO writes
    SELECT who, way || ': ' || description, format(command, replace(stream, '%', who), data), CASE WHEN allowed IS NULL
        THEN '42501: new row violates row-level security policy for table "orders"' ELSE allowed END
      FROM (VALUES ('user'), ('writer')) AS w(who),
           (VALUES ('append', $$ event_store.append('shop.orders', %1$L, 'T', %2$L, 0) $$, '1 false'),
                   ('append_batch', $$ event_store.append_batch('shop.orders', %1$L, '{T,T}', ARRAY['1', %2$L]::jsonb[], 0) $$, '2 false'),
                   ('append_json', $$ event_store.append_json('shop.orders', %1$L, jsonb_build_array('{"type": "T", "data": 1}'::jsonb, jsonb_build_object('type', 'T', 'data', %2$L::jsonb)), 0) $$, '2 false'),
                   ('append_streams', $$ event_store.append_streams('shop.orders', jsonb_build_array(jsonb_build_object('stream', %1$L::text, 'expected_version', 0, 'events',
                                            jsonb_build_array('{"type": "T", "data": 1}'::jsonb, jsonb_build_object('type', 'T', 'data', %2$L::jsonb))))) $$, '2 false'),
                   ('INSERT', $$ INSERT INTO shop.orders (stream, type, data) VALUES (%1$L, 'T', '1'), (%1$L, 'T', %2$L) $$, 'done')) AS c(way,
                       command, ok),
           LATERAL (VALUES ('what the policy allows', 'own-%-' || way, '1', ok),
                           ('a stream that the policy forbids', 'foreign-%-' || way, '1', NULL),
                           ('data that the policy forbids, in the last event', 'own-%-no-' || way, '"forbidden"', NULL)) AS d(description,
                               stream, data, allowed);
SET ROLE es_policies_user;
SELECT is(pg_temp.outcome(command), expected, 'with policies: ' || description) FROM writes WHERE who = 'user';
SET ROLE es_policies_writer;
SELECT is(pg_temp.outcome(command), expected, 'INSERT only, with policies: ' || description) FROM writes WHERE who = 'writer';
RESET ROLE;
SELECT is((SELECT string_agg(stream || ' ' || version, ', ' ORDER BY position) FROM event_store.read_all('shop.orders', 7)),
          (SELECT string_agg(format('own-%s-%s %s', who, way, v), ', ' ORDER BY who, ord, v)
             FROM (VALUES ('user'), ('writer')) AS w(who), (VALUES (1, 'append', 1), (2, 'append_batch', 2), (3, 'append_json', 2), (4,
                 'append_streams', 2), (5, 'INSERT', 2)) AS c(ord, way, n),
                  LATERAL generate_series(1, n) AS v), 'what was allowed is stored, what was not has left nothing');
SELECT is((SELECT array_agg(DISTINCT added_by ORDER BY added_by) FROM shop.orders WHERE position > 7), '{es_policies_user,es_policies_writer}',
    'defaults are evaluated as the caller');

-- Results, expected versions and idempotency are as without policies.
SET ROLE es_policies_user;
SELECT is((SELECT concat_ws(' ', first_version, last_version, last_position - first_position, cardinality(event_ids), duplicate)
    FROM event_store.append_batch('shop.orders', 'own-9', '{A,B,C}', '{1,2,3}', 0)),
          '1 3 2 3 f', 'append_batch() returns versions, positions and ids');
SELECT first_position, event_ids FROM event_store.append_batch('shop.orders', 'own-9', '{A,B}', '{4,5}', 3) \gset
SELECT is((SELECT concat(array_agg(event_id ORDER BY version), ' ', min(position)) FROM event_store.read_stream('shop.orders', 'own-9', 4)),
          concat(:'event_ids', ' ', :first_position), 'these are what is stored');
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'own-9', 'T', '{}', 2) $$, 'SE001', NULL, 'a wrong expected version');
SELECT is((event_store.append('shop.orders', 'own-1', 'T1', '1', 0, '00000000-0000-0000-0000-000000000001')).duplicate, true,
    'a repeated append');
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'own-3', 'T', '{}', 0, '00000000-0000-0000-0000-000000000001') $$, 'SE003', NULL,
    'an id of another event');
SELECT is((SELECT count(*) FROM event_store.append_streams('shop.orders', (SELECT jsonb_agg(jsonb_build_object('stream', 'own-many-' || i,
    'expected_version', 0, 'events', '[{"type": "T", "data": 1}]'::jsonb))
              FROM generate_series(1, 1001) AS i))), 1001::bigint, 'more than 1,000 streams');
SELECT throws_ok('DELETE FROM shop.orders', '42501', NULL, 'policies give no right to DELETE');
RESET ROLE;
GRANT UPDATE, DELETE ON shop.orders TO es_policies_user;
SET ROLE es_policies_user;
SELECT throws_ok('DELETE FROM shop.orders', 'SE002', NULL,
    'where there are no policies for DELETE, so that no row matches, it is refused all the same');
RESET ROLE;

DROP SCHEMA shop CASCADE;
DROP ROLE es_policies_owner, es_policies_user, es_policies_writer, es_policies_free;
SELECT * FROM finish();
