-- Snapshots: saved states of streams, disposable at any time.

CREATE TABLE event_store.snapshots (
    event_table     regclass NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    aggregate       text COLLATE "C" NOT NULL,
    schema_version  integer NOT NULL,
    version         bigint NOT NULL CHECK (version > 0),
    state           jsonb NOT NULL,
    saved_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (event_table, stream, aggregate, schema_version, version)
);
COMMENT ON TABLE event_store.snapshots IS
'Saved states of streams. Written by save_snapshot(), read by load_snapshot(); rows can be deleted at any time without loss. The owner of the database may read and fill it, so that a dump can be made and restored; a row is accepted only from a role that owns the event table.';

SELECT pg_catalog.pg_extension_config_dump('event_store.snapshots', '');

-- A database owner who is no superuser can dump and restore.
GRANT SELECT, INSERT ON event_store.snapshots TO pg_database_owner;

CREATE FUNCTION event_store._check_snapshot() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c
                         WHERE c.oid = NEW.event_table), 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', NEW.event_table
            USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION event_store._check_snapshot() IS
'Trigger function: accepts a snapshot only from a role that owns the event table. Whoever can write a snapshot can falsify the state that others load.';

CREATE TRIGGER check_snapshot BEFORE INSERT ON event_store.snapshots
    FOR EACH ROW EXECUTE FUNCTION event_store._check_snapshot();
COMMENT ON TRIGGER check_snapshot ON event_store.snapshots IS
'Accepts a snapshot only from a role that owns the event table.';

CREATE FUNCTION event_store.save_snapshot(
    event_table regclass,
    stream text,
    version bigint,
    state jsonb,
    aggregate text DEFAULT '',
    schema_version integer DEFAULT 1)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_save_snapshot';
COMMENT ON FUNCTION event_store.save_snapshot(regclass, text, bigint, jsonb, text, integer) IS
'Saves the state of a stream at a version, in place of one saved for the same version before. aggregate tells several kinds of state of one stream apart; schema_version is that of the state. Needs SELECT on the event table, and ownership of it or of the aggregate of that name, if it is registered. Raises 22023 where the stream has no event of that version.';

CREATE FUNCTION event_store.load_snapshot(
    event_table regclass,
    stream text,
    aggregate text DEFAULT '',
    max_version bigint DEFAULT NULL,
    schema_version integer DEFAULT 1,
    OUT version bigint,
    OUT state jsonb,
    OUT saved_at timestamptz)
    RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
    AS 'MODULE_PATHNAME', 'event_store_load_snapshot';
COMMENT ON FUNCTION event_store.load_snapshot(regclass, text, text, bigint, integer) IS
'The newest snapshot of a stream at or before max_version (NULL: of all) with that schema_version; no row where there is none, and none where row-level security applies to the caller. Needs SELECT on the event table. Go on from there with read_stream(..., from_version => version + 1).';

CREATE FUNCTION event_store.take_snapshots(
    event_table regclass,
    aggregate text,
    category text DEFAULT NULL,
    max_count bigint DEFAULT NULL)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_take_snapshots';
COMMENT ON FUNCTION event_store.take_snapshots(regclass, text, text, bigint) IS
'Saves the state of each stream of a category (NULL: of the whole table) that has at least snapshot_every events more than its newest snapshot, at most max_count of them (NULL: all), and returns how many it has saved. To be called now and then; it runs the reducer as the caller. Needs SELECT on the event table, and ownership of it or of the aggregate. Raises 22023 where the aggregate has no snapshot_every, 42501 where row-level security applies, and what load() raises.';

CREATE FUNCTION event_store.prune_snapshots(
    event_table regclass,
    keep integer DEFAULT 1,
    aggregate text DEFAULT NULL)
    RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_prune_snapshots';
COMMENT ON FUNCTION event_store.prune_snapshots(regclass, integer, text) IS
'Deletes the snapshots of an event table, or of one aggregate in it, but for the newest keep of each stream, aggregate and schema version; of an aggregate that is registered also those of other schema versions than its own. Returns how many. Needs SELECT on the event table, and ownership of it or of the aggregate that is named.';

CREATE FUNCTION event_store.verify_snapshots(
    event_table regclass,
    aggregate text,
    OUT stream text,
    OUT version bigint,
    OUT stored jsonb,
    OUT folded jsonb)
    RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
    AS 'MODULE_PATHNAME', 'event_store_verify_snapshots';
COMMENT ON FUNCTION event_store.verify_snapshots(regclass, text) IS
'The snapshots of an aggregate, of its present schema version, that are not what a fold from the first event gives; no row where all are right. folded is NULL where the stream has no such version. Privileges and errors as for load(); raises 42501 where row-level security applies.';

CREATE FUNCTION event_store.read_stream_from_snapshot(
    event_table regclass,
    stream text,
    aggregate text,
    schema_version integer DEFAULT 1,
    OUT snapshot_version bigint,
    OUT state jsonb,
    OUT version bigint,
    OUT events jsonb)
    RETURNS record
    LANGUAGE c STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_read_stream_from_snapshot';
COMMENT ON FUNCTION event_store.read_stream_from_snapshot(regclass, text, text, integer) IS
'What a client needs to make the state of a stream by itself, always as one row: the newest snapshot (as load_snapshot(); NULLs where there is none), all events after it as a JSON array (as of read_batch()), and the version of the stream that they lead to. The aggregate need not be registered. Raises 54000 where these are more than 100,000 events or about 16 MB of data, since a part would be taken for the whole. Needs SELECT on the event table; row-level security applies, and no snapshot is used then.';
