-- Roundabout ways to change stored events, to unguard a table, or to disturb
-- others, by an owner who is no superuser.
SET client_min_messages = warning;
SELECT plan(36);

CREATE ROLE es_alice;
CREATE ROLE es_bob;
CREATE SCHEMA a AUTHORIZATION es_alice;
SELECT format('GRANT CREATE ON DATABASE %I TO es_alice', current_database()) \gexec
CREATE EXTENSION citext SCHEMA public;
SET ROLE es_alice;
SET search_path = a, public;

SELECT event_store.create_event_table('t') \g /dev/null
SELECT event_store.append_batch('t', 's-1', '{T,T}', '{1,2}') \g /dev/null
CREATE TYPE like_t AS (position bigint, stream text COLLATE "C", version bigint, event_id uuid, type text COLLATE "C", schema_version integer,
    data jsonb, metadata jsonb, correlation_id text, causation_id text, occurred_at timestamptz, recorded_at timestamptz);
SELECT throws_ok(command, 'SE005', 'the command would leave the append-only table "t" unguarded', command) FROM (VALUES
    ($$ALTER TABLE t DROP COLUMN data, ADD COLUMN data jsonb NOT NULL DEFAULT '0'$$),
    ($$ALTER TABLE t DROP COLUMN metadata, ADD COLUMN metadata jsonb$$),
    ($$ALTER VIEW t RENAME COLUMN data TO old_data$$),
    ($$ALTER MATERIALIZED VIEW t RENAME COLUMN data TO old_data$$),
    ($$ALTER TABLE t OF like_t$$),
    ($$ALTER TRIGGER event_store_append_only ON t DEPENDS ON EXTENSION citext$$),
    ($$ALTER TRIGGER event_store_append_only_row ON t DEPENDS ON EXTENSION citext$$),
    ($$ALTER TRIGGER zzz_event_store_append ON t DEPENDS ON EXTENSION citext$$)) AS v(command);
SELECT throws_ok($$ALTER INDEX t RENAME TO u; ALTER TABLE u RENAME COLUMN data TO old_data$$, 'SE005', NULL, 'a column renamed after the table');
SELECT is((SELECT jsonb_agg(data ORDER BY version) FROM t), '[1, 2]', 'the events are what they were');
SELECT is(event_store.check_guards('t'), NULL, 'and all is in order');

-- An extra column is its owner's to drop.
ALTER TABLE t ADD COLUMN extra int;
SELECT lives_ok('ALTER TABLE t DROP COLUMN extra', 'a column that was added can be dropped');
SELECT is((SELECT last_version FROM event_store.append('t', 's-1', 'T', '3')), 3::bigint, 'and appends go on');

-- An append-only table.
CREATE TABLE audit (what text, who text);
SELECT event_store.make_append_only('audit') \g /dev/null
INSERT INTO audit VALUES ('login', 'eve');
SELECT throws_ok('ALTER TABLE audit DROP COLUMN who', 'SE002', 'cannot drop column "who" of "audit": it is append-only', 'no column of it can be dropped');
SELECT throws_ok('ALTER TRIGGER event_store_append_only ON audit DEPENDS ON EXTENSION citext', 'SE005', NULL, 'nor its guards made to go with something else');
SELECT throws_ok('DROP TRIGGER event_store_append_only_row ON audit', 'SE005', NULL, 'nor dropped');
SELECT lives_ok('ALTER TABLE audit ADD COLUMN whence text', 'a column can be added');
SELECT throws_ok('ALTER TABLE audit ALTER COLUMN what TYPE varchar', 'SE002', 'cannot change a column''s type in "audit": it is append-only',
    'nor given another type, also where that rewrites nothing');
CREATE FUNCTION rename_schema() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    IF to_regnamespace('a') IS NOT NULL THEN ALTER SCHEMA a RENAME TO a2; END IF; RETURN 'forged'; END $$;
SELECT throws_ok('ALTER TABLE audit DROP COLUMN who, ADD COLUMN who text DEFAULT rename_schema()', 'SE002', NULL, 'nor if the schema is renamed meanwhile');

-- While ALTER TABLE copies the rows, none can be added.
CREATE FUNCTION append_meanwhile() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM event_store.append('a.t', 'lost', 'T', '1'); RETURN 1; END $$;
SELECT throws_ok('ALTER TABLE t ADD COLUMN n int DEFAULT append_meanwhile()', '55006', 'cannot append to "t" while ALTER TABLE rewrites it',
    'a default that appends to the table being rewritten');
SELECT lives_ok($$ SELECT event_store.append('t', 's-1', 'T', '4') $$, 'afterwards appends go on');
CREATE OR REPLACE FUNCTION append_meanwhile() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    BEGIN RAISE 'caught'; EXCEPTION WHEN OTHERS THEN NULL; END;
    PERFORM event_store.append('a.t', 'lost', 'T', '1'); RETURN 1; END $$;
SELECT throws_ok('ALTER TABLE t ADD COLUMN n int DEFAULT append_meanwhile()', '55006', NULL, 'also after it has caught an error');
CREATE OR REPLACE FUNCTION append_meanwhile() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    BEGIN PERFORM event_store.append('a.t', 'lost', 'T', '1'); EXCEPTION WHEN object_in_use THEN NULL; END;
    INSERT INTO a.t (stream, type, data, n) VALUES ('lost', 'T', '1', 0); RETURN 1; END $$;
SELECT throws_ok('ALTER TABLE t ADD COLUMN n int DEFAULT append_meanwhile()', '55006', NULL, 'or that very one, and tries INSERT');
SELECT lives_ok('ALTER TABLE t ADD COLUMN n float8 DEFAULT random()', 'another volatile default will do');
SELECT lives_ok($$ SELECT event_store.append('t', 's-1', 'T', '5') $$, 'and after it appends go on');

-- The extension's schema is not its installer's.
SELECT is((SELECT rolsuper FROM pg_namespace JOIN pg_roles r ON r.oid = nspowner WHERE nspname = 'event_store'), true, 'the schema belongs to a superuser');
SELECT lives_ok('DROP TABLE audit', 'and the table dropped');

-- Tables that only look like event tables.
CREATE TABLE bare (position int, stream int, version int, event_id int, type int, schema_version int, data int, metadata int,
    correlation_id int, causation_id int, occurred_at int, recorded_at int);
SELECT lives_ok($$SELECT event_store.make_append_only('bare')$$, 'columns of the same names, without any constraint');
SELECT throws_ok('DELETE FROM bare', 'SE002', NULL, 'it is append-only then');
CREATE TABLE fake (LIKE t INCLUDING ALL);
CREATE TRIGGER zzz_event_store_append BEFORE INSERT ON fake FOR EACH ROW EXECUTE FUNCTION event_store._guard_insert();
SET ROLE es_bob;
CREATE TEMP SEQUENCE bobs;
SELECT lives_ok('ALTER SEQUENCE bobs OWNED BY NONE', 'a broken event table of somebody else does not stop ALTER SEQUENCE');
SELECT lives_ok('DROP SEQUENCE bobs', 'nor DROP SEQUENCE');

-- Looking at all event tables runs no code of their owners.
SET ROLE es_alice;
CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'es_alice' THEN RAISE 'run by %', current_user; END IF; RETURN 1; END $$;
CREATE FUNCTION trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN a.tell(); END $$;
SELECT event_store.create_event_table('trapped') \g /dev/null
CREATE INDEX ON trapped ((a.trap(1)));
CREATE INDEX ON trapped (type) WHERE a.trap(2) = 1;
SELECT event_store.create_event_table('veiled') \g /dev/null
ALTER TABLE veiled ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON veiled USING (a.tell() = 1);
GRANT SELECT ON veiled TO PUBLIC;
GRANT USAGE ON SCHEMA a TO PUBLIC;
RESET ROLE;
SELECT is((SELECT count(*) FROM event_store.event_tables WHERE guarded AND event_table IN ('a.trapped'::regclass, 'a.veiled')), 2::bigint,
    'event_tables, for a superuser: no index expression');
SELECT is(event_store.check_guards('a.trapped'), NULL, 'nor check_guards()');
SELECT is(event_store.channel('a.trapped') IS NOT NULL, true, 'nor channel()');
SET ROLE es_bob;
SELECT is((SELECT last_position FROM event_store.event_tables WHERE event_table = 'a.veiled'::regclass), NULL, 'event_tables: no policy either');
RESET ROLE;

-- Under row-level security the ids that are returned are those that are stored.
SET search_path = public;
CREATE TABLE ids (id uuid);
GRANT ALL ON ids TO PUBLIC;
SELECT event_store.create_event_table('secured') \g /dev/null
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secured USING (true);
GRANT SELECT, INSERT ON secured TO es_bob;
SET ROLE es_bob;
INSERT INTO public.ids SELECT unnest(event_ids) FROM event_store.append_batch('secured', 's-1', array_fill('T'::text, ARRAY[3000]), array_fill('{}'::jsonb, ARRAY[3000]));
SELECT is((SELECT count(*) FROM public.ids JOIN secured ON event_id = id), 3000::bigint, 'ids returned under row-level security');
RESET ROLE;

DROP TABLE secured, ids;
DROP SCHEMA a CASCADE;
DROP OWNED BY es_alice, es_bob;
DROP ROLE es_alice, es_bob;
SELECT * FROM finish();
