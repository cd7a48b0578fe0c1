-- States are folded from events upcast, whichever way.
SET client_min_messages = warning;
SELECT plan(12);

SELECT event_store.create_event_table('ev') \g /dev/null
SELECT event_store.append_batch('ev', 'a-1', '{T,T,U}', '{"{\"n\": 1}","{\"m\": 2}","{\"u\": 3}"}') \g /dev/null
SELECT event_store.create_aggregate('a', snapshot_every => 1) \g /dev/null
CREATE FUNCTION up(data jsonb) RETURNS jsonb IMMUTABLE RETURN data || '{"up": true}';
CREATE FUNCTION count_up(state jsonb, event event_store.event) RETURNS jsonb IMMUTABLE
RETURN jsonb_build_object('ups', coalesce((state ->> 'ups')::int, 0) + (CASE WHEN (event).data ? 'up' THEN 1 ELSE 0 END), 'schema', (event).schema_version);
SELECT event_store.create_aggregate('c', 'count_up(jsonb,event_store.event)') \g /dev/null
SELECT event_store.take_snapshots('ev', 'a') \g /dev/null
SELECT event_store.register_upcaster('ev', 'T', 1, 'up(jsonb)') \g /dev/null

SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'a', use_snapshot => false)), '{"n": 1, "m": 2, "u": 3, "up": true}', 'load() by merge()');
SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'c')), '{"ups": 2, "schema": 1}', 'load() by another reducer');
SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'c', at_version => 2)), '{"ups": 2, "schema": 2}', 'which gets the version that it is upcast to');
SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'c', occurred_as_of => 'infinity')), '{"ups": 2, "schema": 1}', 'load() in the order of occurrence');
SELECT is((SELECT state FROM event_store.load_category('ev', 'a', 'c')), '{"ups": 2, "schema": 1}', 'load_category()');
SELECT is((SELECT event_store.fold(e, 'c' ORDER BY e.version) FROM event_store.read_stream('ev', 'a-1') e), '{"ups": 2, "schema": 1}', 'fold() over a reader');
SELECT is((SELECT event_store.fold(e, 'c' ORDER BY e.version) FROM event_store.read_stream('ev', 'a-1', raw => true) e), '{"ups": 0, "schema": 1}', 'but not over raw events');
SELECT is((SELECT events -> 0 -> 'data' FROM event_store.read_stream_from_snapshot('ev', 'a-1', 'none')), '{"n": 1, "up": true}', 'read_stream_from_snapshot()');

SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'a')), '{"n": 1, "m": 2, "u": 3}', 'a snapshot taken before the upcaster came is used all the same');
SELECT is((SELECT count(*) FROM event_store.verify_snapshots('ev', 'a')), 1::bigint, 'verify_snapshots() tells');
SELECT event_store.create_aggregate('a', snapshot_every => 1, schema_version => 2, or_replace => true) \g /dev/null
SELECT is((SELECT state FROM event_store.load('ev', 'a-1', 'a')), '{"n": 1, "m": 2, "u": 3, "up": true}', 'not with another schema version');
SELECT event_store.take_snapshots('ev', 'a') \g /dev/null
SELECT is_empty($$ SELECT * FROM event_store.verify_snapshots('ev', 'a') $$, 'take_snapshots() folds events upcast');

SELECT * FROM finish();
