-- A role that may create objects in the database, and no more, installs the
-- extension; it is the extension's owner then, and gets past no guard by that.
SET client_min_messages = warning;
SELECT plan(21);

DROP EXTENSION event_store;
CREATE ROLE es_trusted_owner;
CREATE ROLE es_trusted_other;
SELECT format('GRANT CREATE ON DATABASE %I TO es_trusted_owner', current_database()) \gexec
CREATE SCHEMA shop AUTHORIZATION es_trusted_owner;
SET ROLE es_trusted_other;
SELECT throws_ok('CREATE EXTENSION event_store', '42501', NULL, 'a role without CREATE on the database does not install it');
SET ROLE es_trusted_owner;
SELECT lives_ok('CREATE EXTENSION event_store', 'a role with CREATE on the database installs it');
RESET ROLE;
SELECT is((SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'event_store'), 'es_trusted_owner', 'and owns it');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proowner <> 10 $$,
    'but none of its functions');
SELECT is_empty($$ SELECT evtname FROM pg_event_trigger WHERE evtname ~ '^event_store' AND evtowner <> 10 $$, 'nor its event triggers');

SET ROLE es_trusted_owner;
SELECT event_store.create_event_table('shop.orders') \g /dev/null
SELECT is((SELECT last_version FROM event_store.append('shop.orders', 'a-1', 'T', '1', 0)), 1::bigint, 'it makes an event table and appends');
SELECT throws_ok(command, state, NULL, 'the owner of extension and table: ' || command)
  FROM (VALUES ('UPDATE shop.orders SET data = ''2''', 'SE002'),
               ('DELETE FROM shop.orders', 'SE002'),
               ('TRUNCATE shop.orders', 'SE002'),
               ('ALTER TABLE shop.orders DISABLE TRIGGER ALL', 'SE005'),
               ('DROP TRIGGER event_store_append_only ON shop.orders', 'SE005'),
               ('ALTER EVENT TRIGGER event_store_check_ddl DISABLE', '42501'),
               ('DROP EVENT TRIGGER event_store_check_ddl', '42501'),
               ('ALTER EXTENSION event_store DROP EVENT TRIGGER event_store_check_ddl', '42501'),
               ('ALTER EXTENSION event_store DROP FUNCTION event_store._guard_change()', '42501'),
               ('CREATE OR REPLACE FUNCTION event_store._guard_change() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$', '42501'),
               ('ALTER FUNCTION event_store._guard_change() RENAME TO x', '42501'),
               ('DROP FUNCTION event_store._guard_change() CASCADE', '42501'),
               ('SET session_replication_role = replica', '42501')) AS c(command, state);
SELECT is((SELECT data FROM event_store.read_stream('shop.orders', 'a-1')), '1', 'the event is as it was');
SELECT throws_ok('DROP EXTENSION event_store', '2BP01', NULL, 'it does not drop the extension while the event table exists');
RESET ROLE;

DROP SCHEMA shop CASCADE;
DROP EXTENSION event_store;
SELECT format('REVOKE CREATE ON DATABASE %I FROM es_trusted_owner', current_database()) \gexec
DROP ROLE es_trusted_owner, es_trusted_other;
SELECT * FROM finish();
