-- Event tables: creation, guards, and the event triggers that keep DDL from
-- breaking them.

CREATE FUNCTION event_store.category(stream text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_category';
COMMENT ON FUNCTION event_store.category(text) IS
'The category of a stream: the part of its name before the first "-", or the whole name where there is none. NULL for NULL. The convention is that of EventStoreDB and Message DB.';

CREATE FUNCTION event_store._guard_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_guard_insert';
COMMENT ON FUNCTION event_store._guard_insert() IS
'Trigger function: makes an INSERT or COPY into an event table an append. Draws the position, assigns version, event_id and recorded_at. Raises SE001 where a version is given that is not the next, SE005 where the guards are not in order.';

CREATE FUNCTION event_store._guard_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_guard_change';
COMMENT ON FUNCTION event_store._guard_change() IS
'Trigger function: refuses UPDATE, DELETE and TRUNCATE with SE002 (append_only_violation), for everybody.';

CREATE FUNCTION event_store.create_event_table(
    name text,
    if_not_exists boolean DEFAULT false)
    RETURNS regclass
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_create_event_table';
COMMENT ON FUNCTION event_store.create_event_table(text, boolean) IS
'Creates an event table, owned by the caller, with its sequence, indexes and guards. The name is an SQL identifier and may carry a schema; quote it as in SQL. With if_not_exists an event table that is already there is left as it is. Raises 42P07 where the name is taken, SE004 where if_not_exists finds something that is not an event table, 42602 where the name is not valid.';

CREATE FUNCTION event_store.drop_event_table(
    event_table regclass,
    cascade boolean DEFAULT false)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_drop_event_table';
COMMENT ON FUNCTION event_store.drop_event_table(regclass, boolean) IS
'Drops an event table with all its events and snapshots; with cascade also what depends on it. Plain DROP TABLE does the same; this one refuses anything that is not an event table (SE004). The owner''s right.';

CREATE FUNCTION event_store.guard(event_table regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_guard';
COMMENT ON FUNCTION event_store.guard(regclass) IS
'Puts an event table''s guards and the settings of its sequence back in order and returns a line for each thing that it mended; none where all was well. What it cannot mend it raises as SE005. The owner''s right.';

CREATE FUNCTION event_store.make_append_only(target regclass) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_make_append_only';
COMMENT ON FUNCTION event_store.make_append_only(regclass) IS
'Makes any existing ordinary table append-only: from then on UPDATE, DELETE, TRUNCATE and DROP COLUMN raise SE002. Nothing else about the table changes; it gets no versions, positions or feed. The owner''s right. Raises 42809 for anything but an ordinary, permanent table without partitions or inheritance.';

CREATE FUNCTION event_store.check_guards(target regclass) RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_check_guards';
COMMENT ON FUNCTION event_store.check_guards(regclass) IS
'What is wrong with the guards, columns, indexes or sequence of an event table, or with the guards of an append-only one; NULL where all is in order. Raises SE004 for any other table.';

CREATE FUNCTION event_store.last_position(event_table regclass) RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_last_position';
COMMENT ON FUNCTION event_store.last_position(regclass) IS
'The greatest position in an event table that the calling statement can see; 0 where there is none. No checkpoint: events with lower positions may still be on their way. Needs SELECT on the event table.';

CREATE VIEW event_store.event_tables AS
SELECT c.oid::pg_catalog.regclass AS event_table,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       CASE WHEN c.reltuples < 0 THEN NULL
            ELSE c.reltuples::pg_catalog.int8 END AS events_estimate,
       -- Not through policies: they are the owner's code.
       CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT')
             AND NOT pg_catalog.row_security_active(c.oid)
            THEN event_store.last_position(c.oid::pg_catalog.regclass)
            END AS last_position,
       pg_catalog.pg_table_size(c.oid::pg_catalog.regclass) AS heap_bytes,
       pg_catalog.pg_indexes_size(c.oid::pg_catalog.regclass) AS index_bytes,
       p.problem IS NULL AS guarded,
       p.problem
  FROM pg_catalog.pg_class c
 CROSS JOIN LATERAL (SELECT event_store.check_guards(c.oid::pg_catalog.regclass)
                     OFFSET 0) AS p(problem)
 WHERE c.oid IN (SELECT t.tgrelid
                   FROM pg_catalog.pg_trigger t
                  WHERE t.tgfoid = 'event_store._guard_insert()'::pg_catalog.regprocedure);
COMMENT ON VIEW event_store.event_tables IS
'The event tables of this database: owner, number of events as last estimated by ANALYZE or VACUUM (NULL: never), greatest visible position (NULL without SELECT on the table, and where row-level security applies), bytes of the heap with TOAST and of the indexes, whether the guards are in order, and what is wrong where they are not.';
GRANT SELECT ON event_store.event_tables TO PUBLIC;

CREATE FUNCTION event_store._check_ddl() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_check_ddl';
COMMENT ON FUNCTION event_store._check_ddl() IS
'Event trigger function: after a DDL command, refuses it (SE005) where it has broken the guards of an event table or an append-only table, or (SE002) changed the type of one of its columns.';

CREATE FUNCTION event_store._check_sequence() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_check_sequence';
COMMENT ON FUNCTION event_store._check_sequence() IS
'Event trigger function: before a DDL command on a sequence, refuses it (SE005) where it would take the sequence of an event table away from it.';

CREATE FUNCTION event_store._check_rewrite() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_check_rewrite';
COMMENT ON FUNCTION event_store._check_rewrite() IS
'Event trigger function: refuses (SE002) the ALTER TABLE that would rewrite the columns of stored events.';

CREATE FUNCTION event_store._check_drop() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'event_store_check_drop';
COMMENT ON FUNCTION event_store._check_drop() IS
'Event trigger function: refuses (SE005) to drop a guard without its table, and (SE002) a column of an append-only table; removes the snapshots of event tables that are dropped.';

CREATE EVENT TRIGGER event_store_check_sequence ON ddl_command_start
    WHEN TAG IN ('ALTER SEQUENCE', 'DROP SEQUENCE')
    EXECUTE FUNCTION event_store._check_sequence();
-- For all commands: there are too many ways to rename a column, say.
CREATE EVENT TRIGGER event_store_check_ddl ON ddl_command_end
    EXECUTE FUNCTION event_store._check_ddl();
CREATE EVENT TRIGGER event_store_check_rewrite ON table_rewrite
    EXECUTE FUNCTION event_store._check_rewrite();
CREATE EVENT TRIGGER event_store_check_drop ON sql_drop
    EXECUTE FUNCTION event_store._check_drop();
ALTER EVENT TRIGGER event_store_check_sequence ENABLE ALWAYS;
ALTER EVENT TRIGGER event_store_check_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER event_store_check_rewrite ENABLE ALWAYS;
ALTER EVENT TRIGGER event_store_check_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER event_store_check_sequence IS
'Refuses to take the sequence away from an event table.';
COMMENT ON EVENT TRIGGER event_store_check_ddl IS
'Refuses DDL that breaks the guards of an event table or append-only table.';
COMMENT ON EVENT TRIGGER event_store_check_rewrite IS
'Refuses ALTER TABLE commands that rewrite stored events.';
COMMENT ON EVENT TRIGGER event_store_check_drop IS
'Refuses to drop the guards of a table that stays, and cleans up after event tables that are dropped.';
