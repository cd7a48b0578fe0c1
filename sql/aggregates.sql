-- Aggregates: how the events of a stream are folded into its state, and the
-- states of streams now and in the past.

CREATE TABLE event_store.aggregates (
    name            text COLLATE "C" PRIMARY KEY CHECK (name <> ''),
    owner           regrole NOT NULL,
    reducer         text NOT NULL,
    initial         jsonb NOT NULL,
    snapshot_every  integer CHECK (snapshot_every >= 1),
    schema_version  integer NOT NULL CHECK (schema_version >= 1)
) USING heap;
COMMENT ON TABLE event_store.aggregates IS
'The aggregates of this database, for everybody to read: name, owner, reducer (the signature of a function), initial state, how many events apart take_snapshots() saves states (NULL: never), and the schema version of the states. Written by create_aggregate() and drop_aggregate(). The owner of the database may fill it, so that a dump can be restored.';

SELECT pg_catalog.pg_extension_config_dump('event_store.aggregates', '');

GRANT SELECT ON event_store.aggregates TO PUBLIC;
-- A database owner who is no superuser can restore.
GRANT INSERT ON event_store.aggregates TO pg_database_owner;

CREATE FUNCTION event_store._check_aggregate() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r
                    WHERE r.oid = NEW.owner AND pg_has_role(r.oid, 'USAGE')) THEN
        NEW.owner := (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION event_store._check_aggregate() IS
'Trigger function: an aggregate that a restore brings belongs to whoever restores it, if he is not a member of its owner.';

CREATE TRIGGER check_aggregate BEFORE INSERT ON event_store.aggregates
    FOR EACH ROW EXECUTE FUNCTION event_store._check_aggregate();
COMMENT ON TRIGGER check_aggregate ON event_store.aggregates IS
'Gives an aggregate that a restore brings to whoever restores it, if he is not a member of its owner.';

CREATE FUNCTION event_store.merge(
    state jsonb,
    event event_store.event)
    RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_merge';
COMMENT ON FUNCTION event_store.merge(jsonb, event_store.event) IS
'A reducer: the state with the keys of the event''s data put over its own, as state || data does. Data that are NULL change nothing. Raises 22023 where the state or the data are not a JSON object.';

CREATE FUNCTION event_store.create_aggregate(
    name text,
    reducer regprocedure DEFAULT 'event_store.merge(jsonb, event_store.event)',
    initial jsonb DEFAULT '{}',
    snapshot_every integer DEFAULT NULL,
    schema_version integer DEFAULT 1,
    or_replace boolean DEFAULT false)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_create_aggregate';
COMMENT ON FUNCTION event_store.create_aggregate(text, regprocedure, jsonb, integer, integer, boolean) IS
'Makes an aggregate: a name, good in the whole database, for a reducer and the state that it begins with. The reducer is a function (state jsonb, event event_store.event) RETURNS jsonb in any language, IMMUTABLE or STABLE; it is called for each event in turn, with the rights of whoever loads a state. snapshot_every: take_snapshots() saves the state of a stream that has that many events more than its last snapshot (NULL: never). schema_version: that of the states; raise it whenever the same events give other states than before, also by a new body of the reducer, and older snapshots are ignored. or_replace changes an aggregate in place: its owner''s right; another reducer or initial state needs a greater schema_version. Needs CREATE on the database and EXECUTE on the reducer. Raises 42710 where the name is taken, 42P13 where the function cannot be a reducer, 22004 and 22023 for bad arguments, 42501 where others have saved snapshots under the name.';

CREATE FUNCTION event_store.drop_aggregate(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_drop_aggregate';
COMMENT ON FUNCTION event_store.drop_aggregate(text) IS
'Drops an aggregate, and all snapshots that have its name. Its owner''s right. Raises 42704 where there is none.';

CREATE FUNCTION event_store.load(
    event_table regclass,
    stream text,
    aggregate text,
    at_version bigint DEFAULT NULL,
    as_of timestamptz DEFAULT NULL,
    occurred_as_of timestamptz DEFAULT NULL,
    use_snapshot boolean DEFAULT true,
    OUT version bigint,
    OUT state jsonb,
    OUT events_folded bigint,
    OUT snapshot_version bigint)
    RETURNS record
    LANGUAGE c STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_load';
COMMENT ON FUNCTION event_store.load(regclass, text, text, bigint, timestamptz, timestamptz, boolean) IS
'The state of a stream, folded from its events: always one row. version: of the last event in it; 0, and the initial state, where there is none. events_folded: how many, from the snapshot of snapshot_version on (NULL: from the first event). at_version: the state at that version, or at the end where the stream is shorter. as_of: up to the last event recorded at or before then. occurred_as_of: what had occurred by then, in that order (by occurred_at, or where that is NULL recorded_at; then by version); version is the greatest among them, and no snapshot is used. Given together, an event has to match all. use_snapshot false: fold from the first event. Needs SELECT on the event table and EXECUTE on the reducer; row-level security applies, and no snapshot is used then. Raises 42704 where there is no such aggregate, 42883 where its reducer is gone, 42P13 where it has been replaced by what cannot be one, 22004 where it returns NULL; an error in the reducer names the event in its context.';

CREATE FUNCTION event_store.load_category(
    event_table regclass,
    category text,
    aggregate text,
    as_of timestamptz DEFAULT NULL,
    occurred_as_of timestamptz DEFAULT NULL,
    use_snapshot boolean DEFAULT true,
    OUT stream text,
    OUT version bigint,
    OUT state jsonb,
    OUT events_folded bigint,
    OUT snapshot_version bigint)
    RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1000
    AS 'MODULE_PATHNAME', 'event_store_load_category';
COMMENT ON FUNCTION event_store.load_category(regclass, text, text, timestamptz, timestamptz, boolean) IS
'The states of all streams of a category, a row each, in the order of their names; streams that had no event then are left out. Arguments, privileges and errors as for load().';

CREATE FUNCTION event_store._fold_step(
    state internal,
    event event_store.event,
    aggregate text)
    RETURNS internal
    LANGUAGE c STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_fold_step';
COMMENT ON FUNCTION event_store._fold_step(internal, event_store.event, text) IS
'The step of the aggregate fold().';

CREATE FUNCTION event_store._fold_result(state internal) RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_fold_result';
COMMENT ON FUNCTION event_store._fold_result(internal) IS
'The result of the aggregate fold().';

REVOKE ALL ON FUNCTION event_store._fold_step(internal, event_store.event, text),
                       event_store._fold_result(internal) FROM PUBLIC;

CREATE AGGREGATE event_store.fold(event event_store.event, aggregate text) (
    SFUNC = event_store._fold_step,
    STYPE = internal,
    FINALFUNC = event_store._fold_result,
    PARALLEL = UNSAFE
);
COMMENT ON AGGREGATE event_store.fold(event_store.event, text) IS
'An SQL aggregate: folds events, in the order of its ORDER BY, into a state, by the reducer of the aggregate that is named. Events that are NULL are left out; the result is NULL where there is no other. The name must be the same for all rows of a group (22023). Needs EXECUTE on the reducer; errors as for load().';

CREATE FUNCTION event_store.diff_state(
    event_table regclass,
    stream text,
    aggregate text,
    from_version bigint DEFAULT 0,
    to_version bigint DEFAULT NULL)
    RETURNS TABLE (path text[], before jsonb, after jsonb)
    LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 10
BEGIN ATOMIC
    WITH RECURSIVE difference(path, before, after) AS (
        SELECT '{}'::text[], o.state, n.state
          FROM event_store.load(event_table, stream, aggregate, coalesce(from_version, 0)) o,
               event_store.load(event_table, stream, aggregate, to_version) n
         WHERE o.state <> n.state
        UNION ALL
        SELECT d.path || k.key, d.before -> k.key, d.after -> k.key
          FROM difference d
         CROSS JOIN LATERAL (
                SELECT pg_catalog.jsonb_object_keys(d.before)
                UNION
                SELECT pg_catalog.jsonb_object_keys(d.after)) k(key)
         WHERE pg_catalog.jsonb_typeof(d.before) = 'object'
           AND pg_catalog.jsonb_typeof(d.after) = 'object'
           AND d.before -> k.key IS DISTINCT FROM d.after -> k.key)
    SELECT d.path, d.before, d.after
      FROM difference d
     WHERE (pg_catalog.jsonb_typeof(d.before) = 'object'
            AND pg_catalog.jsonb_typeof(d.after) = 'object') IS NOT TRUE
     ORDER BY d.path COLLATE "C";
END;
COMMENT ON FUNCTION event_store.diff_state(regclass, text, text, bigint, bigint) IS
'What differs between the states of a stream at two versions (from NULL: 0, the initial state; to NULL: the end): a row for each path that does, in their order. Objects are compared key by key, arrays and all else as a whole; before or after is NULL where there is nothing at the path. Arguments, privileges and errors as for load().';
