-- Privileges are the event table's own: INSERT is the right to append, SELECT
-- the right to read, ownership the right to administer; nothing else is needed,
-- and nothing less will do.
SET client_min_messages = warning;
SELECT plan(482);

CREATE ROLE es_privileges_owner;
CREATE ROLE es_privileges_member IN ROLE es_privileges_owner;
CREATE ROLE es_privileges_insert;
CREATE ROLE es_privileges_select;
CREATE ROLE es_privileges_both;
CREATE ROLE es_privileges_all;
CREATE ROLE es_privileges_none;
CREATE SCHEMA shop AUTHORIZATION es_privileges_owner;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
SET ROLE es_privileges_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
SELECT event_store.append_batch('shop.orders', 'order-1', '{A,B,C}', '{1,2,3}',
    event_ids => '{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002,00000000-0000-0000-0000-000000000003}') \g /dev/null
SELECT event_store.save_snapshot('shop.orders', 'order-1', 2, '{}') \g /dev/null
CREATE TABLE shop.audit (a int);
CREATE TABLE shop.model (a int);
RESET ROLE;
SELECT format('GRANT CREATE ON DATABASE %I TO es_privileges_owner', current_database()) \gexec
SET ROLE es_privileges_owner;
SELECT event_store.create_projection(name, 'shop.orders', 'SELECT FROM events', mode => 'manual', tables => '{shop.model}') FROM unnest('{proj,rebuilt}'::text[]) name \g /dev/null
SELECT event_store.rebuild_projection('rebuilt') \g /dev/null
RESET ROLE;
SELECT format('REVOKE CREATE ON DATABASE %I FROM es_privileges_owner', current_database()) \gexec
SELECT event_store.create_aggregate('order', snapshot_every => 1) \g /dev/null
SET ROLE es_privileges_owner;
GRANT INSERT ON shop.orders TO es_privileges_insert, es_privileges_both;
GRANT SELECT ON shop.orders TO es_privileges_select, es_privileges_both;
GRANT ALL ON shop.orders, shop.audit TO es_privileges_all;
RESET ROLE;

-- Every public function, what it needs, and a call that works for whom has it.
-- Each call's effects are rolled back.
CREATE TABLE calls (name text, needs text, command text);
GRANT SELECT ON calls TO PUBLIC;
INSERT INTO calls VALUES
    -- before any append, behind which it would not wait
    ('wait_for_projection', 'SELECT or INSERT', $$ SELECT event_store.wait_for_projection('proj', 0) $$),
    ('append',          'INSERT', $$ SELECT event_store.append('shop.orders', 'order-1', 'T', '{}', 3) $$),
    ('append_batch',    'INSERT', $$ SELECT event_store.append_batch('shop.orders', 'order-1', '{T}', '{1}', 3) $$),
    ('append_json',     'INSERT', $$ SELECT event_store.append_json('shop.orders', 'order-1', '[{"type": "T", "data": 1}]', 3) $$),
    ('append_streams',  'INSERT', $$ SELECT event_store.append_streams('shop.orders', '[{"stream": "order-1", "events": [{"type": "T", "data": 1}]}]') $$),
    ('append_streams',  'INSERT', $$ SELECT event_store.append_streams('shop.orders', (SELECT jsonb_agg(jsonb_build_object('stream', 's-' || i, 'events',
                                      '[{"type": "T", "data": 1}]'::jsonb)) FROM generate_series(1, 1001) AS i)) $$),
    ('category',        'nothing', $$ SELECT event_store.category('a-1') $$),
    ('channel',         'nothing', $$ SELECT event_store.channel('shop.orders') $$),
    ('check_guards',    'nothing', $$ SELECT event_store.check_guards('shop.orders') $$),
    ('create_event_table', 'CREATE', $$ SELECT event_store.create_event_table('shop.more') $$),
    ('drop_event_table', 'ownership', $$ SELECT event_store.drop_event_table('shop.orders') $$),
    ('guard',           'ownership', $$ SELECT event_store.guard('shop.orders') $$),
    ('make_append_only', 'ownership of audit', $$ SELECT event_store.make_append_only('shop.audit') $$),
    ('register_event_type', 'ownership', $$ SELECT event_store.register_event_type('shop.orders', 'T') $$),
    ('register_upcaster', 'ownership', $$ SELECT event_store.register_upcaster('shop.orders', 'T', 1, 'jsonb_strip_nulls(jsonb)') $$),
    ('unregister_event_type', 'ownership', $$ SELECT event_store.unregister_event_type('shop.orders', 'T') $$),
    ('unregister_upcaster', 'ownership', $$ SELECT event_store.unregister_upcaster('shop.orders', 'T', 1) $$),
    ('check_upcasters', 'SELECT', $$ SELECT event_store.check_upcasters('shop.orders') $$),
    ('event_catalog',   'SELECT', $$ SELECT event_store.event_catalog('shop.orders') $$),
    ('save_snapshot',   'ownership', $$ SELECT event_store.save_snapshot('shop.orders', 'order-1', 3, '{}') $$),
    ('feed_status',     'nothing', $$ SELECT event_store.feed_status('shop.orders') $$),
    ('wait_for_events', 'SELECT', $$ SELECT event_store.wait_for_events('shop.orders', timeout => '0') $$),
    ('high_water_mark', 'SELECT', $$ SELECT event_store.high_water_mark('shop.orders') $$),
    ('last_event',      'SELECT', $$ SELECT event_store.last_event('shop.orders', 'order-1') $$),
    ('last_position',   'SELECT', $$ SELECT event_store.last_position('shop.orders') $$),
    ('load_snapshot',   'SELECT', $$ SELECT event_store.load_snapshot('shop.orders', 'order-1') $$),
    ('position_at',     'SELECT', $$ SELECT event_store.position_at('shop.orders', now()) $$),
    ('read_all',        'SELECT', $$ SELECT event_store.read_all('shop.orders') $$),
    ('read_batch',      'SELECT', $$ SELECT event_store.read_batch('shop.orders') $$),
    ('read_category',   'SELECT', $$ SELECT event_store.read_category('shop.orders', 'order') $$),
    ('read_event',      'SELECT', $$ SELECT event_store.read_event('shop.orders', '00000000-0000-0000-0000-000000000001') $$),
    ('read_stream',     'SELECT', $$ SELECT event_store.read_stream('shop.orders', 'order-1') $$),
    ('create_aggregate', 'CREATE on the database', $$ SELECT event_store.create_aggregate('new') $$),
    ('drop_aggregate',  'ownership of its own', $$ SELECT event_store.drop_aggregate('order') $$),
    ('merge',           'nothing', $$ SELECT event_store.merge('{}', (1, 'a', 1, NULL, 'T', 1, '{}', NULL, NULL, NULL, NULL, NULL)::event_store.event) $$),
    ('fold',            'nothing', $$ SELECT event_store.fold(NULL, 'order') $$),
    ('load',            'SELECT', $$ SELECT event_store.load('shop.orders', 'order-9', 'order') $$),
    ('load_category',   'SELECT', $$ SELECT event_store.load_category('shop.orders', 'none', 'order') $$),
    ('diff_state',      'SELECT', $$ SELECT event_store.diff_state('shop.orders', 'order-9', 'order') $$),
    ('take_snapshots',  'ownership', $$ SELECT event_store.take_snapshots('shop.orders', 'order', 'none') $$),
    ('prune_snapshots', 'ownership', $$ SELECT event_store.prune_snapshots('shop.orders') $$),
    ('verify_snapshots', 'SELECT', $$ SELECT event_store.verify_snapshots('shop.orders', 'order') $$),
    ('read_stream_from_snapshot', 'SELECT', $$ SELECT event_store.read_stream_from_snapshot('shop.orders', 'order-1', 'order') $$),
    ('alter_projection', 'ownership of proj', $$ SELECT event_store.alter_projection('proj') $$),
    ('cancel_rebuild', 'ownership of proj', $$ SELECT event_store.cancel_rebuild('rebuilt') $$),
    ('check_projection', 'ownership of proj', $$ SELECT event_store.check_projection('proj') $$),
    ('drop_parked', 'ownership of proj', $$ SELECT event_store.drop_parked('proj') $$),
    ('drop_projection', 'ownership of proj', $$ SELECT event_store.drop_projection('proj') $$),
    ('dry_run_projection', 'ownership of proj', $$ SELECT event_store.dry_run_projection('proj') $$),
    ('pause_projection', 'ownership of proj', $$ SELECT event_store.pause_projection('proj') $$),
    ('reset_projection', 'ownership of proj', $$ SELECT event_store.reset_projection('proj') $$),
    ('resume_projection', 'ownership of proj', $$ SELECT event_store.resume_projection('proj') $$),
    ('retry_parked', 'ownership of proj', $$ SELECT event_store.retry_parked('proj') $$),
    ('run_projection', 'ownership of proj', $$ SELECT event_store.run_projection('proj') $$),
    ('create_projection', 'SELECT', $$ SELECT event_store.create_projection('new', 'shop.orders', 'SELECT FROM events', mode => 'manual') $$),
    ('rebuild_projection', 'ownership of proj and CREATE on the database', $$ SELECT event_store.rebuild_projection('proj') $$),
    ('stream_exists',   'nothing', $$ SELECT event_store.stream_exists() $$),
    ('stream_version',  'SELECT', $$ SELECT event_store.stream_version('shop.orders', 'order-1') $$),
    ('streams',         'SELECT', $$ SELECT event_store.streams('shop.orders') $$),
    ('plain INSERT',    'INSERT', $$ INSERT INTO shop.orders (stream, type, data) VALUES ('order-1', 'T', '{}') $$),
    ('plain SELECT',    'SELECT', $$ SELECT * FROM shop.orders $$);
SELECT set_has('SELECT name FROM calls',
    $$ SELECT proname::text FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proname !~ '^_' $$,
               'this file calls every public function');

-- Runs a command, tells how it ended, and undoes it.
CREATE FUNCTION pg_temp.outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command;
    RAISE SQLSTATE 'X0001';
EXCEPTION
    WHEN SQLSTATE 'X0001' THEN RETURN 'allowed';
    WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION pg_temp.check_role(who text, has text[]) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT is(pg_temp.outcome(command),
              CASE WHEN needs = ANY (has || '{nothing}') THEN 'allowed'
                   WHEN needs = 'SELECT or INSERT' AND has && '{SELECT,INSERT}' THEN 'allowed'
                   WHEN needs ~ '^ownership of proj' AND 'ownership of proj' <> ALL (has) THEN '42501: must be owner of projection ' || CASE name WHEN 'cancel_rebuild' THEN 'rebuilt' ELSE 'proj' END
                   WHEN name ~ 'snapshots?$' AND 'SELECT' <> ALL (has) THEN '42501: permission denied for table orders'
                   WHEN needs = 'ownership' THEN '42501: must be owner of table orders'
                   WHEN needs = 'ownership of its own' THEN '42501: must be owner of aggregate order'
                   WHEN needs ~ 'CREATE on the database$' THEN '42501: permission denied for database ' || current_database()
                   WHEN needs = 'ownership of audit' THEN '42501: must be owner of table audit'
                   WHEN needs = 'CREATE' THEN '42501: permission denied for schema shop'
                   ELSE '42501: permission denied for table orders' END,
              format('%s: %s needs %s', who, name, needs)) FROM public.calls $$;
SET ROLE es_privileges_insert;
SELECT pg_temp.check_role('INSERT only', '{INSERT}');
SET ROLE es_privileges_select;
SELECT pg_temp.check_role('SELECT only', '{SELECT}');
SET ROLE es_privileges_both;
SELECT pg_temp.check_role('INSERT and SELECT', '{INSERT,SELECT}');
SET ROLE es_privileges_all;
SELECT pg_temp.check_role('all privileges', '{INSERT,SELECT}');
SET ROLE es_privileges_none;
SELECT pg_temp.check_role('nothing', '{}');
SET ROLE es_privileges_owner;
SELECT pg_temp.check_role('owner', '{INSERT,SELECT,CREATE,ownership,"ownership of audit","ownership of proj"}');
SET ROLE es_privileges_member;
SELECT pg_temp.check_role('member of the owner', '{INSERT,SELECT,CREATE,ownership,"ownership of audit","ownership of proj"}');
RESET ROLE;
SELECT is((SELECT count(*) || ' ' || max(position) FROM shop.orders), '3 3', 'what these calls did was undone');

-- A role with INSERT alone, through.
SET ROLE es_privileges_insert;
SELECT is((event_store.append('shop.orders', 'order-2', 'T', '{}', 0)).last_version, 1::bigint, 'a role with INSERT alone appends');
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'order-2', 'T', '{}', 0) $$, 'SE001', NULL,
    'it is told of a wrong expected version');
SELECT is((event_store.append('shop.orders', 'order-1', 'A', '1', event_id => '00000000-0000-0000-0000-000000000001')).duplicate, true,
    'it may repeat an append');
SELECT throws_ok($$ INSERT INTO shop.orders (stream, type, data) VALUES ('order-2', 'T', '{}') RETURNING position $$, '42501', NULL,
    'it may not read by RETURNING');
SELECT throws_ok($$ SELECT nextval('shop.orders_position_seq') $$, '42501', NULL, 'it has no right to draw from the sequence');
SELECT throws_ok($$ SELECT setval('shop.orders_position_seq', 1) $$, '42501', NULL, 'nor to set it');
SELECT is(has_sequence_privilege('shop.orders_position_seq', 'SELECT, UPDATE, USAGE'), false, 'it has no privilege on the sequence at all');
RESET ROLE;
-- Columns: INSERT on some columns only is not the right to append.
CREATE ROLE es_privileges_columns;
GRANT INSERT (stream, type, data), SELECT (stream, type) ON shop.orders TO es_privileges_columns;
SET ROLE es_privileges_columns;
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'order-3', 'T', '{}') $$, '42501', NULL,
    'INSERT on some columns is not the right to append()');
SELECT throws_ok($$ SELECT event_store.read_stream('shop.orders', 'order-1') $$, '42501', NULL,
    'SELECT on some columns is not the right to read_stream()');
SELECT lives_ok($$ INSERT INTO shop.orders (stream, type, data) VALUES ('order-3', 'T', '{}') $$,
    'a plain INSERT into those columns is allowed');
SELECT throws_ok($$ INSERT INTO shop.orders (stream, type, data, version) VALUES ('order-3', 'T', '{}', 2) $$, '42501', NULL, 'into others not');
RESET ROLE;
SELECT is(event_store.stream_version('shop.orders', 'order-3'), 1::bigint, 'and is versioned');

-- The owner may take away from himself, and a superuser needs nothing.
SET ROLE es_privileges_owner;
REVOKE INSERT ON shop.orders FROM es_privileges_owner;
SELECT throws_ok($$ SELECT event_store.append('shop.orders', 'order-1', 'T', '{}') $$, '42501', NULL,
    'an owner who has revoked his INSERT cannot append');
GRANT INSERT ON shop.orders TO es_privileges_owner;
RESET ROLE;
SELECT is((event_store.append('shop.orders', 'order-4', 'T', '{}')).last_version, 1::bigint, 'a superuser appends to anybody''s table');
SELECT is((SELECT relowner::regrole::text FROM pg_class WHERE oid = 'shop.orders'::regclass), 'es_privileges_owner',
    'the creator owns the table');
SELECT is((SELECT relowner::regrole::text FROM pg_class WHERE oid = 'shop.orders_position_seq'::regclass), 'es_privileges_owner',
    'and its sequence');
SELECT is((SELECT relacl FROM pg_class WHERE oid = 'shop.audit'::regclass)::text ~ 'es_privileges_none', false,
    'make_append_only() grants nothing');

-- Views: each shows to everybody what is not secret.
SET ROLE es_privileges_none;
SELECT is((SELECT concat_ws(' ', event_table::oid = (SELECT oid FROM pg_class WHERE relname = 'orders' AND relkind = 'r'), owner,
    last_position IS NULL, guarded) FROM event_store.event_tables),
          't es_privileges_owner t t', 'event_tables is readable, without the last position where there is no SELECT');
SELECT lives_ok('SELECT * FROM event_store.mark_holders', 'mark_holders is readable');
SET ROLE es_privileges_select;
SELECT cmp_ok((SELECT last_position FROM event_store.event_tables), '>=', 3::bigint, 'event_tables has the last position where there is SELECT');
RESET ROLE;
SELECT throws_ok(format('SET ROLE es_privileges_owner; %s', command), '42501', NULL, 'the snapshots'' table itself: ' || description)
  FROM (VALUES ('SELECT * FROM event_store.snapshots', 'an ordinary role may not read it'),
               ('INSERT INTO event_store.snapshots VALUES (''shop.orders'', ''order-1'', '''', 1, 3, ''{}'')', 'nor write it'),
               ('DELETE FROM event_store.snapshots', 'nor delete from it')) AS c(command, description);
SELECT throws_ok($$ INSERT INTO event_store.snapshots VALUES ('pg_catalog.pg_class', 'a-1', '', 1, 0, '{}') $$, '23514', NULL,
    'a snapshot has a version above 0');

-- Settings weigh guarantees of everybody: not for ordinary roles.
SET ROLE es_privileges_owner;
SELECT throws_ok(command, '42501', 'permission denied to set parameter "' || split_part(command, ' ', CASE WHEN command ~ 'LOCAL' THEN 3
    ELSE 2 END) || '"', 'an ordinary role: ' || command)
  FROM (VALUES ('SET event_store.notify = off'), ('SET LOCAL event_store.notify = off'), ('SET event_store.sync_commit = off')) AS c(command);
SELECT throws_ok($$ SELECT set_config('event_store.sync_commit', 'off', false) $$, '42501', NULL, 'an ordinary role: set_config()');
RESET ROLE;
SELECT lives_ok(command, 'a superuser: ' || command)
  FROM (VALUES ('SET event_store.notify = off'), ('SET event_store.notify = transaction'), ('SET event_store.notify = auto'),
      ('SET event_store.sync_commit = off'), ('SET event_store.sync_commit = on')) AS c(command);
SELECT throws_ok('SET event_store.notify = sometimes', '22023', NULL, 'a value that is none is refused');
SELECT throws_ok('SET event_store.nothing_such = 1', '42602', NULL, 'a setting that is none is refused');
GRANT SET ON PARAMETER event_store.notify TO es_privileges_owner;
SET ROLE es_privileges_owner;
SELECT lives_ok('SET event_store.notify = off', 'a role that has been granted it may set it');
RESET ROLE;
RESET event_store.notify;
REVOKE SET ON PARAMETER event_store.notify FROM es_privileges_owner;

-- Private functions.
-- A view calls functions as whoever reads it.
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 'event_store'::regnamespace AND proname ~ '^_'
                    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)
                    AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND has_function_privilege('es_privileges_none', oid, 'EXECUTE') $$,
                'private functions that are neither trigger functions nor in views are not for the public');
SELECT matches(pg_temp.outcome(format('SELECT event_store.%I()', proname)), '^(0A000|39P01|39P03): ', format('%s() cannot be called by hand',
    proname))
  FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND prorettype IN ('trigger'::regtype, 'event_trigger'::regtype)
      ORDER BY proname;
CREATE TABLE own (LIKE shop.orders);
SELECT throws_ok($$ CREATE TRIGGER t AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION event_store._guard_insert() $$, 'SE005', NULL,
                 'a guard cannot be put where it does not guard');

DROP TABLE own;
DROP SCHEMA shop CASCADE;
DROP OWNED BY es_privileges_owner, es_privileges_columns, es_privileges_insert, es_privileges_select, es_privileges_both, es_privileges_all,
    es_privileges_none;
DROP ROLE es_privileges_member, es_privileges_owner, es_privileges_columns, es_privileges_insert, es_privileges_select, es_privileges_both,
    es_privileges_all, es_privileges_none;
SELECT * FROM finish();
