-- What is not an event table is refused by every function that takes one, with
-- an error that says what it is instead.
SET client_min_messages = warning;
SELECT plan(540);

-- SQLSTATE, message, detail, hint, table.
\ir include/error_of.sql

SELECT event_store.create_event_table('orders') \g /dev/null
CREATE TABLE plain (LIKE orders);
CREATE TABLE audit (what text);
SELECT event_store.make_append_only('audit') \g /dev/null
CREATE TEMP TABLE temporary (LIKE orders);
CREATE VIEW seen AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW stored AS SELECT * FROM orders;
CREATE TABLE parted (LIKE orders) PARTITION BY RANGE (position);
CREATE TABLE part PARTITION OF parted DEFAULT;
CREATE FOREIGN DATA WRAPPER es_kinds;
CREATE SERVER es_kinds FOREIGN DATA WRAPPER es_kinds;
CREATE FOREIGN TABLE distant (stream text) SERVER es_kinds;
CREATE TYPE composite AS (stream text);

CREATE TEMP TABLE calls (name text, command text);
INSERT INTO calls VALUES
    ('append',          $$ SELECT event_store.append(%s, 'a-1', 'T', '{}') $$),
    ('append_batch',    $$ SELECT event_store.append_batch(%s, 'a-1', '{T}', '{1}') $$),
    ('append_json',     $$ SELECT event_store.append_json(%s, 'a-1', '[{"type": "T", "data": 1}]') $$),
    ('append_streams',  $$ SELECT event_store.append_streams(%s, '[{"stream": "a-1", "events": [{"type": "T", "data": 1}]}]') $$),
    ('channel',         $$ SELECT event_store.channel(%s) $$),
    ('check_guards',    $$ SELECT event_store.check_guards(%s) $$),
    ('create_projection', $$ SELECT event_store.create_projection('p', %s, 'SELECT FROM events', mode => 'manual') $$),
    ('drop_event_table', $$ SELECT event_store.drop_event_table(%s) $$),
    ('guard',           $$ SELECT event_store.guard(%s) $$),
    ('high_water_mark', $$ SELECT event_store.high_water_mark(%s) $$),
    ('wait_for_events', $$ SELECT event_store.wait_for_events(%s, timeout => '0') $$),
    ('last_event',      $$ SELECT event_store.last_event(%s, 'a-1') $$),
    ('last_position',   $$ SELECT event_store.last_position(%s) $$),
    ('load',            $$ SELECT event_store.load(%s, 'a-1', 'order') $$),
    ('load_category',   $$ SELECT event_store.load_category(%s, 'a', 'order') $$),
    ('diff_state',      $$ SELECT event_store.diff_state(%s, 'a-1', 'order') $$),
    ('take_snapshots',  $$ SELECT event_store.take_snapshots(%s, 'order') $$),
    ('prune_snapshots', $$ SELECT event_store.prune_snapshots(%s) $$),
    ('verify_snapshots', $$ SELECT event_store.verify_snapshots(%s, 'order') $$),
    ('read_stream_from_snapshot', $$ SELECT event_store.read_stream_from_snapshot(%s, 'a-1', 'order') $$),
    ('load_snapshot',   $$ SELECT event_store.load_snapshot(%s, 'a-1') $$),
    ('position_at',     $$ SELECT event_store.position_at(%s, now()) $$),
    ('read_all',        $$ SELECT event_store.read_all(%s) $$),
    ('read_batch',      $$ SELECT event_store.read_batch(%s) $$),
    ('read_category',   $$ SELECT event_store.read_category(%s, 'a') $$),
    ('read_event',      $$ SELECT event_store.read_event(%s, gen_random_uuid()) $$),
    ('read_stream',     $$ SELECT event_store.read_stream(%s, 'a-1') $$),
    ('check_upcasters', $$ SELECT event_store.check_upcasters(%s) $$),
    ('event_catalog',   $$ SELECT event_store.event_catalog(%s) $$),
    ('register_event_type', $$ SELECT event_store.register_event_type(%s, 'T') $$),
    ('unregister_event_type', $$ SELECT event_store.unregister_event_type(%s, 'T') $$),
    ('register_upcaster', $$ SELECT event_store.register_upcaster(%s, 'T', 1, 'jsonb_strip_nulls(jsonb)') $$),
    ('unregister_upcaster', $$ SELECT event_store.unregister_upcaster(%s, 'T', 1) $$),
    ('save_snapshot',   $$ SELECT event_store.save_snapshot(%s, 'a-1', 1, '{}') $$),
    ('stream_version',  $$ SELECT event_store.stream_version(%s, 'a-1') $$),
    ('streams',         $$ SELECT event_store.streams(%s) $$);
SELECT set_eq(
    $$ SELECT p.proname::text FROM pg_proc p
        WHERE p.pronamespace = 'event_store'::regnamespace AND p.proname !~ '^_' AND 'regclass'::regtype = ANY (p.proargtypes)
          AND p.proname <> 'feed_status' $$,    -- for a view: raises nothing
    $$ SELECT name FROM calls UNION SELECT 'make_append_only' $$,
    'this file calls every function that takes a table');

SELECT is(pg_temp.error_of(format(command, quote_literal(kind) || '::regclass')),
          format(E'SE004\n"%s" is not an event table\n%s\nEvent tables are made by event_store.create_event_table(name).\n%s.%s',
                 kind, detail, CASE kind WHEN 'temporary' THEN (SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema())
                     ELSE 'public' END, kind),
          format('%s refuses what is %s', name, replace(detail, 'It is ', '')))
  FROM calls,
       (VALUES ('plain',     'It is an ordinary table.'),
               ('part',      'It is an ordinary table.'),
               ('temporary', 'It is an ordinary table.'),
               ('seen',      'It is a view.'),
               ('stored',    'It is a materialized view.'),
               ('parted',    'It is a partitioned table.'),
               ('distant',   'It is a foreign table.'),
               ('orders_position_seq', 'It is a sequence.'),
               ('orders_pkey', 'It is not a table.'),
               ('composite', 'It is not a table.'),
               ('pg_catalog.pg_class', 'It is an ordinary table.'),
               ('audit',     'It is append-only, but has no versions and positions.')) AS k(kind, detail)
 WHERE kind NOT IN ('pg_catalog.pg_class', 'audit');
SELECT throws_ok(format(command, '''pg_catalog.pg_class''::regclass'), 'SE004', '"pg_class" is not an event table',
    name || ' refuses a system catalog')
  FROM calls WHERE name <> 'guard';
SELECT throws_ok($$ SELECT event_store.guard('pg_catalog.pg_class') $$, '42809', '"pg_class" is a system catalog',
    'guard refuses a system catalog');
SELECT throws_ok(format(command, '''audit''::regclass'), 'SE004', '"audit" is not an event table',
    name || ' refuses a table that is only append-only')
  FROM calls WHERE name NOT IN ('check_guards', 'guard');
SELECT throws_ok(format(command, '4294967290::regclass'), '42P01', 'relation with OID 4294967290 does not exist',
    name || ' refuses an OID that is no table''s')
  FROM calls;
SELECT throws_ok(format(command, '''nowhere''::regclass'), '42P01', 'relation "nowhere" does not exist',
    name || ' refuses a name that is no table''s')
  FROM calls;
SELECT throws_ok(format(command, 'NULL::regclass'), '22004',
                 CASE name WHEN 'check_guards' THEN 'target' ELSE 'event_table' END || ' must not be null', name || ' refuses NULL')
  FROM calls;

-- A table that was one, in the same session.
SELECT event_store.create_event_table('gone') \g /dev/null
SELECT event_store.append('gone', 'a-1', 'T', '{}') \g /dev/null
SELECT 'gone'::regclass::oid AS gone \gset
SELECT event_store.drop_event_table('gone') \g /dev/null
SELECT throws_ok(format('SELECT event_store.append(%s::regclass, ''a-1'', ''T'', ''{}'')', :gone), '42P01', NULL,
                 'a dropped event table is refused, however often it was used');

SELECT * FROM finish();
