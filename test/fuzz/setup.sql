-- What the fuzzer plays with: roles, tables of every kind, handlers, reducers and
-- upcasters, good and bad.  fuzz.mend() brings back what it has dropped, and
-- empties what has grown.
SET client_min_messages = warning;
SET check_function_bodies = off;
CREATE EXTENSION event_store;

CREATE ROLE fuzz_owner LOGIN;
CREATE ROLE fuzz_reader LOGIN;
CREATE ROLE fuzz_nobody LOGIN;
CREATE ROLE fuzz_other LOGIN;
GRANT CREATE ON DATABASE fuzz TO fuzz_owner;
GRANT CREATE ON SCHEMA public TO fuzz_owner, fuzz_other;
CREATE SCHEMA fuzz;
GRANT USAGE ON SCHEMA fuzz TO PUBLIC;
ALTER DATABASE fuzz SET search_path = public, fuzz;
SET search_path = public, fuzz;

-- Relations that are no event tables.
CREATE TABLE plain (id bigint PRIMARY KEY, data jsonb);
CREATE VIEW a_view AS SELECT * FROM plain;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM plain;
CREATE SEQUENCE a_sequence;
CREATE TYPE a_type AS (a int, b text);
CREATE TABLE parted (LIKE event_store.event) PARTITION BY LIST (stream);
CREATE TABLE parent (position bigint);
CREATE TABLE lookalike (LIKE event_store.event);
CREATE UNLOGGED TABLE unlogged (id int);
CREATE TABLE appendonly (id int, note text);
SELECT event_store.make_append_only('appendonly');
CREATE TABLE dropped (id int);
CREATE TABLE fuzz.dropped_oid AS SELECT 'dropped'::regclass::oid::bigint AS oid;
DROP TABLE dropped;
GRANT ALL ON plain, appendonly, lookalike, parted, parent, a_view TO fuzz_owner;
GRANT SELECT ON fuzz.dropped_oid TO PUBLIC;

-- Functions for aggregates, upcasters and projections.
CREATE FUNCTION fuzz.reduce(s jsonb, e event_store.event) RETURNS jsonb IMMUTABLE LANGUAGE sql
    AS $$ SELECT coalesce(s, '{}') || jsonb_build_object('n', e.version) $$;
CREATE FUNCTION fuzz.reduce_plpgsql(s jsonb, e event_store.event) RETURNS jsonb STABLE LANGUAGE plpgsql
    AS $$ BEGIN RETURN jsonb_build_array(s -> 0, e.type); END $$;
CREATE FUNCTION fuzz.reduce_null(s jsonb, e event_store.event) RETURNS jsonb IMMUTABLE LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION fuzz.reduce_strict(s jsonb, e event_store.event) RETURNS jsonb IMMUTABLE STRICT LANGUAGE sql AS 'SELECT s';
CREATE FUNCTION fuzz.reduce_error(s jsonb, e event_store.event) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql
    AS $$ BEGIN IF e.version % 3 = 0 THEN RAISE EXCEPTION 'no threes'; END IF; RETURN s; END $$;
CREATE FUNCTION fuzz.reduce_volatile(s jsonb, e event_store.event) RETURNS jsonb VOLATILE LANGUAGE sql AS 'SELECT s';
CREATE FUNCTION fuzz.reduce_writes(s jsonb, e event_store.event) RETURNS jsonb STABLE LANGUAGE plpgsql
    AS $$ BEGIN PERFORM event_store.append('ev_a', 'order-1', 'T', '{}'); RETURN s; END $$;
CREATE FUNCTION fuzz.reduce_set(s jsonb, e event_store.event) RETURNS SETOF jsonb IMMUTABLE LANGUAGE sql AS 'SELECT s';
CREATE FUNCTION fuzz.up(d jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT jsonb_build_object('old', d) $$;
CREATE FUNCTION fuzz.up_null(d jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION fuzz.up_error(d jsonb) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'cannot'; END $$;
CREATE FUNCTION fuzz.up_catches(d jsonb) RETURNS jsonb STABLE LANGUAGE plpgsql
    AS $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN d; END $$;
CREATE FUNCTION fuzz.handle(e event_store.event) RETURNS void LANGUAGE sql
    AS $$ INSERT INTO public.model VALUES (e.stream, e.version) ON CONFLICT (stream) DO UPDATE SET version = excluded.version $$;
CREATE FUNCTION fuzz.handle_error(e event_store.event) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN IF e.version % 2 = 0 THEN RAISE EXCEPTION 'not even' USING ERRCODE = '22023'; END IF; END $$;
CREATE FUNCTION fuzz.handle_appends(e event_store.event) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN IF e.type <> 'Echo' THEN PERFORM event_store.append('public.ev_b', 'echo-1', 'Echo', '{}'); END IF; END $$;
CREATE FUNCTION fuzz.set_version() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN IF NEW.type = 'Odd' THEN NEW.stream := NEW.stream || 'x'; ELSIF NEW.type = 'Skip' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE FUNCTION fuzz.after_rows() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM count(*) FROM new_rows; RETURN NULL; END $$;

-- Many of something.
CREATE FUNCTION fuzz.many_streams(n int) RETURNS jsonb IMMUTABLE LANGUAGE sql
    AS $$ SELECT jsonb_agg(jsonb_build_object('stream', 'many-' || i, 'events', '[{"type": "T", "data": {}}]'::jsonb)) FROM generate_series(1, n) i $$;
CREATE FUNCTION fuzz.many_events(n int) RETURNS jsonb IMMUTABLE LANGUAGE sql
    AS $$ SELECT jsonb_agg(jsonb_build_object('type', 'T' || i % 7, 'data', i)) FROM generate_series(1, n) i $$;

-- An event table, unless it is there and not too full.
CREATE FUNCTION fuzz.event_table(name text, role text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    rows bigint := 0;
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM %I', name) INTO rows;
        IF rows <= 400 THEN
            RETURN false;
        END IF;
        EXECUTE format('DROP TABLE %I CASCADE', name);
    END IF;
    EXECUTE format('SET LOCAL ROLE %I', role);
    PERFORM event_store.create_event_table('public.' || name);
    RESET ROLE;
    EXECUTE format('GRANT SELECT ON %I TO fuzz_reader; GRANT SELECT, INSERT ON %1$I TO fuzz_other', name);
    EXECUTE format($q$INSERT INTO %I (stream, event_id, type, schema_version, data, correlation_id)
        SELECT 'order-' || i %% 3, format('00000000-0000-4000-8000-00000000000%%s', i)::uuid, 'T' || i %% 2, 1 + i %% 2, jsonb_build_object('i', i), 'c-1'
          FROM generate_series(1, 9) i$q$, name);
    RETURN true;
END $$;

CREATE PROCEDURE fuzz.mend() LANGUAGE plpgsql AS $$
DECLARE
    t text;
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RESET ROLE;
    FOR t IN SELECT c.relname FROM pg_class c WHERE c.relname ~ '^made_' AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('DROP TABLE %I CASCADE', t);
    END LOOP;
    PERFORM fuzz.event_table('ev_a', 'fuzz_owner'), fuzz.event_table('ev_b', 'fuzz_owner'), fuzz.event_table('ev_other', 'fuzz_other');
    IF fuzz.event_table('ev_policy', 'fuzz_owner') THEN
        CREATE POLICY most ON ev_policy USING (stream <> 'order-1');
        ALTER TABLE ev_policy ENABLE ROW LEVEL SECURITY;
        ALTER TABLE ev_policy FORCE ROW LEVEL SECURITY;
    END IF;
    IF fuzz.event_table('ev_columns', 'fuzz_owner') THEN
        ALTER TABLE ev_columns ADD n serial, ADD doubled int GENERATED ALWAYS AS (schema_version * 2) STORED,
            ADD small text DEFAULT 'x' CHECK (length(small) < 10), ADD ref bigint REFERENCES plain;
        CREATE TRIGGER before_row BEFORE INSERT ON ev_columns FOR EACH ROW EXECUTE FUNCTION fuzz.set_version();
        CREATE TRIGGER after_rows AFTER INSERT ON ev_columns REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION fuzz.after_rows();
        CREATE UNIQUE INDEX ON ev_columns ((data ->> 'unique')) WHERE data ? 'unique';
        CREATE INDEX ON ev_columns USING gin (data);
        ALTER TABLE ev_columns ADD EXCLUDE USING btree (n WITH =) DEFERRABLE INITIALLY DEFERRED;
    END IF;
    -- One whose guards do not fire, as no DDL can make it.
    IF fuzz.event_table('ev_broken', 'fuzz_owner') THEN
        UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 'ev_broken'::regclass AND tgname ~ 'append_only';
    END IF;
    IF to_regclass('model') IS NULL THEN
        CREATE TABLE model (stream text PRIMARY KEY, version bigint);
        ALTER TABLE model OWNER TO fuzz_owner;
    END IF;
    PERFORM event_store.create_aggregate(n, r::regprocedure, '{}', 2)
       FROM (VALUES ('merge', 'event_store.merge(jsonb,event_store.event)'), ('fold', 'fuzz.reduce(jsonb,event_store.event)'),
                    ('plpgsql', 'fuzz.reduce_plpgsql(jsonb,event_store.event)'), ('null', 'fuzz.reduce_null(jsonb,event_store.event)'),
                    ('error', 'fuzz.reduce_error(jsonb,event_store.event)')) v (n, r)
      WHERE NOT EXISTS (SELECT FROM event_store.aggregates a WHERE a.name = n);
    -- An inline projection is refused where the transaction has appended.
    COMMIT;
    PERFORM pg_advisory_xact_lock(1);
    PERFORM event_store.drop_projection(p.name) FROM event_store.projections p WHERE p.name ~ '^p[0-9]';
    SET LOCAL ROLE fuzz_owner;
    PERFORM event_store.create_projection(n, 'public.ev_a', statement => 'INSERT INTO model SELECT stream, max(version) FROM events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET version = excluded.version',
                                          mode => m, search_path => 'public', tables => '{public.model}', max_attempts => 2)
       FROM (VALUES ('background', 'async'), ('by_hand', 'manual'), ('inline', 'inline')) v (n, m)
      WHERE NOT EXISTS (SELECT FROM event_store.projections p WHERE p.name = n);
    PERFORM event_store.create_projection('parks', 'public.ev_a', function => 'fuzz.handle_error(event_store.event)', mode => 'manual', on_error => 'park', max_attempts => 1)
      WHERE NOT EXISTS (SELECT FROM event_store.projections p WHERE p.name = 'parks');
END $$;
CALL fuzz.mend();
