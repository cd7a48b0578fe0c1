-- What the owner of an event table says about its events: which types there are,
-- and how data of an old schema version becomes that of the next.

CREATE TABLE event_store.registered_event_types (
    event_table     regclass NOT NULL,
    type            text COLLATE "C" NOT NULL,
    description     text,
    owner_team      text,
    example         jsonb,
    PRIMARY KEY (event_table, type)
) USING heap;
COMMENT ON TABLE event_store.registered_event_types IS
'The event types that register_event_type() has been told of; to be read by the view event_types. The owner of the database may read and fill it, so that a dump can be made and restored; a row is accepted only from a role that owns the event table.';

-- The function by its name: an OID would not survive a dump, and pg_upgrade
-- refuses regprocedure.
CREATE TABLE event_store.registered_upcasters (
    event_table     regclass NOT NULL,
    type            text COLLATE "C" NOT NULL,
    from_version    integer NOT NULL CHECK (from_version BETWEEN 1 AND 2147483646),
    function        text NOT NULL,
    PRIMARY KEY (event_table, type, from_version)
) USING heap;
COMMENT ON TABLE event_store.registered_upcasters IS
'The upcasters that register_upcaster() has been told of; to be read by the view upcasters. The owner of the database may read and fill it, so that a dump can be made and restored; a row is accepted only from a role that owns the event table.';

SELECT pg_catalog.pg_extension_config_dump('event_store.registered_event_types', '');
SELECT pg_catalog.pg_extension_config_dump('event_store.registered_upcasters', '');

-- A database owner who is no superuser can dump and restore.
GRANT SELECT, INSERT ON event_store.registered_event_types, event_store.registered_upcasters TO pg_database_owner;

CREATE FUNCTION event_store._check_registration() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_has_role((SELECT c.relowner FROM pg_class c
                     WHERE c.oid = NEW.event_table), 'USAGE') IS NOT TRUE THEN
        RAISE EXCEPTION 'must be owner of table %', NEW.event_table
            USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION event_store._check_registration() IS
'Trigger function: accepts what is said about the events of a table only from a role that owns the event table. Readers run the upcasters.';

CREATE FUNCTION event_store._note_upcaster() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_note_upcaster';
COMMENT ON FUNCTION event_store._note_upcaster() IS
'Trigger function: lets all sessions know that the upcasters of an event table have changed.';

CREATE TRIGGER check_registration BEFORE INSERT ON event_store.registered_event_types
    FOR EACH ROW EXECUTE FUNCTION event_store._check_registration();
COMMENT ON TRIGGER check_registration ON event_store.registered_event_types IS
'Accepts a row only from a role that owns the event table.';
CREATE TRIGGER check_registration BEFORE INSERT ON event_store.registered_upcasters
    FOR EACH ROW EXECUTE FUNCTION event_store._check_registration();
COMMENT ON TRIGGER check_registration ON event_store.registered_upcasters IS
'Accepts a row only from a role that owns the event table.';
CREATE TRIGGER note_upcaster AFTER INSERT OR UPDATE OR DELETE ON event_store.registered_upcasters
    FOR EACH ROW EXECUTE FUNCTION event_store._note_upcaster();
ALTER TABLE event_store.registered_upcasters ENABLE ALWAYS TRIGGER note_upcaster;
COMMENT ON TRIGGER note_upcaster ON event_store.registered_upcasters IS
'Lets all sessions know that the upcasters of an event table have changed.';

CREATE VIEW event_store.event_types WITH (security_barrier) AS
SELECT t.event_table, t.type, t.description, t.owner_team, t.example
  FROM event_store.registered_event_types t
 WHERE pg_catalog.has_table_privilege(t.event_table, 'SELECT');
COMMENT ON VIEW event_store.event_types IS
'The event types that have been registered, of the event tables that the caller may read. See register_event_type().';
GRANT SELECT ON event_store.event_types TO PUBLIC;

CREATE VIEW event_store.upcasters WITH (security_barrier) AS
SELECT u.event_table, u.type, u.from_version, u.function
  FROM event_store.registered_upcasters u
 WHERE pg_catalog.has_table_privilege(u.event_table, 'SELECT');
COMMENT ON VIEW event_store.upcasters IS
'The upcasters of the event tables that the caller may read: the function that takes data of an event type from schema version from_version to the next. See register_upcaster().';
GRANT SELECT ON event_store.upcasters TO PUBLIC;

CREATE FUNCTION event_store.register_event_type(
    event_table regclass,
    type text,
    description text DEFAULT NULL,
    owner_team text DEFAULT NULL,
    example jsonb DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_register_event_type';
COMMENT ON FUNCTION event_store.register_event_type(regclass, text, text, text, jsonb) IS
'Says what an event type means, who looks after it, and what its data looks like, in place of what was said before. Nothing is checked against it: it is what event_catalog shows. Only the owner of the event table may. Raises 22004 and 22023 for a type that no event can have.';

CREATE FUNCTION event_store.unregister_event_type(
    event_table regclass,
    type text)
    RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_unregister_event_type';
COMMENT ON FUNCTION event_store.unregister_event_type(regclass, text) IS
'Forgets what register_event_type() said; its events and upcasters stay. Whether it was registered. Only the owner of the event table may.';

CREATE FUNCTION event_store.register_upcaster(
    event_table regclass,
    type text,
    from_version integer,
    function regprocedure)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_register_upcaster';
COMMENT ON FUNCTION event_store.register_upcaster(regclass, text, integer, regprocedure) IS
'From now on, whoever reads an event of that type that is stored with schema_version = from_version gets function(data) as its data and from_version + 1 as its schema_version, and so on along the chain of upcasters; what is stored stays as it is, and a read with raw => true returns it. Replaces the function that was registered for that version. The function: (jsonb) RETURNS jsonb, plain, IMMUTABLE or STABLE (an event looks the same whenever it is read), not temporary, or 42P13 is raised. The upcasters of a type form a chain without a hole: a new one must be for a version next to those there are, below or above, or 22023 is raised; a cycle cannot be. An event older than the first upcaster, or newer than the last, is delivered as stored; check_upcasters() reports the older ones.
The function is run by whoever reads, with his privileges, as a function in a view is: he must be allowed to execute it (42501), and trusts its owner and that of the event table; a superuser who does not, reads raw. While it runs, nothing can be written, the role stays what it is, search_path is pg_catalog, pg_temp, and settings that it changes are put back. An error in it, or a NULL, is raised as SE008 upcast_failed, which names the event; so is a function that is not there any more under the name it had, or has become VOLATILE. Only the owner of the event table may register.';

CREATE FUNCTION event_store.unregister_upcaster(
    event_table regclass,
    type text,
    from_version integer)
    RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_unregister_upcaster';
COMMENT ON FUNCTION event_store.unregister_upcaster(regclass, text, integer) IS
'Takes an upcaster away again: the first or the last of its type''s chain; one in between would leave a hole, and 22023 is raised. Whether there was one. Only the owner of the event table may.';

CREATE FUNCTION event_store.check_upcasters(
    event_table regclass,
    sample bigint DEFAULT NULL)
    RETURNS TABLE ("position" bigint, event_id uuid, stream text, version bigint,
                   type text, schema_version integer, sqlstate text, message text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 10
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    e       record;
    reached integer;
    code    text;
    problem text;
BEGIN
    PERFORM event_store.channel(event_table);   -- is it an event table?
    IF sample < 1 THEN
        RAISE EXCEPTION 'sample must be at least 1, not %', sample USING ERRCODE = '22023';
    END IF;

    -- Also what no event needs yet.
    RETURN QUERY
        SELECT NULL::bigint, NULL::uuid, NULL::text, NULL::bigint, u.type, u.from_version,
               'SE008', format('upcaster %s does not exist', u.function)
          FROM event_store.upcasters u
         WHERE u.event_table = check_upcasters.event_table
           AND NOT EXISTS (SELECT 1
                             FROM pg_proc p
                             JOIN pg_namespace n ON n.oid = p.pronamespace
                            WHERE format('%I.%I(jsonb)', n.nspname, p.proname) = u.function
                              AND p.pronargs = 1 AND p.proargtypes[0] = 'jsonb'::regtype);

    -- The sample: so many of the n of each type and version, at equal distances,
    -- the last one always.
    FOR e IN EXECUTE format($q$
        SELECT s.*
          FROM (SELECT e.position, e.event_id, e.stream, e.version, e.type, e.schema_version, u.newest,
                       row_number() OVER (w ORDER BY e.position) AS i,
                       count(*) OVER w AS n
                  FROM ONLY %s e
                  JOIN (SELECT u.type, max(u.from_version) + 1 AS newest
                          FROM event_store.upcasters u
                         WHERE u.event_table = $1
                         GROUP BY u.type) u ON u.type = e.type AND u.newest > e.schema_version
                WINDOW w AS (PARTITION BY e.type, e.schema_version)) s
         WHERE $2 IS NULL OR s.i * least($2, s.n) / s.n > (s.i - 1) * least($2, s.n) / s.n
         ORDER BY s.position $q$, event_table) USING event_table, sample
    LOOP
        BEGIN
            SELECT r.schema_version INTO reached
              FROM event_store.read_event(event_table, e.event_id) r;
            CONTINUE WHEN reached >= e.newest;
            code := 'SE008';
            problem := format('no upcaster takes schema version %s to the next', reached);
        EXCEPTION WHEN SQLSTATE 'SE008' THEN    -- not memory or locks: that is no event's fault
            code := SQLSTATE;
            problem := SQLERRM;
        END;
        RETURN QUERY SELECT e.position, e.event_id, e.stream, e.version, e.type,
                            e.schema_version, code, problem;
    END LOOP;
END $$;
COMMENT ON FUNCTION event_store.check_upcasters(regclass, bigint) IS
'Reads every stored event that has a type with upcasters and a schema version below their newest, as a reader would, and returns a row for each that cannot be upcast: the event, and the SQLSTATE and message of the error; none where all is well. Also the events that are older than the chain of their type begins, which readers get as they are stored, and, without an event, upcasters whose function does not exist. sample: only so many events of each type and schema version, evenly spread over the table, the newest among them (NULL: all). Nothing is written. Cost: a scan and a sort of the table, and a read by event id for each event that is checked. Needs SELECT on the event table; row-level security applies. Raises 22023 for a sample below 1.';

CREATE FUNCTION event_store.event_catalog(event_table regclass)
    RETURNS TABLE (type text, registered boolean, description text, owner_team text, example jsonb,
                   events bigint, streams bigint, first_recorded_at timestamptz, last_recorded_at timestamptz,
                   bytes bigint, schema_versions integer[], upcast_to integer)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 100
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM event_store.channel(event_table);   -- is it an event table?
    RETURN QUERY EXECUTE format($q$
        WITH seen AS (
            SELECT s.type, sum(s.events)::bigint AS events, count(DISTINCT s.stream) AS streams,
                   min(s.first_recorded_at) AS first_recorded_at, max(s.last_recorded_at) AS last_recorded_at,
                   sum(s.bytes)::bigint AS bytes,
                   array_agg(DISTINCT s.schema_version ORDER BY s.schema_version) AS schema_versions
              FROM (SELECT e.type, e.stream, e.schema_version, count(*) AS events,
                           min(e.recorded_at) AS first_recorded_at, max(e.recorded_at) AS last_recorded_at,
                           sum(pg_column_size(e.data) + coalesce(pg_column_size(e.metadata), 0)) AS bytes
                      FROM ONLY %s e
                     GROUP BY e.type, e.stream, e.schema_version) s
             GROUP BY s.type),
        upcast AS (
            SELECT u.type, max(u.from_version) + 1 AS upcast_to
              FROM event_store.upcasters u
             WHERE u.event_table = $1
             GROUP BY u.type),
        registered AS (
            SELECT t.* FROM event_store.event_types t WHERE t.event_table = $1)
        SELECT type, r.type IS NOT NULL, r.description, r.owner_team, r.example,
               coalesce(s.events, 0), coalesce(s.streams, 0), s.first_recorded_at, s.last_recorded_at,
               coalesce(s.bytes, 0), coalesce(s.schema_versions, '{}'), u.upcast_to
          FROM seen s
          FULL JOIN registered r USING (type)
          FULL JOIN upcast u USING (type)
         ORDER BY type $q$, event_table) USING event_table;
END $$;
COMMENT ON FUNCTION event_store.event_catalog(regclass) IS
'The event types of an event table: those that it has events of, those that have been registered, and those that have upcasters. registered, description, owner_team, example: as register_event_type() was told. events, streams: how many events of the type there are, and in how many streams (0: none yet); first_recorded_at, last_recorded_at: when the first and the last were recorded; bytes: what their data and metadata take up, as stored; schema_versions: those they are stored with; upcast_to: the schema version in which readers get them, where there are upcasters. Cost: a scan of the whole table. Needs SELECT on the event table; row-level security applies.';

CREATE VIEW event_store.event_catalog AS
SELECT c.oid::pg_catalog.regclass AS event_table, e.*
  FROM pg_catalog.pg_class c
 CROSS JOIN LATERAL event_store.event_catalog(c.oid::pg_catalog.regclass) e
 WHERE c.oid IN (SELECT t.tgrelid
                   FROM pg_catalog.pg_trigger t
                  WHERE t.tgfoid = 'event_store._guard_insert()'::pg_catalog.regprocedure)
   AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
       -- Not through policies: they are the owner's code.
   AND NOT pg_catalog.row_security_active(c.oid);
COMMENT ON VIEW event_store.event_catalog IS
'The event types of all event tables that the caller may read, but for those on which row-level security applies to the caller: see the function event_catalog(event_table). It scans these tables from end to end; WHERE event_table = ''...''::regclass keeps it to one.';
GRANT SELECT ON event_store.event_catalog TO PUBLIC;
