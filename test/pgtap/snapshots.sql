-- Snapshots: saved by the owner, loaded by whoever may read; the newest that
-- fits.
SET client_min_messages = warning;
SELECT plan(50);

\ir include/rows_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.create_event_table('others') \g /dev/null
SELECT event_store.append_batch('orders', 'a-1', '{T,T,T,T,T}', '{1,2,3,4,5}') \g /dev/null
SELECT event_store.append('orders', 'a-2', 'T', '1') \g /dev/null
SELECT event_store.append('others', 'a-1', 'T', '1') \g /dev/null

SELECT is_empty($$ SELECT * FROM event_store.load_snapshot('orders', 'a-1') $$, 'without a snapshot there is no row');
SELECT lives_ok($$ SELECT event_store.save_snapshot('orders', 'a-1', 2, '{"sum": 3}') $$, 'save_snapshot()');
SELECT is(pg_temp.rows_of($$ SELECT version, state, saved_at BETWEEN now() - interval '1 hour' AND clock_timestamp() FROM event_store.load_snapshot('orders', 'a-1') $$), '(2,"{""sum"": 3}",t)', 'load_snapshot() returns version, state and time');
SELECT event_store.save_snapshot('orders', 'a-1', 4, '{"sum": 10}') \g /dev/null
SELECT event_store.save_snapshot('orders', 'a-1', 3, '{"sum": 6}') \g /dev/null
SELECT event_store.save_snapshot('orders', 'a-1', 5, '{"other": true}', 'totals') \g /dev/null
SELECT event_store.save_snapshot('orders', 'a-1', 5, '{"v": 2}', schema_version => 2) \g /dev/null
SELECT event_store.save_snapshot('orders', 'a-2', 1, '"a-2"') \g /dev/null
SELECT event_store.save_snapshot('others', 'a-1', 1, '"others"') \g /dev/null
SELECT is(pg_temp.rows_of(format('SELECT version, state FROM event_store.load_snapshot(%s)', arguments)), expected, description)
  FROM (VALUES ($$ 'orders', 'a-1' $$, '(4,"{""sum"": 10}")', 'the newest'),
               ($$ 'orders', 'a-1', max_version => 4 $$, '(4,"{""sum"": 10}")', 'max_version is inclusive'),
               ($$ 'orders', 'a-1', max_version => 3 $$, '(3,"{""sum"": 6}")', 'the newest at or before max_version'),
               ($$ 'orders', 'a-1', max_version => 99 $$, '(4,"{""sum"": 10}")', 'max_version above all'),
               ($$ 'orders', 'a-1', max_version => 1 $$, 'nothing', 'none is so old'),
               ($$ 'orders', 'a-1', max_version => 0 $$, 'nothing', 'max_version 0'),
               ($$ 'orders', 'a-1', max_version => NULL $$, '(4,"{""sum"": 10}")', 'max_version NULL is of all'),
               ($$ 'orders', 'a-1', 'totals' $$, '(5,"{""other"": true}")', 'of another aggregate'),
               ($$ 'orders', 'a-1', 'Totals' $$, 'nothing', 'of an aggregate that is not there'),
               ($$ 'orders', 'a-1', schema_version => 2 $$, '(5,"{""v"": 2}")', 'of another schema version'),
               ($$ 'orders', 'a-1', schema_version => 3 $$, 'nothing', 'a snapshot of another schema version is ignored'),
               ($$ 'orders', 'a-1', 'totals', 5, 2 $$, 'nothing', 'aggregate and schema version'),
               ($$ 'orders', 'a-2' $$, '(1,"""a-2""")', 'of another stream'),
               ($$ 'orders', 'a-3' $$, 'nothing', 'of a stream that does not exist'),
               ($$ 'others', 'a-1' $$, '(1,"""others""")', 'of another event table'),
               ($$ 'orders', NULL $$, '22004: stream must not be null', 'a stream that is NULL is refused'),
               ($$ 'orders', '' $$, '22023: stream must not be empty', 'an empty stream is refused'),
               ($$ 'orders', 'a-1', NULL $$, '22004: aggregate must not be null', 'an aggregate that is NULL is refused'),
               ($$ 'orders', 'a-1', schema_version => NULL $$, '22004: schema_version must not be null',
                   'a schema version that is NULL is refused')) AS c(arguments, expected, description);
SELECT event_store.save_snapshot('orders', 'a-1', 4, '{"sum": 11}') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT version, state FROM event_store.load_snapshot('orders', 'a-1') $$), '(4,"{""sum"": 11}")',
    'saved again for the same version, it takes the old one''s place');
SELECT is((SELECT count(*) FROM event_store.snapshots WHERE event_table = 'orders'::regclass AND stream = 'a-1' AND version = 4), 1::bigint,
    'and there is one');

SELECT is(pg_temp.rows_of(format('SELECT event_store.save_snapshot(%s)', arguments)), expected, 'save_snapshot: ' || description)
  FROM (VALUES ($$ 'orders', 'a-1', 6, '{}' $$, '22023: stream "a-1" has no version 6', 'a version that is not there yet'),
               ($$ 'orders', 'a-1', 0, '{}' $$, '22023: stream "a-1" has no version 0', 'version 0'),
               ($$ 'orders', 'a-1', -1, '{}' $$, '22023: stream "a-1" has no version -1', 'a negative version'),
               ($$ 'orders', 'a-9', 1, '{}' $$, '22023: stream "a-9" has no version 1', 'a stream that does not exist'),
               ($$ 'orders', NULL, 1, '{}' $$, '22004: stream must not be null', 'a stream that is NULL'),
               ($$ 'orders', 'a-1', NULL, '{}' $$, '22004: version must not be null', 'a version that is NULL'),
               ($$ 'orders', 'a-1', 1, NULL $$, '22004: state must not be null', 'a state that is NULL'),
               ($$ 'orders', 'a-1', 1, '{}', NULL $$, '22004: aggregate must not be null', 'an aggregate that is NULL'),
               ($$ 'orders', 'a-1', 1, '{}', '', NULL $$, '22004: schema_version must not be null',
                   'a schema version that is NULL')) AS c(arguments, expected, description);
SELECT is(pg_temp.rows_of($$ SELECT event_store.save_snapshot('orders', 'a-1', 1, 'null', E'odd ''"\n ü', -5) $$), '("")',
    'any aggregate, schema version and JSON will do');
SELECT is(pg_temp.rows_of($$ SELECT version, state FROM event_store.load_snapshot('orders', 'a-1', E'odd ''"\n ü', schema_version => -5) $$),
    '(1,null)', 'and comes back');
SELECT event_store.save_snapshot('orders', 'a-2', 1, to_jsonb(repeat('x', 1000000)), 'large') \g /dev/null
SELECT is((SELECT length(state #>> '{}') FROM event_store.load_snapshot('orders', 'a-2', 'large')), 1000000, 'a large state');

-- Snapshots are disposable, transactional, and of events that exist.
BEGIN;
SELECT event_store.append('orders', 'new-1', 'T', '1') \g /dev/null
SELECT event_store.save_snapshot('orders', 'new-1', 1, '"mine"') \g /dev/null
CREATE TEMP TABLE seen AS SELECT pg_temp.rows_of($$ SELECT version, state FROM event_store.load_snapshot('orders', 'new-1') $$) AS loaded;
COMMIT;
SELECT is(loaded, '(1,"""mine""")', 'a snapshot of an own uncommitted event can be saved and loaded') FROM seen;
BEGIN;
SELECT event_store.save_snapshot('orders', 'a-1', 5, '"never"') \g /dev/null
ROLLBACK;
SELECT is((SELECT version FROM event_store.load_snapshot('orders', 'a-1')), 4::bigint, 'a snapshot that is rolled back is not there');
DELETE FROM event_store.snapshots WHERE version = 4;
SELECT is((SELECT version FROM event_store.load_snapshot('orders', 'a-1')), 3::bigint, 'after a row is deleted the one before it is loaded');
BEGIN READ ONLY;
SELECT is((SELECT version FROM event_store.load_snapshot('orders', 'a-1')), 3::bigint, 'loading needs no right to write');
COMMIT;
SELECT is(sum((data)::int) + 6, 15::bigint, 'a fold goes on from a snapshot with the events behind it')
  FROM event_store.load_snapshot('orders', 'a-1') AS s, event_store.read_stream('orders', 'a-1', from_version => s.version + 1);

-- Who may.
CREATE ROLE es_snapshots_owner;
CREATE ROLE es_snapshots_reader;
ALTER TABLE others OWNER TO es_snapshots_owner;
GRANT SELECT, INSERT ON others TO es_snapshots_reader;
SET ROLE es_snapshots_owner;
SELECT lives_ok($$ SELECT event_store.save_snapshot('others', 'a-1', 1, '"by the owner"') $$,
    'the owner saves, without privileges on the extension''s table');
SET ROLE es_snapshots_reader;
SELECT is(pg_temp.rows_of($$ SELECT state FROM event_store.load_snapshot('others', 'a-1') $$), '("""by the owner""")', 'a reader loads');
SELECT throws_ok($$ SELECT event_store.save_snapshot('others', 'a-1', 1, '"forged"') $$, '42501', 'must be owner of table others',
    'but does not save');
SELECT is(current_user, 'es_snapshots_reader', 'and is himself again afterwards');
RESET ROLE;
-- Whoever has been given INSERT on the extension's table can save for his own event tables only.
GRANT USAGE ON SCHEMA event_store TO es_snapshots_reader;
GRANT INSERT ON event_store.snapshots TO es_snapshots_reader, es_snapshots_owner;
SET ROLE es_snapshots_reader;
SELECT throws_ok($$ INSERT INTO event_store.snapshots VALUES ('others', 'a-1', '', 1, 1, '"forged"') $$, '42501', NULL,
    'a row for somebody else''s event table is refused');
SET ROLE es_snapshots_owner;
SELECT lives_ok($$ INSERT INTO event_store.snapshots VALUES ('others', 'a-1', 'restored', 1, 1, '"ours"') $$,
    'one for an own event table is not');
RESET ROLE;
REVOKE ALL ON event_store.snapshots FROM es_snapshots_reader, es_snapshots_owner;
REVOKE ALL ON SCHEMA event_store FROM es_snapshots_reader;

-- A renamed table keeps them, a dropped one does not.
ALTER TABLE orders RENAME TO renamed;
SELECT is((SELECT version FROM event_store.load_snapshot('renamed', 'a-1')), 3::bigint, 'a renamed event table keeps its snapshots');
DROP TABLE renamed;
SELECT is((SELECT count(*) FROM event_store.snapshots WHERE event_table::oid NOT IN (SELECT oid FROM pg_class)), 0::bigint,
    'those of a dropped one go');
SELECT cmp_ok((SELECT count(*) FROM event_store.snapshots), '>', 0::bigint, 'the others stay');

DROP TABLE others;
DROP ROLE es_snapshots_owner, es_snapshots_reader;
SELECT * FROM finish();
