-- Appending.  One family, distinct names: an overloaded append() would make
-- untyped literals ambiguous.  Not STRICT: a NULL that is not allowed gets an
-- error, not a NULL result that looks like success.

CREATE TYPE event_store.append_result AS (
    first_version   bigint,
    last_version    bigint,
    first_position  bigint,
    last_position   bigint,
    event_ids       uuid[],
    duplicate       boolean
);
COMMENT ON TYPE event_store.append_result IS
'What an append returns: the versions and positions of its first and last event, the ids of all, and whether they had been there already (duplicate), in which case the versions and positions are the original ones and nothing was written.';

CREATE FUNCTION event_store.stream_exists() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (-4)::bigint;
COMMENT ON FUNCTION event_store.stream_exists() IS
'The expected_version that demands that the stream has at least one event. The number, -4, is that of KurrentDB.';

CREATE FUNCTION event_store._plan_append(request internal) RETURNS internal
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_plan_append';
COMMENT ON FUNCTION event_store._plan_append(internal) IS
'The planner support function of the appending functions.';
REVOKE ALL ON FUNCTION event_store._plan_append(internal) FROM PUBLIC;

CREATE FUNCTION event_store.append(
    event_table regclass,
    stream text,
    type text,
    data jsonb,
    expected_version bigint DEFAULT NULL,
    event_id uuid DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL,
    occurred_at timestamptz DEFAULT NULL,
    schema_version integer DEFAULT 1)
    RETURNS event_store.append_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    SUPPORT event_store._plan_append
    AS 'MODULE_PATHNAME', 'event_store_append';
COMMENT ON FUNCTION event_store.append(regclass, text, text, jsonb, bigint, uuid, jsonb, text, text, timestamptz, integer) IS
'Appends one event to a stream. expected_version: NULL any, 0 the stream must not exist, n it must be at version n, event_store.stream_exists() it must exist. event_id: makes the call idempotent; the same event again returns the first call''s versions and positions with duplicate = true and writes nothing. Needs INSERT on the event table. Raises SE001 wrong_expected_version, SE003 event_id_conflict, SE004 not_an_event_table, SE005 unguarded_event_table, 22004 and 22023 for bad arguments. Call it in FROM: (append(...)).* would call it once per column.';

CREATE FUNCTION event_store.append_batch(
    event_table regclass,
    stream text,
    types text[],
    data jsonb[],
    expected_version bigint DEFAULT NULL,
    event_ids uuid[] DEFAULT NULL,
    metadata jsonb[] DEFAULT NULL,
    correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL,
    occurred_at timestamptz[] DEFAULT NULL,
    schema_versions integer[] DEFAULT NULL)
    RETURNS event_store.append_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    SUPPORT event_store._plan_append
    AS 'MODULE_PATHNAME', 'event_store_append_batch';
COMMENT ON FUNCTION event_store.append_batch(regclass, text, text[], jsonb[], bigint, uuid[], jsonb[], text, text, timestamptz[], integer[]) IS
'Appends several events to one stream, all or none: types[i] with data[i], and metadata[i], occurred_at[i], schema_versions[i], event_ids[i] where given; correlation_id and causation_id hold for all. The arrays have one length, at least 1. expected_version, idempotency, privileges and errors as for append().';

CREATE FUNCTION event_store.append_json(
    event_table regclass,
    stream text,
    events jsonb,
    expected_version bigint DEFAULT NULL)
    RETURNS event_store.append_result
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    SUPPORT event_store._plan_append
    AS 'MODULE_PATHNAME', 'event_store_append_json';
COMMENT ON FUNCTION event_store.append_json(regclass, text, jsonb, bigint) IS
'Appends several events to one stream from one JSON array of objects, which every driver can send. Keys: type and data (required), event_id, metadata, correlation_id, causation_id, occurred_at, schema_version; any other key is an error. expected_version, idempotency, privileges and errors as for append().';

CREATE FUNCTION event_store.append_streams(
    event_table regclass,
    appends jsonb,
    checks jsonb DEFAULT NULL,
    OUT stream text,
    OUT first_version bigint,
    OUT last_version bigint,
    OUT first_position bigint,
    OUT last_position bigint,
    OUT event_ids uuid[],
    OUT duplicate boolean)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'event_store_append_streams';
COMMENT ON FUNCTION event_store.append_streams(regclass, jsonb, jsonb) IS
'Appends to several streams atomically. appends: a JSON array of {"stream": …, "expected_version": …, "events": […]}, events as for append_json(). checks: a JSON array of {"stream": …, "expected_version": …} for streams that are not written but must be at that version when the transaction commits. A stream may be named once. Every failing check is reported in the one SE001. Returns a row per stream of appends, in its order. Above 1,000 streams it locks the event table against other writers (SHARE ROW EXCLUSIVE) instead of each stream. Privileges and errors as for append().';
