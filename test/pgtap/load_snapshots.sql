-- Snapshots in folds: used where they are right, ignored where they are not; by
-- policy, pruned, verified; and what a client needs to fold by itself.
SET client_min_messages = error;    -- warnings are looked at one by one
SELECT plan(90);

\ir include/error_of.sql
\ir include/rows_of.sql

-- A fold that shows its order, and one that has to start over with each schema version.
CREATE FUNCTION listed(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state || to_jsonb(event.version)';
SELECT event_store.create_aggregate('list', 'listed(jsonb, event_store.event)', '[]', 5) \g /dev/null
SELECT event_store.create_aggregate('list2', 'listed(jsonb, event_store.event)', '[]', 5, 2) \g /dev/null

-- For random streams, every version, every time and every way: the fold in plain
-- SQL is the truth.  A restore brings events whose clock goes back and forth.
SELECT setseed(0.5) \g /dev/null
SELECT event_store.create_event_table('log') \g /dev/null
SET session_replication_role = replica;
INSERT INTO log (position, stream, version, event_id, type, schema_version, data, occurred_at, recorded_at)
SELECT row_number() OVER (), stream, version, gen_random_uuid(), 'T', 1, '{}',
       CASE WHEN random() < 0.5 THEN timestamptz '2026-01-01' + random() * interval '40 days' END,
       timestamptz '2026-01-01' + version * interval '1 day' + CASE WHEN random() < 0.2 THEN (random() - 0.5) * interval '10 days' ELSE '0' END
  FROM (SELECT 's-' || s AS stream, (random() * 30)::int AS length FROM generate_series(1, 30) s) s, generate_series(1, length) AS version;
RESET session_replication_role;
SELECT setval('log_position_seq', (SELECT max(position) FROM log)) \g /dev/null
-- Right ones, and many that are none of the aggregate's business.
SELECT event_store.save_snapshot('log', stream, version, (SELECT jsonb_agg(v) FROM generate_series(1, version) v), 'list') FROM log WHERE random() < 0.2 \g /dev/null
SELECT event_store.save_snapshot('log', stream, version, '["foreign"]', aggregate, f.schema_version)
  FROM log, (VALUES ('list', 2), ('list', 3), ('list2', 1), ('', 1)) AS f(aggregate, schema_version) WHERE random() < 0.5 \g /dev/null
CREATE TABLE truth AS
SELECT s.stream, t.at_version, t.as_of, t.occurred_as_of, coalesce(max(e.version), 0) AS version,
       coalesce(jsonb_agg(e.version ORDER BY CASE WHEN t.occurred_as_of IS NOT NULL THEN coalesce(e.occurred_at, e.recorded_at) END, e.version)
                FILTER (WHERE e.version IS NOT NULL), '[]') AS state
  FROM (SELECT DISTINCT stream FROM log UNION ALL SELECT 's-none') s
 CROSS JOIN LATERAL (
       SELECT v, NULL::timestamptz, NULL::timestamptz FROM generate_series(0, (SELECT coalesce(max(version), 0) FROM log l WHERE l.stream = s.stream) + 2) v
       UNION ALL SELECT NULL, timestamptz '2026-01-01' + d * interval '1 day', NULL FROM generate_series(-1, 40, 2) d
       UNION ALL SELECT NULL, NULL, timestamptz '2026-01-01' + d * interval '1 day' FROM generate_series(-1, 50, 5) d
       UNION ALL SELECT d / 2, timestamptz '2026-01-01' + d * interval '1 day', NULL FROM generate_series(1, 40, 7) d
       UNION ALL SELECT NULL, timestamptz '2026-01-01' + d * interval '1 day', timestamptz '2026-01-01' + d * interval '1 day' FROM generate_series(1, 40, 7) d
       UNION ALL SELECT NULL, NULL, NULL) t(at_version, as_of, occurred_as_of)
  LEFT JOIN log e ON e.stream = s.stream
        AND (t.at_version IS NULL OR e.version <= t.at_version)
        AND (t.as_of IS NULL OR e.version <= (SELECT max(version) FROM log m WHERE m.stream = s.stream AND m.recorded_at <= t.as_of))
        AND (t.occurred_as_of IS NULL OR coalesce(e.occurred_at, e.recorded_at) <= t.occurred_as_of)
 GROUP BY s.stream, t.at_version, t.as_of, t.occurred_as_of;
CREATE TABLE loaded AS
SELECT t.*, u.use_snapshot, a.aggregate, l.version AS loaded_version, l.state AS loaded_state, l.events_folded, l.snapshot_version
  FROM truth t, (VALUES (true), (false)) AS u(use_snapshot), (VALUES ('list')) AS a(aggregate),
       event_store.load('log', t.stream, a.aggregate, t.at_version, t.as_of, t.occurred_as_of, u.use_snapshot) l;
SELECT cmp_ok((SELECT count(*) FROM truth), '>', 1500::bigint, 'there is something to compare');
SELECT is_empty($$ SELECT * FROM loaded WHERE state <> loaded_state OR version <> loaded_version $$, 'every load is the fold in SQL');
SELECT is_empty($$ SELECT * FROM loaded WHERE NOT use_snapshot AND snapshot_version IS NOT NULL $$, 'without use_snapshot there is none');
SELECT is_empty($$ SELECT * FROM loaded WHERE occurred_as_of IS NOT NULL AND snapshot_version IS NOT NULL $$, 'nor in the order of time');
SELECT is_empty($$ SELECT * FROM loaded WHERE events_folded <> jsonb_array_length(state) - coalesce(snapshot_version, 0) $$, 'events_folded is what the snapshot saves');
SELECT is_empty($$ SELECT * FROM loaded l WHERE use_snapshot AND occurred_as_of IS NULL AND snapshot_version IS DISTINCT FROM (SELECT max(version) FROM event_store.snapshots s
                     WHERE s.event_table = 'log'::regclass AND s.stream = l.stream AND s.aggregate = l.aggregate AND s.schema_version = 1 AND s.version <= l.version) $$,
                'the newest that fits is used, of this aggregate and schema version');
SELECT cmp_ok((SELECT count(*) FROM loaded WHERE snapshot_version IS NOT NULL), '>', 300::bigint, 'which is so for many');
SELECT is((SELECT count(*) FROM event_store.streams('log') s, event_store.load('log', s.stream, 'list2') l WHERE l.snapshot_version IS NOT NULL AND l.state -> 0 <> '"foreign"'), 0::bigint, 'of another schema version, others');
SELECT is_empty($$ SELECT * FROM event_store.verify_snapshots('log', 'list') $$, 'verify_snapshots() finds all in order');

-- A snapshot that is not right: of a version that the stream has not, or without a state.
SET client_min_messages = warning;
SELECT event_store.create_event_table('odd') \g /dev/null
SELECT event_store.append_batch('odd', 'a-1', '{T,T,T}', '{1,2,3}') \g /dev/null
SELECT event_store.append_batch('odd', 'a-2', '{T,T,T,T}', '{1,2,3,4}') \g /dev/null
SELECT event_store.save_snapshot('odd', 'a-1', 1, '[1]', 'list') \g /dev/null
INSERT INTO event_store.snapshots VALUES ('odd', 'a-1', 'list', 1, 7, '["future"]'), ('odd', 'a-1', 'list', 1, 9, '["future"]'), ('odd', 'a-3', 'list', 1, 2, '["nothing"]');
SET client_min_messages = error;
SELECT is(pg_temp.rows_of(format($$ SELECT * FROM event_store.load('odd', %s) $$, arguments)), expected, 'a snapshot beyond the end is ignored: ' || description)
  FROM (VALUES ($$ 'a-1', 'list' $$, '(3,"[1, 2, 3]",2,1)', 'the one before it is used'),
               ($$ 'a-1', 'list', 8 $$, '(3,"[1, 2, 3]",2,1)', 'at a version beyond the end'),
               ($$ 'a-1', 'list', 2 $$, '(2,"[1, 2]",1,1)', 'at a version before it'),
               ($$ 'a-1', 'list', as_of => 'infinity' $$, '(3,"[1, 2, 3]",2,1)', 'as of a time'),
               ($$ 'a-3', 'list' $$, '(0,[],0,)', 'of a stream that does not exist')) AS c(arguments, expected, description);
SELECT is(pg_temp.rows_of($$ SELECT version, state FROM event_store.load_snapshot('odd', 'a-1', 'list') $$), '(1,[1])', 'load_snapshot() ignores it too');
SELECT is(pg_temp.rows_of($$ SELECT snapshot_version, version FROM event_store.read_stream_from_snapshot('odd', 'a-1', 'list') $$), '(1,3)', 'and read_stream_from_snapshot()');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.verify_snapshots('odd', 'list') $$), '(a-1,7,"[""future""]",) (a-1,9,"[""future""]",) (a-3,2,"[""nothing""]",)', 'verify_snapshots() finds it');
DELETE FROM event_store.snapshots WHERE version > 3 OR stream = 'a-3';
ALTER TABLE event_store.snapshots ALTER COLUMN state DROP NOT NULL;
INSERT INTO event_store.snapshots VALUES ('odd', 'a-1', 'list', 1, 3, NULL);
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load('odd', 'a-1', 'list') $$), '(3,"[1, 2, 3]",2,1)', 'one without a state is ignored');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.verify_snapshots('odd', 'list') $$), '(a-1,3,,"[1, 2, 3]")', 'verify_snapshots() finds it');
DELETE FROM event_store.snapshots WHERE state IS NULL;
ALTER TABLE event_store.snapshots ALTER COLUMN state SET NOT NULL;
SELECT event_store.save_snapshot('odd', 'a-2', 2, '["wrong"]', 'list') \g /dev/null
SELECT event_store.save_snapshot('odd', 'a-2', 4, '[1, 2, 3, 4]', 'list') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.verify_snapshots('odd', 'list') $$), '(a-2,2,"[""wrong""]","[1, 2]")', 'one that is wrong is found, right ones around it are not');
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.verify_snapshots('odd', 'list2') $$), 'nothing', 'of one aggregate only');
DELETE FROM event_store.snapshots;

-- By policy.
SELECT event_store.create_event_table('shop') \g /dev/null
SELECT event_store.append_batch('shop', s, array_fill('T'::text, ARRAY[n]), array_fill('1'::jsonb, ARRAY[n]))
  FROM (VALUES ('order-1', 4), ('order-2', 5), ('order-3', 12), ('order!x', 6), ('order', 7), ('order-', 8), ('cart-1', 9)) AS x(s, n) \g /dev/null
CREATE FUNCTION pg_temp.saved() RETURNS text LANGUAGE sql AS $$ SELECT coalesce(string_agg(stream || ':' || version, ' ' ORDER BY stream, version), 'none') FROM event_store.snapshots WHERE event_table = 'shop'::regclass AND aggregate = 'list' $$;
SELECT is(event_store.take_snapshots('shop', 'list', 'order', 2), 2::bigint, 'take_snapshots() saves no more than max_count');
SELECT is(pg_temp.saved(), 'order:7 order-:8', 'of one category, in the order of the names');
SELECT is(event_store.take_snapshots('shop', 'list', 'order'), 2::bigint, 'the next call goes on');
SELECT is(pg_temp.saved(), 'order:7 order-:8 order-2:5 order-3:12', 'with those that have as many events as the policy says');
SELECT is(event_store.take_snapshots('shop', 'list', 'order'), 0::bigint, 'then there is nothing to do');
SELECT is(event_store.take_snapshots('shop', 'list', max_count => 0), 0::bigint, 'or nothing wanted');
SELECT is(event_store.take_snapshots('shop', 'list'), 2::bigint, 'of all streams');
SELECT is(pg_temp.saved(), 'cart-1:9 order:7 order!x:6 order-:8 order-2:5 order-3:12', 'whatever their category');
SELECT event_store.append_batch('shop', 'order-2', '{T,T,T,T}', '{1,1,1,1}') \g /dev/null
SELECT is(event_store.take_snapshots('shop', 'list'), 0::bigint, 'a stream that has not grown enough');
SELECT event_store.append('shop', 'order-2', 'T', '1') \g /dev/null
SELECT event_store.append('shop', 'order-1', 'T', '1') \g /dev/null
SELECT is(event_store.take_snapshots('shop', 'list'), 2::bigint, 'and when it has');
SELECT is(pg_temp.saved(), 'cart-1:9 order:7 order!x:6 order-:8 order-1:5 order-2:5 order-2:10 order-3:12', 'the older one stays');
SELECT is_empty($$ SELECT * FROM event_store.verify_snapshots('shop', 'list') $$, 'they are right');
SELECT is((SELECT sum(l.events_folded) FROM event_store.load_category('shop', 'order', 'list') l), 0::numeric, 'and used');
SELECT event_store.create_aggregate('list', 'listed(jsonb, event_store.event)', '[0]', 5, 2, or_replace => true) \g /dev/null
SELECT is((SELECT count(snapshot_version) || ' ' || bool_and(state -> 0 = '0') FROM event_store.load_category('shop', 'order', 'list') l), '0 true', 'not when the schema version has risen');
SELECT is(event_store.take_snapshots('shop', 'list', 'order', 1), 1::bigint, 'then they are taken anew');
SELECT is(pg_temp.rows_of($$ SELECT state, snapshot_version FROM event_store.load('shop', 'order', 'list') $$), '("[0, 1, 2, 3, 4, 5, 6, 7]",7)', 'and used');
BEGIN;
SELECT event_store.append_batch('shop', 'order-7', '{T,T,T,T,T,T}', '{1,2,3,4,5,6}') \g /dev/null
SELECT event_store.take_snapshots('shop', 'list', 'order') \g /dev/null
SELECT is((SELECT max(version) FROM event_store.snapshots WHERE stream = 'order-7'), 6::bigint, 'of own uncommitted events too');
ROLLBACK;
SELECT is((SELECT count(*) FROM event_store.snapshots WHERE stream = 'order-7'), 0::bigint, 'with which they go');
CREATE FUNCTION poison(state jsonb, event event_store.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT to_jsonb(1 / (event.version - 11))';
SELECT event_store.create_aggregate('poison', 'poison(jsonb, event_store.event)', '[]', 1) \g /dev/null
SELECT event_store.create_aggregate('never') \g /dev/null
SELECT is(pg_temp.rows_of(format('SELECT event_store.take_snapshots(%s)', arguments)), expected, 'take_snapshots: ' || description)
  FROM (VALUES ($$ 'shop', 'poison' $$, '22012: division by zero', 'an error in the reducer'),
               ($$ 'shop', 'never' $$, '22023: aggregate "never" has no snapshot_every', 'an aggregate without a policy'),
               ($$ 'shop', 'none' $$, '42704: aggregate "none" does not exist', 'no aggregate'),
               ($$ 'shop', NULL $$, '22004: aggregate must not be null', 'NULL'),
               ($$ 'shop', 'list', max_count => -1 $$, '22023: max_count must not be negative, but is -1', 'a negative number'),
               ($$ 'shop', 'list', 'nothing' $$, '(0)', 'an empty category')) AS c(arguments, expected, description);
BEGIN READ ONLY;
SELECT throws_ok($$ SELECT event_store.take_snapshots('shop', 'list') $$, '25006', 'cannot execute take_snapshots() in a read-only transaction', 'taking snapshots writes');
ROLLBACK;

-- Pruning.
DELETE FROM event_store.snapshots;
SELECT event_store.save_snapshot('shop', stream, version, '[]', aggregate, schema_version) FROM (VALUES ('list', 1), ('list', 2), ('by hand', 1), ('by hand', 2)) AS a(aggregate, schema_version),
    (VALUES ('order-2', 3), ('order-2', 5), ('order-2', 9), ('order-3', 1)) AS v(stream, version) \g /dev/null
SELECT event_store.save_snapshot('log', 's-1', 1, '[]', 'list') \g /dev/null
CREATE FUNCTION pg_temp.kept() RETURNS text LANGUAGE sql AS
    $$ SELECT coalesce(string_agg(aggregate || schema_version || ':' || versions, ' ' ORDER BY aggregate, schema_version), 'none') FROM (SELECT aggregate, schema_version, string_agg(substr(stream, 7) || '@' || version, ',' ORDER BY stream, version) AS versions
       FROM event_store.snapshots WHERE event_table = 'shop'::regclass GROUP BY aggregate, schema_version) s $$;
CREATE FUNCTION pg_temp.pruned(arguments text) RETURNS text LANGUAGE plpgsql AS
    $$ DECLARE n bigint; BEGIN EXECUTE format('SELECT event_store.prune_snapshots(%s)', arguments) INTO n; RETURN n || ' ' || pg_temp.kept(); END $$;
BEGIN;
SELECT is(event_store.prune_snapshots('shop'), 10::bigint, 'prune_snapshots() says how many have gone');
SELECT is(pg_temp.kept(), 'by hand1:2@9,3@1 by hand2:2@9,3@1 list2:2@9,3@1', 'the newest of each schema version stay, but of a registered aggregate only of its own');
SELECT is(event_store.prune_snapshots('shop'), 0::bigint, 'then there are none to prune');
ROLLBACK;
BEGIN;
SELECT is(pg_temp.pruned($$ 'shop', 2 $$), '7 by hand1:2@5,2@9,3@1 by hand2:2@5,2@9,3@1 list2:2@5,2@9,3@1', 'the two newest');
ROLLBACK;
BEGIN;
SELECT is(pg_temp.pruned($$ 'shop', aggregate => 'by hand' $$), '4 by hand1:2@9,3@1 by hand2:2@9,3@1 list1:2@3,2@5,2@9,3@1 list2:2@3,2@5,2@9,3@1', 'of one aggregate');
ROLLBACK;
BEGIN;
SELECT is(pg_temp.pruned($$ 'shop', 0 $$), '16 none', 'all');
SELECT is((SELECT count(*) FROM event_store.snapshots), 1::bigint, 'those of other tables stay');
ROLLBACK;
SELECT is(pg_temp.rows_of(format('SELECT event_store.prune_snapshots(%s)', arguments)), expected, 'prune_snapshots: ' || description)
  FROM (VALUES ($$ 'shop', -1 $$, '22023: keep must not be negative, but is -1', 'a negative number'),
               ($$ 'shop', NULL $$, '22004: keep must not be null', 'NULL'),
               ($$ 'shop', 1, 'none' $$, '(0)', 'an aggregate that has none')) AS c(arguments, expected, description);

-- For a client.
DELETE FROM event_store.snapshots;
SELECT event_store.append_batch('shop', 'client-1', '{A,B,C}', ARRAY['{"n": 1}', '[2]', 'null']::jsonb[], metadata => ARRAY['{"by": "me"}', NULL, NULL]::jsonb[], correlation_id => 'c') \g /dev/null
SELECT is((SELECT events FROM event_store.read_stream_from_snapshot('shop', 'client-1', 'any')),
    (SELECT events FROM event_store.read_batch('shop', streams => '{client-1}')), 'read_stream_from_snapshot() gives events as read_batch() does');
SELECT is(pg_temp.rows_of($$ SELECT snapshot_version, state, version, jsonb_array_length(events) FROM event_store.read_stream_from_snapshot('shop', 'client-1', 'any') $$), '(,,3,3)', 'without a snapshot all of them');
SELECT event_store.save_snapshot('shop', 'client-1', 2, '{"n": 2}', 'any') \g /dev/null
SELECT event_store.save_snapshot('shop', 'client-1', 3, '{"n": 3}', 'any', 2) \g /dev/null
SELECT is(pg_temp.rows_of(format($$ SELECT snapshot_version, state, version, jsonb_path_query_array(events, '$[*].version') FROM event_store.read_stream_from_snapshot(%s) $$, arguments)), expected, 'read_stream_from_snapshot: ' || description)
  FROM (VALUES ($$ 'shop', 'client-1', 'any' $$, '(2,"{""n"": 2}",3,[3])', 'the newest, and what comes after it'),
               ($$ 'shop', 'client-1', 'any', 2 $$, '(3,"{""n"": 3}",3,[])', 'nothing comes after it'),
               ($$ 'shop', 'client-1', 'any', 3 $$, '(,,3,"[1, 2, 3]")', 'of another schema version there is none'),
               ($$ 'shop', 'client-9', 'any' $$, '(,,0,[])', 'a stream that does not exist'),
               ($$ 'shop', 'client-1', NULL $$, '22004: aggregate must not be null', 'NULL'),
               ($$ 'shop', 'client-1', 'any', NULL $$, '22004: schema_version must not be null', 'a schema version that is NULL'),
               ($$ 'shop', NULL, 'any' $$, '22004: stream must not be null', 'a stream that is NULL')) AS c(arguments, expected, description);
SELECT event_store.append('shop', 'fat-1', 'T', to_jsonb(repeat('x', 9000000))) FROM generate_series(1, 3) \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.read_stream_from_snapshot('shop', 'fat-1', 'any') $$),
    E'54000\nstream "fat-1" has too many events after version 0 for one row\nIt has room for 100000 events, or about 16 MB of data, and is full at version 1.\nSave a newer snapshot, or read on from load_snapshot() with read_stream().\npublic.shop', 'no part of the events is taken for all');
SELECT event_store.save_snapshot('shop', 'fat-1', 2, '{}', 'any') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT snapshot_version, version FROM event_store.read_stream_from_snapshot('shop', 'fat-1', 'any') $$), '(2,3)', 'with a newer snapshot they fit');

-- Who may.
DELETE FROM event_store.snapshots;
CREATE ROLE es_states_shop;
CREATE ROLE es_states_lists;
CREATE ROLE es_states_reader;
ALTER TABLE shop OWNER TO es_states_shop;
UPDATE event_store.aggregates SET owner = 'es_states_lists' WHERE name = 'list';
GRANT SELECT ON shop TO es_states_reader;
SET ROLE es_states_lists;
SELECT throws_ok(command, '42501', 'permission denied for table shop', 'the owner of the aggregate needs SELECT: ' || command)
  FROM (VALUES ($$ SELECT event_store.take_snapshots('shop', 'list') $$), ($$ SELECT event_store.prune_snapshots('shop', 1, 'list') $$), ($$ SELECT event_store.save_snapshot('shop', 'order-1', 1, '{}', 'list', 2) $$)) AS c(command);
RESET ROLE;
GRANT SELECT ON shop TO es_states_lists;
SET ROLE es_states_lists;
SELECT is(event_store.take_snapshots('shop', 'list', 'order'), 5::bigint, 'then he takes snapshots');
SELECT lives_ok($$ SELECT event_store.save_snapshot('shop', 'order-1', 1, '{}', 'list', 2) $$, 'and saves them');
SELECT is(event_store.prune_snapshots('shop', 1, 'list'), 1::bigint, 'and prunes them');
SELECT throws_ok(command, '42501', 'must be owner of table shop', 'but no others: ' || command)
  FROM (VALUES ($$ SELECT event_store.take_snapshots('shop', 'list2') $$), ($$ SELECT event_store.prune_snapshots('shop') $$), ($$ SELECT event_store.prune_snapshots('shop', 1, 'by hand') $$),
               ($$ SELECT event_store.save_snapshot('shop', 'order-1', 1, '{}', 'by hand') $$), ($$ SELECT event_store.save_snapshot('shop', 'order-1', 1, '{}', 'list2', 2) $$)) AS c(command);
SET ROLE es_states_shop;
SELECT is(event_store.take_snapshots('shop', 'list', 'cart') || ' ' || event_store.prune_snapshots('shop', 0), '1 6', 'the owner of the table does both');
SET ROLE es_states_reader;
SELECT throws_ok(command, '42501', 'must be owner of table shop', 'a reader does neither: ' || command)
  FROM (VALUES ($$ SELECT event_store.take_snapshots('shop', 'list') $$), ($$ SELECT event_store.prune_snapshots('shop', 1, 'list') $$)) AS c(command);
SELECT lives_ok($$ SELECT * FROM event_store.verify_snapshots('shop', 'list') $$, 'but verifies');
RESET ROLE;

-- Row-level security: a fold of what one may see, and never a snapshot.
SELECT event_store.take_snapshots('shop', 'list', 'order') \g /dev/null
SET ROLE es_states_shop;
CREATE POLICY but_two ON shop FOR SELECT TO es_states_lists USING (version <> 2);
ALTER TABLE shop ENABLE ROW LEVEL SECURITY;
SET ROLE es_states_lists;
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.load('shop', 'order-1', 'list') $$), '(5,"[0, 1, 3, 4, 5]",4,)', 'with policies, a fold of what one may see');
SELECT is(pg_temp.rows_of($$ SELECT version, state FROM event_store.load('shop', 'order-1', 'list', occurred_as_of => 'infinity', at_version => 3) $$), '(3,"[0, 1, 3]")', 'in the order of time too');
SELECT is(pg_temp.rows_of($$ SELECT stream, version, snapshot_version FROM event_store.load_category('shop', 'order', 'list') $$), '(order,7,) (order-,8,) (order-1,5,) (order-2,10,) (order-3,12,)', 'for each stream of a category');
SELECT is(pg_temp.rows_of($$ SELECT snapshot_version, jsonb_path_query_array(events, '$[*].version') FROM event_store.read_stream_from_snapshot('shop', 'order-1', 'list', 2) $$), '(,"[1, 3, 4, 5]")', 'and for a client');
SELECT throws_ok(command, '42501', 'row-level security of table "shop" applies', 'refused with policies: ' || command)
  FROM (VALUES ($$ SELECT event_store.take_snapshots('shop', 'list') $$), ($$ SELECT event_store.verify_snapshots('shop', 'list') $$)) AS c(command);
SET ROLE es_states_shop;
SELECT is((SELECT snapshot_version FROM event_store.load('shop', 'order-1', 'list')), 5::bigint, 'who sees all uses snapshots');
RESET ROLE;

DROP TABLE shop, log, odd;
SELECT is((SELECT count(*) FROM event_store.snapshots), 0::bigint, 'with the tables the snapshots go');
DROP ROLE es_states_shop, es_states_lists, es_states_reader;
SELECT * FROM finish();
