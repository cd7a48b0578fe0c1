-- Reading streams.  STABLE: they see what the calling statement sees, its own
-- transaction's events included.  Those that upcast are PARALLEL UNSAFE, since
-- upcasters are users' functions.

CREATE FUNCTION event_store.read_stream(
    event_table regclass,
    stream text,
    from_version bigint DEFAULT NULL,
    max_count bigint DEFAULT NULL,
    direction text DEFAULT 'forward',
    as_of timestamptz DEFAULT NULL,
    raw boolean DEFAULT false)
    RETURNS SETOF event_store.event
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 100
    AS 'MODULE_PATHNAME', 'event_store_read_stream';
COMMENT ON FUNCTION event_store.read_stream(regclass, text, bigint, bigint, text, timestamptz, boolean) IS
'The events of a stream in the order of their versions. from_version is inclusive (NULL: from the first, backward from the last). max_count NULL: all. direction: forward or backward. as_of: only events recorded at or before then. A stream that does not exist has no events. Events are upcast to the newest schema version, as register_upcaster() says, unless raw; raises SE008 where that fails. Needs SELECT on the event table; row-level security applies.';

CREATE FUNCTION event_store.stream_version(
    event_table regclass,
    stream text)
    RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'event_store_stream_version';
COMMENT ON FUNCTION event_store.stream_version(regclass, text) IS
'The version of a stream: that of its last event, 0 where it has none. Needs SELECT on the event table; row-level security applies.';

CREATE FUNCTION event_store.last_event(
    event_table regclass,
    stream text,
    type text DEFAULT NULL,
    raw boolean DEFAULT false)
    RETURNS SETOF event_store.event
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
    AS 'MODULE_PATHNAME', 'event_store_last_event';
COMMENT ON FUNCTION event_store.last_event(regclass, text, text, boolean) IS
'The last event of a stream, or the last of the given type; no row where there is none. Upcast unless raw, as by read_stream(). Needs SELECT on the event table; row-level security applies.';

CREATE FUNCTION event_store.read_event(
    event_table regclass,
    event_id uuid,
    raw boolean DEFAULT false)
    RETURNS SETOF event_store.event
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1
    AS 'MODULE_PATHNAME', 'event_store_read_event';
COMMENT ON FUNCTION event_store.read_event(regclass, uuid, boolean) IS
'The event with that id; no row where there is none. Upcast unless raw, as by read_stream(). Needs SELECT on the event table; row-level security applies.';

CREATE FUNCTION event_store.streams(
    event_table regclass,
    category text DEFAULT NULL)
    RETURNS TABLE (stream text, version bigint, last_position bigint,
                   last_recorded_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1000
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM event_store.channel(event_table);   -- is it an event table?
    RETURN QUERY EXECUTE format($q$
        WITH RECURSIVE name(stream) AS (
            (SELECT e.stream FROM ONLY %1$s e
              WHERE $1 IS NULL OR (e.stream >= $1 AND e.stream < $1 || '.')
              ORDER BY e.stream LIMIT 1)
            UNION ALL
            SELECT (SELECT e.stream FROM ONLY %1$s e
                     WHERE e.stream > n.stream
                       AND ($1 IS NULL OR e.stream < $1 || '.')
                     ORDER BY e.stream LIMIT 1)
              FROM name n WHERE n.stream IS NOT NULL)
        SELECT l.stream::text, l.version, l.position, l.recorded_at
          FROM name n
         CROSS JOIN LATERAL (
            SELECT e.stream, e.version, e.position, e.recorded_at
              FROM ONLY %1$s e
             WHERE e.stream = n.stream
             ORDER BY e.version DESC LIMIT 1) l
         WHERE n.stream IS NOT NULL
           AND ($1 IS NULL OR event_store.category(n.stream) = $1)
         $q$, event_table) USING category COLLATE "C";
END $$;
COMMENT ON FUNCTION event_store.streams(regclass, text) IS
'The streams of an event table, or of one category of it, in the order of their names, each with its version and the position and recorded time of its last event. It skips from stream to stream in the index, so its cost grows with the number of streams, not of events. Needs SELECT on the event table; row-level security applies.';
