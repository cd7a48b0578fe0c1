-- Whose rights: a handler runs as the owner of its projection, whoever runs it,
-- can become nobody else, and leaves nothing behind.
SET client_min_messages = warning;
SELECT plan(124);

\ir include/error_of.sql
\ir include/rows_of.sql

CREATE ROLE es_rights_store;
CREATE ROLE es_rights_owner LOGIN;
CREATE ROLE es_rights_member IN ROLE es_rights_owner;
CREATE ROLE es_rights_reader;
CREATE ROLE es_rights_other;
CREATE SCHEMA own AUTHORIZATION es_rights_owner;
GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
GRANT USAGE ON SCHEMA own TO PUBLIC;
SET ROLE es_rights_store;
SELECT event_store.create_event_table('public.orders') \g /dev/null
SELECT event_store.append_batch('public.orders', 'o-1', '{T,T}', '{1,2}') \g /dev/null
GRANT SELECT ON orders TO es_rights_owner, es_rights_reader;
CREATE TABLE secret AS SELECT 'secret' AS what;
SET ROLE es_rights_owner;
CREATE TABLE own.log (n bigint GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION own.logged() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE result text;
BEGIN
    SELECT coalesce(string_agg(what, ' ' ORDER BY n), 'nothing') INTO result FROM own.log;
    DELETE FROM own.log;
    RETURN result;
END $$;
CREATE FUNCTION own.tries(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'not yet'; END $$;

-- Making one takes SELECT on the event table, an inline one TRIGGER.
SET ROLE es_rights_other;
SELECT is(pg_temp.error_of($$ SELECT event_store.create_projection('none', 'orders', 'SELECT FROM events', mode => 'manual') $$), E'42501\npermission denied for table orders', 'without SELECT on the event table');
SET ROLE es_rights_owner;
SELECT is(pg_temp.error_of($$ SELECT event_store.create_projection('inline', 'orders', 'SELECT FROM events', mode => 'inline') $$),
    E'42501\npermission denied for table orders\nAn inline projection takes the privilege TRIGGER on the event table.', 'inline without TRIGGER on it');
SELECT lives_ok($$ SELECT event_store.create_projection('mine', 'orders', 'INSERT INTO own.log (what) SELECT current_user', mode => 'manual', on_error => 'park') $$, 'manual with SELECT');
SELECT matches(pg_temp.error_of($$ SELECT event_store.create_projection('tables', 'orders', 'SELECT FROM events', mode => 'manual', tables => '{secret}') $$), '^42501\ntable public.secret is not owned by role "es_rights_owner"', 'a read model of somebody else''s');
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('mine', tables => '{secret}') $$), '^42501\n', 'nor later');
SELECT is(pg_temp.error_of($$ SELECT event_store.alter_projection('mine', mode => 'inline') $$) ~ '^42501\npermission denied for table orders', true, 'nor inline later');

-- Who may do what with it.
CREATE TEMP TABLE calls (command text);
INSERT INTO calls SELECT format('SELECT event_store.%s(''mine'')', f) FROM unnest('{alter_projection,pause_projection,resume_projection,reset_projection,run_projection,retry_parked,drop_parked,rebuild_projection,cancel_rebuild,dry_run_projection,check_projection,drop_projection}'::text[]) f;
GRANT SELECT ON calls TO PUBLIC;
SET ROLE es_rights_store;
SELECT is(pg_temp.error_of(command), E'42501\nmust be owner of projection mine', 'not the owner of the event table: ' || command) FROM calls;
SET ROLE es_rights_other;
SELECT is(pg_temp.error_of(command), E'42501\nmust be owner of projection mine', 'nor anybody else: ' || command) FROM calls;
SELECT is(pg_temp.error_of($$ SELECT event_store.wait_for_projection('mine', 0) $$), E'42501\npermission denied for table orders', 'nor wait for it without SELECT or INSERT');
SET ROLE es_rights_member;
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.run_projection('mine') $$), '(2,1,0,2)', 'a member runs it');
SELECT is(own.logged(), 'es_rights_owner', 'as its owner');
SELECT unalike(pg_temp.error_of(command), '42501%', 'a member may: ' || command) FROM calls WHERE command !~ 'drop_projection';
SELECT own.logged() \g /dev/null
RESET ROLE;
SELECT event_store.reset_projection('mine') \g /dev/null
SELECT is(pg_temp.rows_of($$ SELECT * FROM event_store.run_projection('mine') $$) || own.logged(), '(2,1,0,2)es_rights_owner', 'so does a superuser, as its owner');
SELECT is(current_user || ' ' || session_user, 'postgres postgres', 'who is himself afterwards');

-- What is seen of it.
SELECT event_store.alter_projection('mine', 'SELECT 1 / 0 FROM events'), event_store.reset_projection('mine') \g /dev/null
SELECT event_store.run_projection('mine') \g /dev/null
SET ROLE es_rights_reader;
SELECT is(pg_temp.rows_of('SELECT name, owner, position, lag_events, parked FROM event_store.projections'), '(mine,es_rights_owner,2,0,2)', 'who may read the event table sees how far it is');
SELECT is((SELECT count(*) FROM event_store.parked_events), 0::bigint, 'but not what is parked');
SET ROLE es_rights_other;
SELECT is((SELECT count(*) FROM event_store.projections), 0::bigint, 'others see nothing');
SELECT throws_ok('SELECT * FROM event_store.' || t, '42501', 'permission denied for table ' || t, 'nor ' || t) FROM unnest('{registered_projections,projection_checkpoints,projection_parked}'::text[]) t;
SET ROLE es_rights_member;
SELECT is(pg_temp.rows_of('SELECT projection, position, sqlstate FROM event_store.parked_events ORDER BY 2'), '(mine,1,22012) (mine,2,22012)', 'a member sees them');
SET ROLE es_rights_owner;
SELECT event_store.drop_projection('mine') \g /dev/null

-- Whoever could replace a function could act as the projection's owner.
SET ROLE es_rights_other;
CREATE FUNCTION public.others(event event_store.event) RETURNS void LANGUAGE sql AS 'SELECT';
SET ROLE es_rights_owner;
SELECT matches(pg_temp.error_of($$ SELECT event_store.create_projection('f', 'orders', function => 'public.others(event_store.event)', mode => 'manual') $$), E'^42P13\n.*\nIt belongs to another role, which could replace it\\.', 'a function of another role is refused');
SELECT event_store.create_projection('f', 'orders', function => 'own.tries(event_store.event)', mode => 'manual', on_error => 'park') \g /dev/null
RESET ROLE;
ALTER FUNCTION own.tries(event_store.event) OWNER TO es_rights_other;
SELECT matches(pg_temp.error_of($$ SELECT event_store.run_projection('f') $$), E'^SE007\n.* cannot be the function of projection "f"\n.*SQLSTATE 42P13', 'also where it has become another''s since');
ALTER FUNCTION own.tries(event_store.event) OWNER TO postgres;
SELECT matches(pg_temp.rows_of($$ SELECT * FROM event_store.dry_run_projection('f') $$), '"not yet"|not yet', 'that of a superuser is fine');
ALTER FUNCTION own.tries(event_store.event) OWNER TO es_rights_owner;
CREATE FUNCTION public.trusted(event event_store.event) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO own.log (what) VALUES (current_user); END $$;
SET ROLE es_rights_owner;
SELECT event_store.alter_projection('f', function => 'public.trusted(event_store.event)') \g /dev/null
RESET ROLE;
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('f') $$) || own.logged(), '(2)postgres postgres', 'one with SECURITY DEFINER is its owner''s affair');
SELECT event_store.drop_projection('f') \g /dev/null

-- Break-outs, run by a superuser.
CREATE FUNCTION pg_temp.handler(body text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL ROLE es_rights_owner;
    EXECUTE format('CREATE OR REPLACE FUNCTION own.tries(event event_store.event) RETURNS void LANGUAGE plpgsql AS %L', 'BEGIN ' || body || ' END');
    IF NOT EXISTS (SELECT FROM event_store.projections WHERE name = 'tries') THEN
        PERFORM event_store.create_projection('tries', 'public.orders', function => 'own.tries(event_store.event)', mode => 'manual', batch_size => 1, search_path => 'own, public');
    END IF;
    PERFORM event_store.reset_projection('tries');
    RESET ROLE;
    RETURN regexp_replace(pg_temp.rows_of($q$ SELECT events FROM event_store.run_projection('tries', 1) $q$), '^SE007: projection "tries" failed at position 1: ', '');
END $$;
SELECT alike(pg_temp.handler(body || '; INSERT INTO own.log (what) VALUES (current_user);'), expected || '%', 'a handler cannot: ' || body)
  FROM (VALUES ('RESET ROLE', 'cannot set parameter "role" within security-'),
               ('SET ROLE postgres', 'cannot set parameter "role" within security-'),
               ('SET LOCAL ROLE NONE', 'cannot set parameter "role" within security-'),
               ('PERFORM set_config(''role'', ''postgres'', true)', 'cannot set parameter "role" within security-'),
               ('SET SESSION AUTHORIZATION postgres', 'cannot set parameter "session_authorization" within security-'),
               ('RESET SESSION AUTHORIZATION', 'cannot set parameter "session_authorization" within security-'),
               ('DISCARD ALL', 'cannot execute DISCARD within security-restricted operation'),
               ('CREATE TEMP TABLE t (a int)', 'cannot create temporary table within security-restricted operation'),
               ('CREATE TABLE pg_temp.log (what text)', 'cannot create temporary table within security-restricted operation'),
               ('LISTEN x', 'cannot execute LISTEN within security-restricted operation'),
               ('PERFORM what FROM public.secret', 'permission denied for table secret'),
               ('PERFORM event_store.append(''public.orders'', ''o-1'', ''T'', ''{}'')', 'permission denied for table orders'),
               ('ALTER ROLE es_rights_owner SUPERUSER', 'must be superuser to alter superuser roles or change superuser attribute'),
               ('GRANT postgres TO es_rights_owner', 'must be superuser to alter superusers'),
               ('COPY own.log TO PROGRAM ''true''', 'must be superuser or have privileges of the pg_execute_server_program role to COPY to or from an external program'),
               ('PERFORM pg_read_file(''postgresql.conf'')', 'permission denied for function pg_read_file'),
               ('UPDATE event_store.registered_projections SET owner = ''postgres''', 'permission denied for table registered_projections'),
               ('PERFORM lo_export(1, ''/tmp/x'')', 'permission denied for function lo_export')) AS c(body, expected);
SELECT is(own.logged(), 'nothing', 'and nothing of it has been written');
SET ROLE es_rights_owner;
CREATE TABLE own.deferred (a int);
CREATE FUNCTION own.at_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO own.log (what) VALUES (current_user); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON own.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION own.at_end();
RESET ROLE;
SELECT is(pg_temp.handler('INSERT INTO own.deferred VALUES (1);'), 'cannot fire deferred trigger within security-restricted operation', 'nor leave behind a deferred trigger');
SELECT is(own.logged(), 'nothing', 'that would be fired as somebody else');
SELECT is(pg_temp.handler($$ EXECUTE 'PREPARE left_behind AS SELECT 1'; $$), 'cannot execute PREPARE within security-restricted operation', 'nor a prepared statement');
SELECT is((SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'), 0::bigint, 'of which there is none');
SELECT is(pg_temp.handler($$ PERFORM set_config('work_mem', '1234', false), set_config('own.setting', 'left', false); SET search_path = pg_catalog; SET LOCAL timezone = 'Asia/Tokyo'; $$), '(1)', 'settings it may change');
SELECT is(concat_ws(' ', current_setting('work_mem'), coalesce(nullif(current_setting('own.setting', true), ''), 'none'), current_setting('search_path'), current_setting('timezone')), '4MB none "$user", public UTC', 'but they are put back');
SELECT is(pg_temp.handler($$ SET search_path = pg_catalog; SET work_mem = '1234'; RAISE 'ouch'; $$), 'ouch', 'also after an error');
SELECT is(concat_ws(' ', current_user, session_user, current_setting('work_mem'), current_setting('search_path')), 'postgres postgres 4MB "$user", public', 'and so is the role');

-- Nor more in a session of the owner's own.
CREATE FUNCTION pg_temp.own_session(body text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION own.tries(event event_store.event) RETURNS void LANGUAGE plpgsql AS %L', 'BEGIN ' || body || ' END');
    PERFORM event_store.reset_projection('tries');
    RETURN pg_temp.rows_of($q$ SELECT events FROM event_store.run_projection('tries', 1) $q$);
END $$;
SET SESSION AUTHORIZATION es_rights_owner;
SELECT is(current_user || ' ' || session_user, 'es_rights_owner es_rights_owner', 'a superuser has become the owner of a projection');
SELECT alike(pg_temp.own_session(body), 'SE007: projection "tries" failed at position 1: ' || expected || '%', 'its handler cannot: ' || body)
  FROM (VALUES ('SET SESSION AUTHORIZATION postgres;', 'cannot set parameter "session_authorization" within security-'),
               ('RESET SESSION AUTHORIZATION;', 'cannot set parameter "session_authorization" within security-'),
               ('PERFORM set_config(''session_authorization'', ''postgres'', false);', 'cannot set parameter "session_authorization" within security-'),
               ('RESET ROLE;', 'cannot set parameter "role" within security-'),
               ('CREATE TEMP TABLE t (a int);', 'cannot create temporary table within security-restricted operation'),
               ('INSERT INTO own.deferred VALUES (1);', 'cannot fire deferred trigger within security-restricted operation')) AS c(body, expected);
SELECT is(pg_temp.own_session('INSERT INTO own.log (what) VALUES (current_user || '' '' || session_user);') || own.logged(), '(1)es_rights_owner es_rights_owner', 'and is run as he is');
RESET SESSION AUTHORIZATION;

-- Another owner.
SET ROLE es_rights_other;
SELECT is(pg_temp.error_of($$ SELECT event_store.alter_projection('tries', owner => 'es_rights_other') $$), E'42501\nmust be owner of projection tries', 'nobody takes a projection');
SET ROLE es_rights_owner;
SELECT is(pg_temp.error_of(format('SELECT event_store.alter_projection(''tries'', owner => %L)', who)), format(E'42501\nmust be member of role "%s"', who), 'nor gives it to a role that he is not a member of: ' || who) FROM unnest('{es_rights_other,es_rights_member,postgres}'::text[]) who;
RESET ROLE;
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('tries', owner => 'es_rights_other') $$), '^42(501|P13)\n', 'a superuser neither to one who may not read the events');
SELECT matches(pg_temp.error_of($$ SELECT event_store.alter_projection('tries', owner => 'es_rights_reader') $$), '^42(501|P13)\n', 'or could not have the function as a handler');
SET ROLE es_rights_member;
SELECT event_store.create_projection('given', 'public.orders', 'INSERT INTO own.log (what) SELECT current_user', mode => 'manual') \g /dev/null
SELECT lives_ok($$ SELECT event_store.alter_projection('given', owner => 'es_rights_owner') $$, 'a member gives his own to the role');
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('given') $$) || own.logged(), '(2)es_rights_owner', 'as which it runs from now on');
SELECT is((SELECT owner::text FROM event_store.projections WHERE name = 'given'), 'es_rights_owner', 'and whose it is');
SELECT event_store.drop_projection('given') \g /dev/null
RESET ROLE;

-- What the session has cannot be taken for something else.
CREATE TEMP TABLE log (n int, what text);
CREATE FUNCTION pg_temp.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT 'fooled' $$;
CREATE TEMP TABLE events (stream text);
CREATE SCHEMA first;
CREATE TABLE first.log (LIKE own.log INCLUDING ALL);
SET search_path = first, public;
SELECT is(pg_temp.handler($$ INSERT INTO log (what) VALUES (upper('x') || current_setting('search_path')); $$), '(1)', 'a handler finds names by its own search_path');
SELECT is(own.logged(), 'Xown, public, pg_temp', 'not by that of the session, and temporary ones last');
SET ROLE es_rights_owner;
SELECT event_store.create_projection('shadowed', 'public.orders', 'INSERT INTO log (what) SELECT stream FROM events', mode => 'manual', search_path => 'own') \g /dev/null
RESET ROLE;
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('shadowed') $$) || own.logged(), '(2)o-1 o-1', 'events are the batch, even where there is a table of that name');
RESET search_path;
DROP TABLE pg_temp.events, pg_temp.log;

-- Inline, in the session of whoever appends.
SET ROLE es_rights_store;
GRANT TRIGGER ON orders TO es_rights_owner;
GRANT INSERT ON orders TO es_rights_other;
SET ROLE es_rights_owner;
SELECT event_store.drop_projection('tries'), event_store.drop_projection('shadowed') \g /dev/null
SELECT event_store.create_projection('inline', 'public.orders', function => 'own.tries(event_store.event)', mode => 'inline', start_after => 2, search_path => 'own') \g /dev/null
CREATE FUNCTION pg_temp.inline(body text, who text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
    SET LOCAL ROLE es_rights_owner;
    EXECUTE format('CREATE OR REPLACE FUNCTION own.tries(event event_store.event) RETURNS void LANGUAGE plpgsql AS %L', 'BEGIN ' || body || ' END');
    RESET ROLE;
    EXECUTE format('SET LOCAL ROLE %I', who);
    result := split_part(pg_temp.error_of($q$ SELECT event_store.append('public.orders', 'i-1', 'T', '{}') $q$), E'\n', 2);
    RESET ROLE;
    RETURN result;
END $$;
RESET ROLE;
SELECT is(pg_temp.inline('INSERT INTO log (what) VALUES (current_user || '' '' || event.stream);', who), '', who || ' appends, without any rights on the read model') FROM unnest('{es_rights_other,es_rights_store,es_rights_owner,postgres}'::text[]) who WHERE who <> 'es_rights_owner';
SELECT is(own.logged(), 'es_rights_owner i-1 es_rights_owner i-1 es_rights_owner i-1', 'the handler is run as the projection''s owner');
SELECT alike(pg_temp.inline(body, who), expected || '%', format('inline, where %s appends, a handler cannot: %s', who, body))
  FROM unnest('{es_rights_other,postgres}'::text[]) who,
       (VALUES ('SET ROLE postgres;', 'cannot set parameter "role" within security-'),
               ('RESET SESSION AUTHORIZATION;', 'cannot set parameter "session_authorization" within security-'),
               ('CREATE TEMP TABLE t (a int);', 'cannot create temporary table within security-restricted operation'),
               ('INSERT INTO own.deferred VALUES (1);', 'cannot fire deferred trigger within security-restricted operation'),
               ('PERFORM what FROM public.secret;', 'permission denied for table secret')) AS c(body, expected);
SELECT is(pg_temp.inline($$ SET work_mem = '1234'; SET search_path = pg_catalog; $$, 'postgres') || current_setting('work_mem') || current_setting('search_path'), '4MB"$user", public', 'its settings are put back');
-- Somebody else's projection can be made to run by no other trigger.
SET ROLE es_rights_other;
SELECT event_store.create_event_table('public.lure') \g /dev/null
CREATE TRIGGER "projection inline" AFTER INSERT ON public.lure REFERENCING NEW TABLE AS events FOR EACH STATEMENT EXECUTE FUNCTION event_store._project_inline('inline');
SELECT matches(pg_temp.error_of($$ SELECT event_store.append('public.lure', 'i-1', 'T', '{}') $$), '^55000\ntrigger "projection inline" of table "lure" is not that of an inline projection', 'with forged events of another table neither');
RESET ROLE;
-- Policies would hide events from the owner.
SELECT pg_temp.inline('NULL;', 'postgres') \g /dev/null
SET ROLE es_rights_store;
CREATE POLICY a_few ON orders USING (stream = 'o-1');
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.error_of($$ SELECT event_store.append('public.orders', 'o-1', 'T', '{}') $$), E'0A000\nrow-level security of "orders" applies to the owner of inline projection "inline"\nChoose another mode: there the policies are applied.', 'inline is refused under row-level security');
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
SET ROLE es_rights_owner;
SELECT event_store.drop_projection('inline') \g /dev/null
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND tgname LIKE 'projection %'), 0::bigint, 'its owner drops the trigger of a table that he does not own');
SELECT event_store.create_projection('some', 'public.orders', 'INSERT INTO own.log (what) SELECT stream FROM events', mode => 'manual') \g /dev/null
SET ROLE es_rights_store;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
RESET ROLE;
SELECT is(pg_temp.rows_of($$ SELECT events FROM event_store.run_projection('some') $$) || own.logged(), '(2)o-1 o-1', 'by hand the policies are those of the owner, not of who runs it');
REVOKE SELECT ON orders FROM es_rights_owner;
SELECT event_store.append('public.orders', 'o-1', 'T', '{}') \g /dev/null
SELECT is(pg_temp.error_of($$ SELECT event_store.run_projection('some') $$), E'42501\npermission denied for table orders', 'an owner who has lost SELECT');

DROP OWNED BY es_rights_store, es_rights_owner, es_rights_reader, es_rights_other CASCADE;
DROP ROLE es_rights_store, es_rights_member, es_rights_owner, es_rights_reader, es_rights_other;
SELECT * FROM finish();
